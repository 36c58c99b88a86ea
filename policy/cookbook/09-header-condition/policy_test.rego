package header_condition_test

import data.exitgate.testing

get := testing.request("app", "GET", "https://api.example.com/v1")

test_with_it if testing.verdict(testing.with_headers(get, {"x-team": "blue-7", "accept": "application/json"})) == "allow"

test_one_of_several_values if testing.verdict(testing.with_headers(get, {"x-team": ["red", "blue-7"], "accept": "application/json"})) == "allow"

test_without_it if {
	testing.verdict(get) == "refuse"
	testing.verdict(testing.with_headers(get, {"x-team": "light-blue", "accept": "application/json"})) == "refuse"
	testing.verdict(testing.with_headers(get, {"x-team": "blue-7"})) == "refuse"
}
