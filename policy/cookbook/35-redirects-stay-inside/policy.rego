package exitgate

# The name after the two slashes, without user and port; a path has none.
target(location) := regex.find_all_string_submatch_n(`^(?:[A-Za-z][A-Za-z0-9+.-]*:)?[/\\]{2}(?:[^/?#\\]*@)?([^/?#:\\]*)`, location, 1)[0][1]

inside(name) if name in {"www.example.com", "login.example.com"}

# METADATA
# title: Redirects of our sites
# description: Our sites send people to our sites.
deny contains sprintf("the answer leads to %s, which is not one of our sites", [name]) if {
	input.host.class == "desk"
	"*.example.com" in input.dest.keys
	some location in input.response.headers.location
	name := lower(target(location))
	not inside(name)
}
