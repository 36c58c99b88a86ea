package exitgate

# METADATA
# title: Names only
# description: An address says nothing to whoever reads the record.
deny contains "ask for it by name" if {
	input.host.class == "desk"
	net.cidr_is_valid(single(input.dest.host))
}

single(host) := concat("", [host, "/32"]) if not ":" in split(host, "")

single(host) := concat("", [host, "/128"]) if ":" in split(host, "")
