# How a grant meets a question.
#
# The conditions of one grant, each a function, so that a test can ask for one alone. The gateway has written
# every grant out in full (defaults filled in, lists as objects), so that each condition is a look-up.
package exitgate.match

# A grant holds until its end; one without an end has the end of time.
holds(grant) if input.at < grant.until

reaches(grant) if grant.ports[_] == input.dest.port

takes(grant) if {
	grant.schemes[input.http.scheme]
	grant.ports[_] == input.dest.port
	grant.slashes[_] == input.http.encoded_slash
	object.get(grant.methods, input.http.method, grant.any_method)
	takes_path(grant)
	takes_headers(grant)
}

takes_path(grant) if grant.any_path

takes_path(grant) if {
	some prefix in input.http.prefixes
	grant.paths[prefix]
}

# The last prefix is the whole path.
takes_path(grant) if grant.exact[input.http.prefixes[count(input.http.prefixes) - 1]]

takes_path(grant) if {
	some pattern in grant.patterns
	fits(pattern)
}

fits(pattern) if {
	long_enough(pattern.end, count(input.http.segments), count(pattern.segments))
	every i, want in pattern.segments {
		same(want, input.http.segments[i])
	}
}

long_enough("", have, want) if have >= want

long_enough("/", have, want) if have > want

long_enough("$", have, want) if have == want

same(want, have) if want == have

same("*", have) if have != ""

takes_headers(grant) if grant.headers == {}

takes_headers(grant) if {
	every name, pattern in grant.headers {
		some value in input.http.headers[name]
		glob.match(pattern, null, value)
	}
}
