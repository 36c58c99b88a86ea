package audit_mode_test

import data.exitgate.testing

test_audit_carries if testing.verdict(testing.request("desk", "GET", "https://www.example.com/")) == "allow"

test_and_grants_no_more_than_it_says if testing.verdict(testing.request("desk", "POST", "https://www.example.com/")) == "refuse"
