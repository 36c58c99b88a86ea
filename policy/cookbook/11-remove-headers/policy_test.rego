package remove_headers_test

import data.exitgate
import data.exitgate.testing

test_outside if {
	exitgate.rewrite == {{"header.Blacklist": {"names": ["X-Employee", "X-Machine"]}}} with input as testing.request("desk", "GET", "https://news.example.net/")
}

test_at_home if {
	exitgate.rewrite == set() with input as testing.request("desk", "GET", "https://intranet.example.com/")
}
