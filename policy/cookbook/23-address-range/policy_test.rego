package address_range_test

import data.exitgate.testing

test_inside if testing.verdict(testing.request("app", "GET", "https://198.51.100.77/v1")) == "allow"

test_outside if testing.verdict(testing.request("app", "GET", "https://198.51.101.1/v1")) == "refuse"

test_a_name_is_another_matter if testing.verdict(testing.request("app", "GET", "https://partner.example.net/v1")) == "refuse"
