package path_of_a_host_test

import data.exitgate.testing

test_below_the_path if testing.verdict(testing.request("app", "POST", "https://api.example.com/v1/orders/17?full=1")) == "allow"

test_not_beside_it if {
	every path in ["/", "/v1/orders", "/v1/ordersevil/17", "/v2/orders/17"] {
		testing.verdict(testing.request("app", "GET", concat("", ["https://api.example.com", path]))) == "refuse"
	}
}

test_not_another_class if testing.verdict(testing.request("build", "GET", "https://api.example.com/v1/orders/17")) == "refuse"
