# Tests of the conditions of one grant.
package exitgate.base_match_test

import data.exitgate.match

get := {"method": "GET", "scheme": "https", "encoded_slash": false, "headers": {}, "prefixes": ["/", "/a", "/a/", "/a/b"], "segments": ["a", "b"]}

on_get(path, value) := object.union({"http": object.union(get, {path: value})}, {"dest": {"port": 443}})

open_grant := {
	"any_method": false, "any_path": true, "slashes": [false], "exact": {}, "headers": {}, "methods": {"GET": true}, "paths": {},
	"patterns": [], "ports": [443], "schemes": {"https": true}, "until": "9999-12-31T23:59:59.000000000Z",
}

paths(more) := object.union(object.union(open_grant, {"any_path": false}), more)

test_takes if match.takes(open_grant) with input as on_get("method", "GET")

test_until if {
	match.holds({"until": "2026-01-01T00:00:00.000000001Z"}) with input.at as "2026-01-01T00:00:00.000000000Z"
	not match.holds({"until": "2026-01-01T00:00:00.000000000Z"}) with input.at as "2026-01-01T00:00:00.000000000Z"
	not match.holds({"until": "2026-01-01T00:00:00.000000000Z"}) with input.at as "2026-01-01T00:00:01.000000000Z"
}

test_port if not match.takes(open_grant) with input as object.union(on_get("method", "GET"), {"dest": {"port": 80}})

test_scheme if not match.takes(open_grant) with input as on_get("scheme", "http")

test_method if not match.takes(open_grant) with input as on_get("method", "POST")

test_method_is_case_sensitive if not match.takes(open_grant) with input as on_get("method", "get")

test_any_method if match.takes(object.union(open_grant, {"any_method": true})) with input as on_get("method", "PURGE")

test_slash if {
	not match.takes(open_grant) with input as on_get("encoded_slash", true)
	match.takes(object.union(open_grant, {"slashes": [false, true]})) with input as on_get("encoded_slash", true)
	match.takes(object.union(open_grant, {"slashes": [false, true]})) with input as on_get("encoded_slash", false)
}

test_path if {
	match.takes_path(paths({"paths": {"/a": true}})) with input.http as get
	match.takes_path(paths({"paths": {"/a/": true}})) with input.http as get
	match.takes_path(paths({"paths": {"/a/b": true}})) with input.http as get
	not match.takes_path(paths({"paths": {"/a/b/": true}})) with input.http as get
	not match.takes_path(paths({"paths": {"/b": true}})) with input.http as get
	not match.takes_path(paths({})) with input.http as get
}

test_exact_path if {
	match.takes_path(paths({"exact": {"/a/b": true}})) with input.http as get
	not match.takes_path(paths({"exact": {"/a": true}})) with input.http as get
	not match.takes_path(paths({"exact": {"/a/b": true}})) with input.http.prefixes as [] with input.http.segments as []
}

test_pattern if {
	match.takes_path(paths({"patterns": [{"segments": ["*", "b"], "end": ""}]})) with input.http as get
	match.takes_path(paths({"patterns": [{"segments": ["*"], "end": ""}]})) with input.http as get
	match.takes_path(paths({"patterns": [{"segments": ["*"], "end": "/"}]})) with input.http as get
	match.takes_path(paths({"patterns": [{"segments": ["a", "*"], "end": "$"}]})) with input.http as get
	not match.takes_path(paths({"patterns": [{"segments": ["*"], "end": "$"}]})) with input.http as get
	not match.takes_path(paths({"patterns": [{"segments": ["*", "*"], "end": "/"}]})) with input.http as get
	not match.takes_path(paths({"patterns": [{"segments": ["*", "*", "*"], "end": ""}]})) with input.http as get
	not match.takes_path(paths({"patterns": [{"segments": ["*", "c"], "end": ""}]})) with input.http as get
}

test_star_is_a_segment if not match.takes_path(paths({"patterns": [{"segments": ["*"], "end": ""}]})) with input.http as object.union(get, {"segments": [""]})

test_headers if {
	wants := object.union(open_grant, {"headers": {"x-team": "blue-*"}})
	match.takes_headers(wants) with input.http.headers as {"x-team": ["blue-1"]}
	match.takes_headers(wants) with input.http.headers as {"x-team": ["red", "blue-"]}
	not match.takes_headers(wants) with input.http.headers as {"x-team": ["light-blue-1"]}
	not match.takes_headers(wants) with input.http.headers as {"x-team": []}
	not match.takes_headers(wants) with input.http.headers as {}
}
