package replace_user_agent_test

import data.exitgate
import data.exitgate.testing

test_replaced if {
	exitgate.rewrite == {{"header.Modifier": {"name": "User-Agent", "value": "app"}}} with input as testing.request("app", "GET", "https://api.example.net/")
}

test_other_classes_are_left_alone if {
	exitgate.rewrite == set() with input as testing.request("desk", "GET", "https://api.example.net/")
}
