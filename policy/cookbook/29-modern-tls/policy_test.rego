package modern_tls_test

import data.exitgate.testing

hello(tls) := testing.verdict(object.union(
	testing.connect("app", "api.example.com", 443),
	{"tls": object.union({"sni": "api.example.com", "alpn": ["h2"], "versions": ["1.3", "1.2"], "ech": false, "ja4": ""}, tls)},
))

test_modern if {
	hello({}) == "allow"
	hello({"versions": ["1.3"]}) == "allow"
	hello({"versions": ["1.2", "1.1"]}) == "allow"
}

test_old if hello({"versions": ["1.1", "1.0"]}) == "refuse"

test_hidden if hello({"ech": true}) == "refuse"

test_before_the_hello if testing.verdict(testing.connect("app", "api.example.com", 443)) == "allow"
