package largest_answers_test

import data.exitgate.testing

test_granted if testing.verdict(testing.request("app", "POST", "https://api.example.com/v1/query")) == "allow"

# Limits are the gateway's to keep: what was declared does not change the answer here.
test_whatever_is_declared if {
	testing.verdict(object.union(testing.request("app", "POST", "https://api.example.com/v1/query"), {"http": {"length": 1000000000}})) == "allow"
}
