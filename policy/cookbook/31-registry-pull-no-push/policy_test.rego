package registry_pull_no_push_test

import data.exitgate.testing

test_pull if {
	every path in ["/v2/", "/v2/library/base/manifests/1.0", "/v2/library/base/blobs/sha256:0d5e"] {
		testing.verdict(testing.request("build", "GET", concat("", ["https://registry.example.net", path]))) == "allow"
	}
}

test_push if {
	testing.verdict(testing.request("build", "POST", "https://registry.example.net/v2/library/base/blobs/uploads/")) == "refuse"
	testing.verdict(testing.request("build", "PUT", "https://registry.example.net/v2/library/base/manifests/1.0")) == "refuse"
}

test_other_repositories if testing.verdict(testing.request("build", "GET", "https://registry.example.net/v2/their/image/manifests/1")) == "refuse"
