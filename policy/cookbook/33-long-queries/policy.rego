package exitgate

# METADATA
# title: No long URLs
# description: A few kilobytes a second in queries are gigabytes a week.
deny contains "the URL has more than 2000 bytes" if {
	count(input.http.url) > 2000
	not input.dest.host in {"maps.example.com"}
}
