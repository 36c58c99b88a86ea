package no_addresses_test

import data.exitgate.testing

test_name if testing.verdict(testing.request("desk", "GET", "https://www.example.com/")) == "allow"

test_address if {
	testing.verdict(testing.request("desk", "GET", "https://198.51.100.7/")) == "refuse"
	testing.reasons(testing.request("desk", "GET", "https://198.51.100.7/")) == {"ask for it by name"}
}

test_ipv6 if testing.reasons(testing.connect("desk", "2001:db8::7", 443)) == {"ask for it by name"}

test_not_for_other_classes if testing.verdict(testing.request("app", "GET", "https://198.51.100.7/")) == "allow"
