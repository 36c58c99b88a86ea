# Tests of policy.rego, for "exitgate policy test".
package policy_test

import data.exitgate

test_known_hosts_are_not_denied if {
	exitgate.deny == set() with input as {
		"stage": "connect", "at": "2027-01-01T09:00:00.000000000Z", "way": "proxy",
		"host": {"name": "web01", "class": "app", "addr": "10.0.0.7", "by": "address"},
		"dest": {"host": "www.example.com", "port": 443, "keys": ["www.example.com", "*.example.com", "*.com"]},
	}
}
