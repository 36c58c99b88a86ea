package exitgate

# METADATA
# title: No pushes
# description: Builds read sources; what they make goes to the registry.
deny contains "builds do not push" if {
	input.dest.host == "git.example.com"
	"git-receive-pack" in input.http.segments
}

# METADATA
# title: No announcing of pushes
# description: The same, at the request that comes before a push.
deny contains "builds do not push" if {
	input.dest.host == "git.example.com"
	"git-receive-pack" in input.http.query.service
}
