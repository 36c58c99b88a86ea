package exitgate

# METADATA
# title: Safe search
# description: The search page, for desks, leaves out what an office has no use for.
rewrite contains {"querystring.Modifier": {"name": "safe", "value": "active"}} if {
	input.host.class == "desk"
	input.dest.host == "search.example.net"
	input.http.path == "/search"
}
