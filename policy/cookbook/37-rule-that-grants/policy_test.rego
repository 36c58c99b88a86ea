package rule_that_grants_test

import data.exitgate.testing

from(host, dest) := testing.verdict(object.union(testing.request("shop", "GET", concat("", ["https://", dest, "/stock"])), {"host": {"name": host}}))

test_own_branch if {
	from("berlin", "berlin.branches.example.com") == "allow"
	testing.verdict(object.union(testing.connect("shop", "berlin.branches.example.com", 443), {"host": {"name": "berlin"}})) == "allow"
}

test_other_branch if {
	from("berlin", "paris.branches.example.com") == "refuse"
	testing.verdict(object.union(testing.connect("shop", "paris.branches.example.com", 443), {"host": {"name": "berlin"}})) == "refuse"
}

test_another_port if from("berlin", "berlin.branches.example.com:8443") == "refuse"

test_no_name if from("", ".branches.example.com") == "refuse"

test_other_class if {
	testing.verdict(object.union(testing.request("app", "GET", "https://berlin.branches.example.com/stock"), {"host": {"name": "berlin"}})) == "refuse"
}

test_only_https if {
	plain := object.union(testing.request("shop", "GET", "http://berlin.branches.example.com:443/stock"), {"host": {"name": "berlin"}})
	testing.verdict(plain) == "refuse"
}

test_only_the_usual_port if {
	testing.verdict(object.union(testing.connect("shop", "berlin.branches.example.com", 8443), {"host": {"name": "berlin"}})) == "refuse"
}

test_resolving if {
	testing.verdict(object.union(testing.resolve("shop", "berlin.branches.example.com"), {"host": {"name": "berlin"}})) == "allow"
	testing.verdict(object.union(testing.resolve("shop", "paris.branches.example.com"), {"host": {"name": "berlin"}})) == "refuse"
}

test_only_reading if {
	testing.verdict(object.union(testing.request("shop", "POST", "https://berlin.branches.example.com/stock"), {"host": {"name": "berlin"}})) == "refuse"
}
