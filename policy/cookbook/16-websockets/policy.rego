package exitgate

# METADATA
# title: Upgrades where they are known
# description: A connection that was upgraded carries what no rule can look at message by message.
deny contains "upgrades are only for the chat" if {
	input.http.upgrade != ""
	not chat
}

chat if {
	input.dest.host == "chat.example.com"
	input.http.path == "/socket"
	input.http.upgrade == "websocket"
}
