package no_downloads_of_programs_test

import data.exitgate.testing

download(path, type) := testing.verdict(testing.response(
	testing.request("desk", "GET", concat("", ["https://files.example.net", path])),
	200, {"content-type": [type]},
))

test_documents if download("/a.pdf", "application/pdf") == "allow"

test_programs if {
	download("/a", "application/x-msdownload") == "refuse"
	download("/a", "Application/X-MSDownload; x=y") == "refuse"
	download("/setup.exe", "application/octet-stream") == "refuse"
	download("/setup.EXE", "application/octet-stream") == "refuse"
}

test_builders_may if {
	get := testing.request("build", "GET", "https://files.example.net/a.exe")
	testing.verdict(testing.response(get, 200, {"content-type": ["application/x-msdownload"]})) == "allow"
}

test_asking_is_not_refused if testing.reasons(testing.request("desk", "GET", "https://files.example.net/a.exe")) == set()
