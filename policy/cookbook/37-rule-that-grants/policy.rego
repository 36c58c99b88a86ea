package exitgate

own_branch if {
	input.host.class == "shop"
	input.host.name != ""
	input.dest.host == concat(".", [input.host.name, "branches.example.com"])
}

# METADATA
# title: Its own branch, to resolve
# description: A shop may ask where the branch is that has its name.
grants contains "own-branch" if {
	input.stage == "resolve"
	own_branch
}

# METADATA
# title: Its own branch, to connect
# description: A shop reaches the branch that has its name.
grants contains "own-branch" if {
	input.stage == "connect"
	input.dest.port == 443
	own_branch
}

# METADATA
# title: Its own branch, to read
# description: Stock and prices are read; nothing is written.
grants contains "own-branch" if {
	own_branch
	input.dest.port == 443
	input.http.scheme == "https"
	input.http.method in {"GET", "HEAD"}
}
