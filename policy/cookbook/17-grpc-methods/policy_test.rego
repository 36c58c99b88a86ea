package grpc_methods_test

import data.exitgate.testing

call(path) := testing.verdict(testing.with_headers(
	testing.request("app", "POST", concat("", ["https://grpc.example.com", path])),
	{"content-type": "application/grpc+proto"},
))

test_granted if {
	call("/shop.v1.Orders/Get") == "allow"
	call("/shop.v1.Orders/List") == "allow"
	call("/shop.v1.Catalogue/Anything") == "allow"
}

test_not_granted if {
	call("/shop.v1.Orders/Delete") == "refuse"
	call("/shop.v1.Orders/Get/x") == "refuse"
	call("/shop.v1.Admin/Get") == "refuse"
}

test_not_grpc if testing.verdict(testing.request("app", "POST", "https://grpc.example.com/shop.v1.Orders/Get")) == "refuse"
