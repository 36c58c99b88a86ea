package dns_tunnels_test

import data.exitgate.testing

test_names if {
	testing.verdict(testing.resolve("app", "www.example.com")) == "allow"
	testing.verdict(testing.resolve("app", "a.b.example.com")) == "allow"
}

test_long_labels if {
	testing.verdict(testing.resolve("app", "zvq5d0r2x9k8c7b6n5m4a3s2d1f0g9h8j7k6.example.com")) == "refuse"
}

test_many_labels if testing.verdict(testing.resolve("app", "a.b.c.d.e.f.g.example.com")) == "refuse"

test_connecting_is_another_matter if {
	testing.verdict(testing.connect("app", "zvq5d0r2x9k8c7b6n5m4a3s2d1f0g9h8j7k6.example.com", 443)) == "allow"
	testing.verdict(testing.connect("app", "a.b.c.d.e.f.g.example.com", 443)) == "allow"
}
