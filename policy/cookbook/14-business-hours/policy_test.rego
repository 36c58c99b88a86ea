package business_hours_test

import data.exitgate.testing

read(time) := testing.verdict(testing.at(testing.request("desk", "GET", "https://news.example.net/"), time))

test_in_office_hours if read("2026-06-01T06:00:00Z") == "allow" # Monday, 8:00 in Berlin

test_before if read("2026-06-01T05:59:59Z") == "refuse"

test_winter if {
	read("2026-12-01T06:59:59Z") == "refuse"
	read("2026-12-01T07:00:00Z") == "allow"
}

test_weekend if read("2026-06-06T10:00:00Z") == "refuse"

test_other_sites_at_any_time if {
	testing.verdict(testing.at(testing.request("desk", "GET", "https://wiki.example.com/"), "2026-06-06T10:00:00Z")) == "allow"
}
