package policy

import (
	"testing"

	"github.com/exitgate/exitgate"
)

// TestRewrite: what the rules contribute becomes one rewrite of a request that is allowed, in an order of its own; it is
// none elsewhere, and what is no object refuses.
func TestRewrite(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "rewrite.rego", `package exitgate

rewrite contains {"header.Modifier": {"name": "X-One", "value": input.host.class}} if input.http.path in {"/one", "/both"}

rewrite contains {"header.Blacklist": {"names": ["X-Two"]}} if input.http.path in {"/two", "/both"}

rewrite contains "nonsense" if input.http.path == "/nonsense"

rewrite contains {"header.Modifier": {"name": "X-Deny", "value": "1"}} if input.http.path == "/denied"

rewrite contains {"header.Modifier": {"name": "X-Connect", "value": "1"}} if input.stage == "connect"

deny contains "no" if input.http.path == "/denied"
`)
	e, err := New(t.Context(), Options{Dir: dir}, Data{Grants: []exitgate.Grant{{ID: "g", Class: "app", To: "a.example.com", Reason: "r"}}})
	if err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]string{
		"GET https://a.example.com/one":    `{"header.Modifier":{"name":"X-One","value":"app"}}`,
		"GET https://a.example.com/two":    `{"header.Blacklist":{"names":["X-Two"]}}`,
		"GET https://a.example.com/both":   `{"fifo.Group":{"modifiers":[{"header.Blacklist":{"names":["X-Two"]}},{"header.Modifier":{"name":"X-One","value":"app"}}],"scope":["request"]}}`,
		"GET https://a.example.com/other":  "",
		"GET https://a.example.com/denied": "",
		"GET https://b.example.com/one":    "",
		"CONNECT a.example.com:443":        "",
	} {
		for range 2 { // the second answer is one that was kept
			v, err := e.Decide(t.Context(), ask(t, target))
			if err != nil || string(v.Rewrite) != want {
				t.Errorf("%s: %s %v, want %s", target, v.Rewrite, err, want)
			}
		}
	}
	v, err := e.Decide(t.Context(), ask(t, "GET https://a.example.com/nonsense"))
	mustFail(t, v, err, "which is no object")
}
