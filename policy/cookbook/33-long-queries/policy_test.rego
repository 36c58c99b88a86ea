package long_queries_test

import data.exitgate.testing

get(host, text) := testing.verdict(testing.request("app", "GET", sprintf("https://%s/q?x=%s", [host, text])))

long := sprintf("%03000d", [0])

test_short if get("api.example.com", "short") == "allow"

test_long if get("api.example.com", long) == "refuse"

test_known if get("maps.example.com", long) == "allow"
