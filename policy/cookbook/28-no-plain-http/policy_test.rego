package no_plain_http_test

import data.exitgate.testing

test_https if testing.verdict(testing.request("build", "GET", "https://www.example.com/")) == "allow"

test_mirror if testing.verdict(testing.request("build", "GET", "http://mirror.example.net/debian/x.deb")) == "allow"

test_other if testing.verdict(testing.request("build", "GET", "http://www.example.com/")) == "refuse"
