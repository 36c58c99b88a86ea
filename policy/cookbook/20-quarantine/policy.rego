package exitgate

# METADATA
# title: Quarantine
# description: A host in the list reaches its updates and nothing else.
deny contains "this host is in quarantine: call the help desk" if {
	input.host.name in data.quarantine
	input.dest.host != "updates.example.com"
}
