package exitgate

# METADATA
# title: One user agent
# description: What runs in class app, and in which version, is nobody's business.
rewrite contains {"header.Modifier": {"name": "User-Agent", "value": "app"}} if {
	input.host.class == "app"
}
