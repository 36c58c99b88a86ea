package our_account_only_test

import data.exitgate.testing

get := testing.request("app", "GET", "https://storage.example.net/ours/x")

test_ours if testing.verdict(testing.with_headers(get, {"authorization": "Bearer fp:0d5e7c"})) == "allow"

test_another if testing.verdict(testing.with_headers(get, {"authorization": "Bearer fp:ffffff"})) == "refuse"

test_both if testing.verdict(testing.with_headers(get, {"authorization": ["Bearer fp:0d5e7c", "Bearer fp:ffffff"]})) == "refuse"

test_none if {
	testing.verdict(get) == "refuse"
	testing.verdict(testing.with_headers(get, {"authorization": []})) == "refuse"
}

test_connecting if testing.verdict(testing.connect("app", "storage.example.net", 443)) == "allow"

test_elsewhere if testing.verdict(testing.request("app", "GET", "https://www.example.com/")) == "allow"
