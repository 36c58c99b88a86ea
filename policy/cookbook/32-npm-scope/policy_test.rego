package npm_scope_test

import data.exitgate.testing

get(path) := testing.verdict(testing.request("build", "GET", concat("", ["https://npm.example.net", path])))

test_packages if {
	get("/@ours%2Fshop") == "allow"
	get("/@ours/shop/-/shop-1.0.0.tgz") == "allow"
}

test_other_packages if {
	get("/@ours%2Fother") == "refuse"
	get("/@theirs%2Fshop") == "refuse"
	get("/left-pad") == "refuse"
}
