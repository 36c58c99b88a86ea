package read_only_test

import data.exitgate.testing

test_reading if {
	testing.verdict(testing.request("desk", "GET", "https://docs.example.com/a")) == "allow"
	testing.verdict(testing.request("desk", "HEAD", "https://a.b.example.com/")) == "allow"
}

test_no_other_method if {
	every method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get"] {
		testing.verdict(testing.request("desk", method, "https://docs.example.com/a")) == "refuse"
	}
}

test_not_the_domain_itself if testing.verdict(testing.request("desk", "GET", "https://example.com/")) == "refuse"

test_not_a_name_that_looks_like_it if {
	testing.verdict(testing.request("desk", "GET", "https://notexample.com/")) == "refuse"
	testing.verdict(testing.request("desk", "GET", "https://docs.example.com.evil.test/")) == "refuse"
}
