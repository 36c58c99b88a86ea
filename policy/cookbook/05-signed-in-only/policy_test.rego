package signed_in_only_test

import data.exitgate.testing

post := testing.request("app", "POST", "https://api.example.com/v1/items")

test_reading_needs_nothing if testing.verdict(testing.request("app", "GET", "https://api.example.com/v1/items")) == "allow"

test_writing_needs_credentials if {
	testing.verdict(post) == "refuse"
	testing.verdict(testing.with_headers(post, {"authorization": "Bearer fp:5f2c"})) == "allow"
	testing.verdict(testing.with_headers(post, {"authorization": "Basic fp:5f2c"})) == "refuse"
}

test_elsewhere_grants_decide if testing.verdict(testing.request("app", "POST", "https://forms.example.com/contact")) == "allow"
