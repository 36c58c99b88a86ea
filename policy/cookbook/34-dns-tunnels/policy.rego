package exitgate

labels := split(input.dest.host, ".")

# METADATA
# title: No long labels
# description: Nobody gives a machine a name of more than 32 letters.
deny contains "a label of the name has more than 32 characters" if {
	input.stage == "resolve"
	some label in labels
	count(label) > 32
}

# METADATA
# title: No deep names
# description: Data is cut into many labels.
deny contains "the name has more than 6 labels" if {
	input.stage == "resolve"
	count(labels) > 6
}
