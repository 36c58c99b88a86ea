package emergency_stop_test

import data.exitgate.testing

stopped(stop) := verdict if {
	verdict := testing.verdict(testing.request("app", "GET", "https://api.example.com/")) with data.stop as stop
}

test_normally if stopped({"all": false, "classes": []}) == "allow"

test_all if {
	stopped({"all": true, "classes": []}) == "refuse"
	testing.verdict(testing.connect("app", "api.example.com", 443)) == "refuse" with data.stop as {"all": true, "classes": []}
}

test_a_class if {
	stopped({"all": false, "classes": ["app"]}) == "refuse"
	stopped({"all": false, "classes": ["build"]}) == "allow"
}
