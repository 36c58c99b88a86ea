package exitgate

night if time.clock([time.parse_rfc3339_ns(input.at), "UTC"])[0] in {22, 23, 0, 1, 2, 3}

# METADATA
# title: Backups write at night
# description: From ten to four, UTC.
deny contains "backups are written between ten at night and four" if {
	input.host.class == "backup"
	input.http
	not reads
	not night
}

reads if input.http.method in {"GET", "HEAD"}
