package block_uploads_except_test

import data.exitgate.testing

test_listed if {
	testing.verdict(testing.request("app", "POST", "https://api.example.com/v1")) == "allow"
	testing.verdict(testing.request("app", "PUT", "https://a.partner.example.net/v1")) == "allow"
}

test_not_listed if {
	testing.verdict(testing.request("app", "POST", "https://other.example.com/v1")) == "refuse"
	testing.reasons(testing.request("app", "POST", "https://other.example.com/v1")) == {"uploads are only for the destinations in data.uploads"}
}

test_reading if testing.verdict(testing.request("app", "GET", "https://other.example.com/v1")) == "allow"

test_connecting if testing.verdict(testing.connect("app", "other.example.com", 443)) == "allow"
