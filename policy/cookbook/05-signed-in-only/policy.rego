package exitgate

# METADATA
# title: Writing needs credentials
# description: Without a bearer token, a request that writes at our API would use an account that is not ours.
deny contains "sign in: only requests with a bearer token may write here" if {
	input.dest.host == "api.example.com"
	not input.http.method in {"GET", "HEAD", "OPTIONS"}
	not signed_in
}

signed_in if {
	some value in input.http.headers.authorization
	startswith(value, "Bearer ")
}
