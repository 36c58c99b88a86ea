package exitgate

now := time.parse_rfc3339_ns(input.at)

zone := "Europe/Berlin"

office_hours if {
	not time.weekday([now, zone]) in {"Saturday", "Sunday"}
	time.clock([now, zone])[0] in {8, 9, 10, 11, 12, 13, 14, 15, 16, 17}
}

# METADATA
# title: News in office hours
# description: From eight to six on working days, Berlin time.
deny contains "the news are for office hours" if {
	input.dest.host == "news.example.net"
	not office_hours
}
