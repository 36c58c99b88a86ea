package exitgate

# METADATA
# title: No names for strangers
# description: Who sits at which machine is not for those outside.
rewrite contains {"header.Blacklist": {"names": ["X-Employee", "X-Machine"]}} if {
	not "*.example.com" in input.dest.keys
}
