package tenant_of_a_shared_host_test

import data.exitgate.testing

test_our_organisation if testing.verdict(testing.request("build", "GET", "https://git.example.com/our-org/shop.git/info/refs")) == "allow"

test_nobody_elses if {
	every url in [
		"https://git.example.com/their-org/shop.git/info/refs", "https://git.example.com/our-org-too/x",
		"https://git.example.com/", "https://theirs.storage.example.net/x", "https://storage.example.net/our-bucket/x",
	] {
		testing.verdict(testing.request("build", "GET", url)) == "refuse"
	}
}

test_our_bucket if testing.verdict(testing.request("build", "GET", "https://ours.storage.example.net/x")) == "allow"
