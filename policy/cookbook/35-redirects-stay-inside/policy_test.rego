package redirects_stay_inside_test

import data.exitgate.testing

redirect(location) := testing.verdict(testing.response(testing.request("desk", "GET", "https://www.example.com/"), 302, {"location": [location]}))

test_inside if {
	redirect("/next") == "allow"
	redirect("https://login.example.com/x") == "allow"
}

test_outside if {
	redirect("https://elsewhere.example.net/x") == "refuse"
	redirect("//elsewhere.example.net/x") == "refuse"
	redirect("https://login.example.com.evil.test/") == "refuse"
	redirect("https://login.example.com@evil.test/") == "refuse"
}

test_no_redirect if {
	testing.verdict(testing.response(testing.request("desk", "GET", "https://www.example.com/"), 200, {})) == "allow"
}

test_other_classes_and_sites if {
	every q in [testing.request("app", "GET", "https://www.example.com/"), testing.request("desk", "GET", "https://www.example.net/")] {
		testing.verdict(testing.response(q, 302, {"location": ["https://elsewhere.example.net/x"]})) == "allow"
	}
}
