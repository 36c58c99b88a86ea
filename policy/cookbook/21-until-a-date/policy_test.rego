package until_a_date_test

import data.exitgate.testing

asked(time) := testing.verdict(testing.at(testing.request("app", "GET", "https://trial.example.net/"), time))

test_before if asked("2026-12-31T23:59:59Z") == "allow"

test_after if asked("2027-01-01T00:00:00Z") == "refuse"
