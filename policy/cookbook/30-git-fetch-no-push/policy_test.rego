package git_fetch_no_push_test

import data.exitgate.testing

repo(rest) := concat("", ["https://git.example.com/our-org/shop.git/", rest])

test_fetch if {
	testing.verdict(testing.request("build", "GET", repo("info/refs?service=git-upload-pack"))) == "allow"
	testing.verdict(testing.request("build", "POST", repo("git-upload-pack"))) == "allow"
}

test_push if {
	testing.verdict(testing.request("build", "GET", repo("info/refs?service=git-receive-pack"))) == "refuse"
	testing.verdict(testing.request("build", "POST", repo("git-receive-pack"))) == "refuse"
}

test_other_hosts if {
	testing.verdict(testing.request("build", "POST", "https://registry.example.com/git-receive-pack")) == "allow"
	testing.verdict(testing.request("build", "GET", "https://registry.example.com/x?service=git-receive-pack")) == "allow"
}

test_both_at_once if {
	testing.verdict(testing.request("build", "GET", repo("info/refs?service=git-upload-pack&service=git-receive-pack"))) == "refuse"
}
