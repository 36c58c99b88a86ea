package exitgate

# METADATA
# title: Approved ports
# description: Egress leaves by 80 and 443; every other port was looked at, and stands in the list with its destination.
deny contains sprintf("port %d is not approved for %s", [input.dest.port, input.dest.host]) if {
	input.stage != "resolve"
	not input.dest.port in {80, 443}
	not input.dest.port in object.get(data.ports, input.dest.host, [])
}
