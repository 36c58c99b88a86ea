package restrict_tenants_by_header_test

import data.exitgate
import data.exitgate.testing

login := testing.request("desk", "POST", "https://login.provider.example.net/common/oauth2")

test_header_is_set if {
	exitgate.rewrite == {{"header.Modifier": {"name": "Restrict-Access-To-Tenants", "value": "example.com"}}} with input as login
}

test_only_there if {
	exitgate.rewrite == set() with input as testing.request("desk", "GET", "https://www.example.com/")
}

test_granted if testing.verdict(login) == "allow"
