package exitgate

# METADATA
# title: No plain HTTP
# description: What is not encrypted can be read and changed on the way.
deny contains "plain HTTP is only for the package mirror" if {
	input.http.scheme == "http"
	not input.dest.host in {"mirror.example.net"}
}
