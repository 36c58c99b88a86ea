package pinned_application_test

import data.exitgate.testing

test_carried_unread if testing.verdict(testing.connect("till", "pay.bank.example", 443)) == "splice"

test_until if {
	testing.verdict(testing.at(testing.connect("till", "pay.bank.example", 443), "2027-06-30T00:00:00Z")) == "refuse"
}

test_nobody_else if testing.verdict(testing.connect("app", "pay.bank.example", 443)) == "refuse"

test_no_other_port if testing.verdict(testing.connect("till", "pay.bank.example", 8443)) == "refuse"
