package write_at_night_test

import data.exitgate.testing

backup(method, time) := testing.verdict(testing.at(testing.request("backup", method, "https://vault.example.net/ours/x"), time))

test_night if {
	backup("PUT", "2026-06-01T22:30:00Z") == "allow"
	backup("PUT", "2026-06-02T03:59:00Z") == "allow"
}

test_day if backup("PUT", "2026-06-01T12:00:00Z") == "refuse"

test_reading if backup("GET", "2026-06-01T12:00:00Z") == "allow"

test_connecting if testing.verdict(testing.connect("backup", "vault.example.net", 443)) == "allow"

test_others_write_at_any_time if testing.verdict(testing.request("app", "PUT", "https://vault.example.net/app/x")) == "allow"
