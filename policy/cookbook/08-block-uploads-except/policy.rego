package exitgate

# METADATA
# title: No uploads
# description: Data leave by uploads first; each destination that takes them was looked at.
deny contains "uploads are only for the destinations in data.uploads" if {
	input.http
	not reads
	not listed
}

reads if input.http.method in {"GET", "HEAD", "OPTIONS"}

listed if {
	some key in input.dest.keys
	key in data.uploads
}
