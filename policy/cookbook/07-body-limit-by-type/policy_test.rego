package body_limit_by_type_test

import data.exitgate.testing

post(type, length) := object.union(
	testing.with_headers(testing.request("app", "POST", "https://api.example.com/v1"), {"content-type": type}),
	{"http": {"length": length}},
)

test_small if testing.verdict(post("application/json", 1000)) == "allow"

test_large if testing.verdict(post("application/json; charset=utf-8", 200000)) == "refuse"

test_undeclared if testing.verdict(post("application/json", -1)) == "refuse"

test_other_types if {
	testing.verdict(post("image/png", 200000)) == "allow"
	testing.verdict(post("image/png", 20000000)) == "refuse"
}

test_no_type if testing.verdict(object.union(testing.request("app", "POST", "https://api.example.com/v1"), {"http": {"length": 200000}})) == "refuse"

test_reading if {
	get := testing.request("app", "GET", "https://api.example.com/v1")
	testing.verdict(get) == "allow"
	testing.verdict(object.union(get, {"http": {"length": 200000}})) == "allow"
}
