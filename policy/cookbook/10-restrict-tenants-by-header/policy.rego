package exitgate

# METADATA
# title: Our tenant alone
# description: The provider's sign-in page lets in accounts of example.com and of nobody else.
rewrite contains {"header.Modifier": {"name": "Restrict-Access-To-Tenants", "value": "example.com"}} if {
	input.dest.host == "login.provider.example.net"
}
