package one_host_test

import data.exitgate.testing

from(host) := testing.verdict(object.union(testing.request("app", "GET", "https://reports.example.com/"), {"host": {"name": host}}))

test_the_host if from("app-7") == "allow"

test_others_of_the_class if from("app-8") == "refuse"
