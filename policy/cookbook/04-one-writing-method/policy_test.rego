package one_writing_method_test

import data.exitgate.testing

test_reading if testing.verdict(testing.request("app", "GET", "https://api.example.com/anything")) == "allow"

test_writing if testing.verdict(testing.request("app", "PUT", "https://api.example.com/v1/metrics")) == "allow"

test_not_writing_elsewhere if {
	testing.verdict(testing.request("app", "PUT", "https://api.example.com/v1/metrics/x")) == "refuse"
	testing.verdict(testing.request("app", "PUT", "https://api.example.com/")) == "refuse"
}
