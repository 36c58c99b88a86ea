package websockets_test

import data.exitgate.testing

upgrade(url) := object.union(testing.request("desk", "GET", url), {"http": {"upgrade": "websocket"}})

test_chat if testing.verdict(upgrade("https://chat.example.com/socket")) == "allow"

test_not_elsewhere if {
	testing.verdict(upgrade("https://www.example.com/socket")) == "refuse"
	testing.verdict(upgrade("https://chat.example.com/other")) == "refuse"
}

test_not_another_protocol if {
	testing.verdict(object.union(upgrade("https://chat.example.com/socket"), {"http": {"upgrade": "tunnel"}})) == "refuse"
}

test_plain_requests if testing.verdict(testing.request("desk", "GET", "https://www.example.com/socket")) == "allow"
