package safe_search_test

import data.exitgate
import data.exitgate.testing

test_set if {
	exitgate.rewrite == {{"querystring.Modifier": {"name": "safe", "value": "active"}}} with input as testing.request("desk", "GET", "https://search.example.net/search?q=x&safe=off")
}

test_not_elsewhere if {
	every q in [
		testing.request("desk", "GET", "https://search.example.net/images"), testing.request("desk", "GET", "https://www.example.net/search"),
		testing.request("app", "GET", "https://search.example.net/search"),
	] {
		exitgate.rewrite == set() with input as q
	}
}
