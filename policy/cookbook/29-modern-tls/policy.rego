package exitgate

# METADATA
# title: TLS 1.2 or later
# description: What offers less was not updated for years.
deny contains "update the client: it offers no TLS 1.2 or later" if {
	input.tls
	count({"1.2", "1.3"} & {version | some version in input.tls.versions}) == 0
}

# METADATA
# title: No encrypted hello
# description: A hello whose name is encrypted may ask for another name than the one that was granted.
deny contains "turn encrypted client hello off: the gateway has to see the name" if input.tls.ech
