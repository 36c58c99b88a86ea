# Tests of the three sets, with a table of two grants and two exemptions.
package exitgate.base_sets_test

import data.exitgate

never := "9999-12-31T23:59:59.000000000Z"

grant := {
	"any_method": false, "any_path": false, "slashes": [false], "exact": {}, "headers": {}, "methods": {"GET": true}, "paths": {"/a": true},
	"patterns": [], "ports": [443], "schemes": {"https": true}, "until": never,
}

table := {
	"grants": {
		"class": {"app": {
			"api.example.com": {"g1": grant},
			"old.example.com": {"g3": object.union(grant, {"until": "2026-01-01T00:00:00.000000000Z"})},
		}},
		"host": {"web01": {"*.example.org": {"g2": object.union(grant, {"until": "2026-01-01T00:00:00.000000000Z"})}}},
	},
	"exemptions": {
		"class": {"app": {"bank.example": {"e1": {"ports": [443], "until": never}}}},
		"host": {"web01": {"192.0.2.0/24": {"e2": {"ports": [22], "until": "2026-01-01T00:00:00.000000000Z"}}}},
	},
}

ask(stage, dest, more) := object.union(
	{
		"stage": stage, "at": "2025-06-01T12:00:00.000000000Z", "way": "proxy",
		"host": {"name": "web01", "class": "app", "addr": "10.0.0.7", "by": "address"},
		"dest": object.union({"port": 443}, dest),
	},
	more,
)

get_a := {"http": {"method": "GET", "scheme": "https", "encoded_slash": false, "headers": {}, "prefixes": ["/", "/a"], "segments": ["a"]}}

api := {"host": "api.example.com", "keys": ["api.example.com", "*.example.com", "*.com"]}

org := {"host": "w.example.org", "keys": ["w.example.org", "*.example.org", "*.org"]}

old := {"host": "old.example.com", "keys": ["old.example.com", "*.example.com", "*.com"]}

bank := {"host": "bank.example", "keys": ["bank.example", "*.example"]}

shell := {"host": "192.0.2.9", "keys": ["192.0.2.9", "192.0.2.0/24"], "port": 22}

late := {"at": "2026-01-01T00:00:00.000000000Z"}

test_nothing_is_granted_by_itself if {
	empty := {"grants": {"class": {}, "host": {}}, "exemptions": {"class": {}, "host": {}}}
	every stage in ["resolve", "connect", "request", "response", "body"] {
		exitgate.grants == set() with input as ask(stage, api, get_a) with data.exitgate.table as empty
		exitgate.exemptions == set() with input as ask(stage, api, get_a) with data.exitgate.table as empty
	}
}

test_granted_to_class if {
	every stage in ["resolve", "connect", "request", "response", "body"] {
		exitgate.grants == {"g1"} with input as ask(stage, api, get_a) with data.exitgate.table as table
	}
}

test_granted_to_host if {
	every stage in ["resolve", "connect", "request", "response", "body"] {
		exitgate.grants == {"g2"} with input as ask(stage, org, get_a) with data.exitgate.table as table
	}
}

test_grant_ends if {
	every stage in ["resolve", "connect", "request", "response", "body"] {
		exitgate.grants == set() with input as ask(stage, org, object.union(get_a, late)) with data.exitgate.table as table
	}
}

test_class_grant_ends if {
	every stage in ["resolve", "connect", "request"] {
		exitgate.grants == {"g3"} with input as ask(stage, old, get_a) with data.exitgate.table as table
		exitgate.grants == set() with input as ask(stage, old, object.union(get_a, late)) with data.exitgate.table as table
	}
}

test_other_class if {
	other := {"host": {"name": "web02", "class": "build"}}
	exitgate.grants == set() with input as ask("connect", api, other) with data.exitgate.table as table
	exitgate.grants == set() with input as ask("connect", org, other) with data.exitgate.table as table
	exitgate.exemptions == set() with input as ask("connect", bank, other) with data.exitgate.table as table
}

test_connect_looks_at_the_port if {
	exitgate.grants == set() with input as ask("connect", object.union(api, {"port": 22}), {}) with data.exitgate.table as table
	exitgate.grants == {"g1"} with input as ask("resolve", object.union(api, {"port": 53}), {}) with data.exitgate.table as table
}

test_request_looks_at_everything if {
	post := {"http": object.union(get_a.http, {"method": "POST"})}
	exitgate.grants == set() with input as ask("request", api, post) with data.exitgate.table as table
	exitgate.grants == {"g1"} with input as ask("connect", api, {}) with data.exitgate.table as table
}

test_exemptions if {
	exitgate.exemptions == {"e1"} with input as ask("connect", bank, {}) with data.exitgate.table as table
	exitgate.exemptions == {"e2"} with input as ask("connect", shell, {}) with data.exitgate.table as table
	exitgate.exemptions == set() with input as ask("connect", shell, late) with data.exitgate.table as table
	exitgate.exemptions == set() with input as ask("connect", object.union(bank, {"port": 22}), {}) with data.exitgate.table as table
	exitgate.exemptions == set() with input as ask("request", bank, get_a) with data.exitgate.table as table
}

test_host_grants_have_every_condition if {
	exitgate.grants == set() with input as ask("connect", object.union(org, {"port": 22}), {}) with data.exitgate.table as table
	exitgate.grants == {"g2"} with input as ask("connect", org, {}) with data.exitgate.table as table
	exitgate.grants == {"g2"} with input as ask("resolve", object.union(org, {"port": 53}), {}) with data.exitgate.table as table
	exitgate.grants == set() with input as ask("other", org, {}) with data.exitgate.table as table
	exitgate.grants == set() with input as ask("other", api, {}) with data.exitgate.table as table
	post := {"http": object.union(get_a.http, {"method": "POST"})}
	exitgate.grants == set() with input as ask("request", org, post) with data.exitgate.table as table
	exitgate.grants == set() with input as ask("connect", org, late) with data.exitgate.table as table
	exitgate.grants == set() with input as ask("resolve", org, late) with data.exitgate.table as table
}

test_host_exemptions_have_every_condition if {
	elsewhere := object.union(shell, {"port": 443})
	exitgate.exemptions == set() with input as ask("connect", elsewhere, {}) with data.exitgate.table as table
	exitgate.exemptions == set() with input as ask("request", shell, get_a) with data.exitgate.table as table
	exitgate.exemptions == set() with input as ask("connect", bank, {"host": {"name": "web02", "class": "build"}}) with data.exitgate.table as table
}

test_unknown_hosts_are_denied if {
	every class in ["unknown", ""] {
		count(exitgate.deny) == 1 with input as ask("connect", api, {"host": {"class": class}})
	}
	exitgate.deny == set() with input as ask("connect", api, {})
}
