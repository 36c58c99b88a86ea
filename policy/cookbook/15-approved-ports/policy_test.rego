package approved_ports_test

import data.exitgate.testing

test_usual if {
	testing.verdict(testing.request("app", "GET", "https://api.example.com/")) == "allow"
	testing.verdict(testing.connect("app", "api.example.com", 443)) == "allow"
}

test_other if {
	testing.verdict(testing.request("app", "GET", "https://api.example.com:8443/")) == "refuse"
	testing.verdict(testing.connect("app", "api.example.com", 8443)) == "refuse"
}

test_database_has_an_exception if testing.verdict(testing.connect("app", "db.example.com", 5432)) == "splice"

test_names_may_be_resolved if testing.verdict(testing.resolve("app", "api.example.com")) == "allow"
