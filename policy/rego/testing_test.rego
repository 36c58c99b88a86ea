# Questions for tests, and their answers.
#
# Tests of the policy directory write what would be asked in one line, and get the whole input that the gateway would
# make of it:
#
#     import data.exitgate.testing
#
#     test_orders if testing.verdict(testing.request("app", "GET", "https://api.example.com/v1/orders")) == "allow"
#
# What differs from the usual is laid over it: object.union(q, {"http": {"length": 1000}}).
package exitgate.testing

import data.exitgate

# METADATA
# title: A request
# description: |
#   The input of a request of a host of the class, over a connection that the host made through the proxy. The URL has a
#   scheme and a name, and may have a port, a path and a query.
request(class, method, url) := object.union(connect(class, u.host, u.port), {
	"stage": "request",
	"http": {
		"method": method, "scheme": u.scheme, "url": url, "path": u.path, "prefixes": prefixes(u.path), "segments": segments(u.path),
		"query": u.query, "headers": {}, "length": -1, "proto": "HTTP/1.1", "upgrade": "", "encoded_slash": contains(lower(u.path), "%2f"),
	},
}) if {
	u := parts(url)
}

# METADATA
# title: A response
# description: The input when the answer to a request has come, with its status and headers.
response(question, status, headers) := object.union(question, {
	"stage": "response",
	"response": {"status": status, "headers": headers, "length": -1},
})

# METADATA
# title: A connection
# description: The input when a host of the class asks to be connected.
connect(class, host, port) := {
	"stage": "connect",
	"at": "2026-06-01T12:00:00.000000000Z",
	"way": "proxy",
	"host": {"name": "host-1", "class": class, "addr": "192.0.2.10", "by": "address"},
	"dest": {"host": host, "port": port, "keys": keys(host)},
}

# METADATA
# title: A name
# description: The input when a host of the class asks for the addresses of a name.
resolve(class, name) := object.union(connect(class, name, 53), {"stage": "resolve", "way": "dns"})

# METADATA
# title: With headers
# description: The question with these headers in its request. Each is a text, or an array of texts.
with_headers(question, headers) := object.union(question, {"http": {"headers": {name: values |
	some name, value in headers
	values := values_of(value)
}}})

values_of(value) := [value] if is_string(value)

values_of(value) := value if is_array(value)

# METADATA
# title: At a time
# description: The question, asked at another time. It is RFC 3339 in UTC without a fraction.
at(question, time) := object.union(question, {"at": concat("", [trim_suffix(time, "Z"), ".000000000Z"])})

# METADATA
# title: The verdict
# description: allow, splice or refuse, as the gateway combines what the policy says.
verdict(question) := "refuse" if {
	count(exitgate.deny) > 0 with input as question
} else := "splice" if {
	question.stage == "connect"
	count(exitgate.exemptions) > 0 with input as question
} else := "allow" if {
	count(exitgate.grants) > 0 with input as question
} else := "allow" if {
	question.stage in {"response", "body"}
} else := "refuse"

# METADATA
# title: The reasons
# description: Why the question is denied; empty where it is not.
reasons(question) := r if {
	r := exitgate.deny with input as question
}

# Of an address, the ranges that hold it and that some grant or exemption names, the narrowest first.
keys(host) := array.concat([host], [pair[1] | pair := sort(ranges(host))[_]]) if regex.match(`^[0-9.]+$|:`, host)

ranges(host) := {[bits, range] |
	some _, of_kind in exitgate.table
	some _, of_who in of_kind
	some _, entries in of_who
	some range, _ in entries
	contains(range, "/")
	net.cidr_contains(range, host)
	bits := 0 - to_number(split(range, "/")[1])
}

keys(host) := array.concat([host], [key |
	some i, _ in labels
	i > 0
	key := concat(".", array.concat(["*"], array.slice(labels, i, count(labels))))
]) if {
	not regex.match(`^[0-9.]+$|:`, host)
	labels := split(host, ".")
}

segments(path) := split(trim_prefix(path, "/"), "/")

prefixes(path) := array.concat(array.concat(["/"], below), whole) if {
	all := segments(path)
	below := [prefix |
		some i, segment in all
		i < count(all) - 1
		segment != ""
		some end in ["", "/"]
		prefix := concat("", ["/", concat("/", array.slice(all, 0, i + 1)), end])
	]
	whole := [path | not endswith(path, "/")]
}

parts(url) := {"scheme": m[1], "host": m[2], "port": port(m[1], m[3]), "path": path_of(m[4]), "query": urlquery.decode_object(m[5])} if {
	m := regex.find_all_string_submatch_n(`^(https?)://([^/:?]+):?([0-9]*)(/[^?]*)?\??(.*)$`, url, 1)[0]
}

path_of("") := "/"

path_of(path) := path if path != ""

port("https", "") := 443

port("http", "") := 80

port(_, text) := to_number(text) if text != ""
