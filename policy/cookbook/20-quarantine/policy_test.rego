package quarantine_test

import data.exitgate.testing

from(host, url) := testing.verdict(object.union(testing.request("desk", "GET", url), {"host": {"name": host}}))

test_quarantined if {
	from("desk-17", "https://www.example.com/") == "refuse"
	from("desk-17", "https://updates.example.com/") == "allow"
}

test_others if from("desk-18", "https://www.example.com/") == "allow"
