package exitgate

# METADATA
# title: Storage with our account alone
# description: The host is shared by all customers of the provider; the account decides whose data it is.
deny contains "this account is not one of ours" if {
	input.dest.host == "storage.example.net"
	input.http
	not ours
}

ours if {
	every value in input.http.headers.authorization {
		value in data.accounts
	}
	count(input.http.headers.authorization) > 0
}
