package exitgate

programs := {"application/x-msdownload", "application/x-msi", "application/vnd.microsoft.portable-executable", "application/x-elf"}

# METADATA
# title: No programs by their type
# description: Desks are given their programs by those who look after them.
deny contains "programs are not downloaded to desks" if {
	input.host.class == "desk"
	some value in input.response.headers["content-type"]
	lower(trim_space(split(value, ";")[0])) in programs
}

# METADATA
# title: No programs by their name
# description: What a server calls a stream of bytes is told by the end of its name.
deny contains "programs are not downloaded to desks" if {
	input.host.class == "desk"
	input.response
	some end in [".exe", ".msi", ".scr", ".ps1"]
	endswith(lower(input.http.path), end)
}
