package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
)

// sampleOf is a body that makes an entry of each collection, for PUT under the id "one".
var sampleOf = map[string]string{
	"classes":     `{"name":"one","reason":"r"}`,
	"hosts":       `{"name":"one","class":"app","addresses":["198.51.100.1"],"reason":"r"}`,
	"host-tokens": `{"id":"one","class":"app","reason":"r"}`,
	"api-tokens":  `{"id":"one","name":"ci","role":"viewer","reason":"r"}`,
	"grants":      `{"id":"one","class":"app","to":"a.example.com","reason":"r"}`,
	"exemptions":  `{"id":"one","class":"app","to":"a.example.com","reason":"r","until":"2031-01-01T00:00:00Z"}`,
}

// TestResources takes each collection through what a client such as Terraform does with it.
func TestResources(t *testing.T) {
	for name, sample := range sampleOf {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			one := "/v1/" + name + "/one"
			b.want(t, 404, "none with this id", "GET", one, "")
			b.want(t, 412, "there is none", "PUT", one, sample, "If-Match", `"1"`)
			b.want(t, 412, "there is none", "PUT", one, sample, "If-Match", `*`)
			made := b.want(t, 201, `"source":"store"`, "PUT", one, sample, "If-None-Match", "*")
			tag := made.header.Get("ETag")
			b.want(t, 412, "already", "PUT", one, sample, "If-None-Match", "*")

			// the same again changes nothing, also when what was read is sent back
			trail := b.ledger.actions()
			if got := b.want(t, 200, "", "PUT", one, sample); got.header.Get("ETag") != tag {
				t.Errorf("the tag moved from %s to %s", tag, got.header.Get("ETag"))
			}
			read := b.want(t, 200, "", "GET", one, "")
			if read.header.Get("ETag") != tag || strings.Contains(read.body, "secret") {
				t.Errorf("%s, made with %s: %s", read.header.Get("ETag"), tag, read.body)
			}
			b.want(t, 200, "", "PUT", one, read.body, "If-Match", tag)
			if got := b.ledger.actions(); !slices.Equal(got, trail) {
				t.Errorf("trail %v, want %v", got, trail)
			}

			// another reason is a change, which who read before it does not undo
			changed := strings.Replace(sample, `"reason":"r"`, `"reason":"s"`, 1)
			next := b.want(t, 200, `"reason":"s"`, "PUT", one, changed, "If-Match", tag).header.Get("ETag")
			b.want(t, 412, "was changed since", "PUT", one, sample, "If-Match", tag)
			b.want(t, 412, "was changed since", "DELETE", one+"?reason=x", "", "If-Match", tag)
			for _, bad := range []string{`W/"1"`, `1`, `"x"`, `"-1"`, `"1","2"`, `"01"`} {
				b.want(t, 400, "If-Match", "PUT", one, sample, "If-Match", bad)
			}
			b.want(t, 409, "one with the id", "POST", "/v1/"+name, sample)
			b.want(t, 400, "names another", "PUT", "/v1/"+name+"/two", sample)
			b.want(t, 200, `"one"`, "GET", "/v1/"+name, "")
			b.want(t, 400, "reason", "DELETE", one, "")
			b.want(t, 200, `"reason":"s"`, "DELETE", one+"?reason=done", "", "If-Match", next)
			b.want(t, 404, "", "DELETE", one+"?reason=done", "")
			last := b.ledger.trail[len(b.ledger.trail)-1]
			if !strings.HasSuffix(last.Action, ".remove") || last.Reason != "done" {
				t.Errorf("%+v", last)
			}
		})
	}
}

// TestFileEntries holds that what stands in a file is listed, and changed there only.
func TestFileEntries(t *testing.T) {
	b := newBench(t)
	for path, body := range map[string]string{
		"/v1/classes/app":   `{"audit":true,"reason":"r"}`,
		"/v1/hosts/web-1":   `{"class":"app","reason":"r"}`,
		"/v1/grants/filed":  grant,
		"/v1/hosts/web-1?x": `{"class":"app","reason":"r"}`,
	} {
		if got := b.want(t, 200, `"source":"`, "GET", path, ""); got.header.Get("ETag") != "" {
			t.Errorf("%s has a tag", path)
		}
		b.want(t, 409, "stands in ", "PUT", path, body)
		b.want(t, 409, "stands in ", "DELETE", strings.TrimSuffix(path, "?x")+"?reason=r", "")
	}
	b.want(t, 409, "stands in grants.yaml:3", "POST", "/v1/grants/filed/renew", `{"reason":"r"}`)
	if len(b.ledger.trail) != 0 {
		t.Errorf("trail %v", b.ledger.actions())
	}
}

// TestRefusedEntries holds what cannot be to a status and a sentence that says why.
func TestRefusedEntries(t *testing.T) {
	b := newBench(t)
	b.want(t, 201, "", "PUT", "/v1/hosts/db-1", `{"class":"app","addresses":["198.51.100.7","2001:db8::/64"],"reason":"r"}`)
	for _, c := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"classes/unknown", `{"reason":"r"}`, 400, "unknown"},
		{"classes/App", `{"reason":"r"}`, 409, "app"},
		{"classes/bu%20ild", `{"reason":"r"}`, 400, "a name is"},
		{"classes/-x", `{"reason":"r"}`, 400, "begins with"},
		{"classes/%D0%B0pp", `{"reason":"r"}`, 400, "a name is"}, // a Cyrillic a
		{"classes/" + strings.Repeat("x", 65), `{"reason":"r"}`, 400, "a name is"},
		{"classes/x", `{"reason":" "}`, 400, "needs a reason"},
		{"classes/x", `{"reason":"a\u001b[2Jb"}`, 400, "control characters"},
		{"classes/x", `{"reason":"a\u202eb"}`, 400, "control characters"},
		{"classes/x", `{"reason":"` + strings.Repeat("x", 1001) + `"}`, 400, "longer than"},
		{"classes/x", `{"reason":"r","description":"\u0000"}`, 400, "control characters"},
		{"classes/x", `{"reason":"r","Reason":"s"}`, 400, "there twice"},
		{"classes/x", "{\"rea\u017fon\":\"r\",\"reason\":\"s\"}", 400, "there twice"},
		{"classes/x", "{\"reason\":\"\xff\"}", 400, "not UTF-8"},
		{"classes/x", `{"reason":"r","hash":"x"}`, 400, "hash"},
		{"classes/x", strings.Repeat("[", 20000), 400, "read the body"},
		{"hosts/x", `{"class":"ap","reason":"r"}`, 400, "did you mean app?"},
		{"hosts/x", `{"class":"zebra","reason":"r"}`, 400, "make it first"},
		{"hosts/x", `{"class":"unknown","reason":"r"}`, 400, "needs a class"},
		{"hosts/x", `{"reason":"r"}`, 400, "needs a class"},
		{"hosts/WEB-1", `{"class":"app","reason":"r"}`, 409, "differs only in its case"},
		{"hosts/x", `{"class":"app","addresses":["192.0.2.1"],"reason":"r"}`, 409, "192.0.2.1 belongs to host web-1 already (exitgate.yaml)"},
		{"hosts/x", `{"class":"app","addresses":["::ffff:192.0.2.1"],"reason":"r"}`, 409, "belongs to host web-1"},
		{"hosts/x", `{"class":"app","addresses":["198.51.100.7/32"],"reason":"r"}`, 409, "belongs to host db-1"},
		{"hosts/x", `{"class":"app","addresses":["2001:db8::/64"],"reason":"r"}`, 409, "belongs to host db-1"},
		{"hosts/x", `{"class":"app","addresses":["198.51.100.9/24"],"reason":"r"}`, 400, "198.51.100.0/24"},
		{"hosts/x", `{"class":"app","addresses":["example.com"],"reason":"r"}`, 400, "neither an address"},
		{"hosts/x", `{"class":"app","addresses":["fe80::1%eth0"],"reason":"r"}`, 400, "neither an address"},
		{"hosts/x", `{"class":"app","addresses":[""],"reason":"r"}`, 400, "neither an address"},
		{"hosts/x", `{"class":"app","addresses":[null],"reason":"r"}`, 400, "an address is empty"},
		{"hosts/x", `{"class":"app","addresses":[` + strings.Repeat(`"198.51.100.1",`, 1000) + `"198.51.100.1"],"reason":"r"}`, 400, "at most 1000"},
		{"host-tokens/x", `{"class":"bild","reason":"r"}`, 400, "not known"},
		{"host-tokens/x", `{"class":"app","host":"Web_1","reason":"r"}`, 400, "lower-case letters"},
		{"host-tokens/x", `{"class":"app","host":"a..b","reason":"r"}`, 400, "lower-case letters"},
		{"host-tokens/x", `{"class":"app","uses":-1,"reason":"r"}`, 400, "uses"},
		{"host-tokens/x", `{"class":"app","uses":100001,"reason":"r"}`, 400, "uses"},
		{"host-tokens/x", `{"class":"app","until":"2029-01-01T00:00:00Z","reason":"r"}`, 400, "has passed"},
		{"host-tokens/x", `{"class":"app","until":"2032-01-01T00:00:00Z","reason":"r"}`, 400, "a year at most"},
		{"host-tokens/x", `{"class":"app","hash":"00","reason":"r"}`, 400, "hash"},
		{"api-tokens/x", `{"name":"a b","role":"viewer","reason":"r"}`, 400, "a name is"},
		{"api-tokens/x", `{"name":"a","role":"root","reason":"r"}`, 400, "viewer, auditor, provisioner, editor, admin"},
		{"api-tokens/x", `{"name":"a","role":"admin","classes":["app"],"reason":"r"}`, 400, "is not bound"},
		{"api-tokens/x", `{"name":"a","role":"editor","classes":["ap"],"reason":"r"}`, 400, "did you mean app?"},
		{"grants/x", `{"class":"ap","to":"a.example.com","reason":"r"}`, 400, "did you mean app?"},
		{"exemptions/x", `{"class":"ap","to":"a.example.com","until":"2031-01-01T00:00:00Z","reason":"r"}`, 400, "did you mean app?"},
	} {
		t.Run(c.path+" "+c.body[:min(len(c.body), 60)], func(t *testing.T) {
			b.want(t, c.status, c.want, "PUT", "/v1/"+c.path, c.body)
		})
	}
	if got := b.ledger.actions(); len(got) != 1 {
		t.Errorf("trail %v", got)
	}
}

// TestPaths holds that no id leaves its collection.
func TestPaths(t *testing.T) {
	b := newBench(t)
	for _, path := range []string{"/v1/grants/..%2f..%2fetc", "/v1/grants/..", "/v1//grants", "/v1/grants/./filed", "/v1/classes/../grants", "/v1/grants/%2e%2e/classes", "/v1/grants/a%00b", "/v1/grants/", "/v1/grants/a/b"} {
		if a := b.do(t, "GET", path, ""); a.status != 404 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

// TestPanic holds that a route that panics is answered, and that the API goes on.
func TestPanic(t *testing.T) {
	b := newBench(t)
	b.Admin.Trust = nil
	b.want(t, 500, "its log has the cause", "GET", "/v1/trust", "")
	b.want(t, 200, "", "GET", "/v1/proxy", "")
}

func TestClassInUse(t *testing.T) {
	b := newBench(t)
	b.want(t, 201, "", "PUT", "/v1/classes/build", `{"reason":"r"}`)
	b.want(t, 201, "", "PUT", "/v1/hosts/ci", `{"class":"build","reason":"r"}`)
	b.want(t, 201, "", "PUT", "/v1/host-tokens/t", `{"class":"build","reason":"r"}`)
	b.want(t, 201, "", "PUT", "/v1/grants/g", `{"class":"build","to":"a.example.com","reason":"r"}`)
	b.want(t, 409, "1 hosts, 1 host tokens, 1 grants", "DELETE", "/v1/classes/build?reason=r", "")
	for _, p := range []string{"hosts/ci", "host-tokens/t", "grants/g", "classes/build"} {
		b.want(t, 200, "", "DELETE", "/v1/"+p+"?reason=r", "")
	}
}

func TestPages(t *testing.T) {
	b := newBench(t)
	for i := range 25 {
		class := []string{"app", "build"}[i%2]
		b.ledger.Apply(t.Context(), Change{Who: "u", Reason: "r"}, Edit{Kind: KindGrant, ID: fmt.Sprintf("g%02d", i),
			Value: json.RawMessage(fmt.Sprintf(`{"id":"g%02d","class":%q,"to":"a.example.com"}`, i, class))})
	}
	if err := b.Mirror.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]int{"": 26, "?limit=7": 26, "?limit=26": 26, "?limit=25": 26, "?class=build&limit=5": 12, "?class=none": 0} {
		var got []string
		for path := "/v1/grants" + query; path != ""; {
			a := b.want(t, 200, "", "GET", path, "")
			var page []exitgate.Grant
			a.into(t, &page)
			for _, g := range page {
				got = append(got, g.ID)
			}
			_, path, _ = strings.Cut(a.header.Get("Link"), "<")
			path, _, _ = strings.Cut(path, ">")
		}
		if len(got) != want || !slices.IsSorted(got) || len(slices.Compact(got)) != want {
			t.Errorf("%q: %d entries %v, want %d", query, len(got), got, want)
		}
	}
}

// TestRoles holds each route to the roles that may use it, and to no others: every route has a row.
func TestRoles(t *testing.T) {
	const (
		v = "viewer "
		a = "auditor "
		p = "provisioner "
		e = "editor "
		d = "admin "

		all = v + a + p + e + d
	)
	want := map[string]string{
		"GET /v1/flows": a + d, "GET /v1/flows/{id}": a + d, "GET /v1/audit": a + d,
		"GET /v1/status": all, "GET /v1/trust": all, "GET /v1/proxy": all, "GET /v1/uses": all, "GET /v1/openapi.yaml": all,
		"POST /v1/explain": all, "POST /v1/reload": d, "POST /v1/grants/{id}/renew": e + d,
		"GET /v1/classes": all, "GET /v1/classes/{id}": all,
		"POST /v1/classes": e + d, "PUT /v1/classes/{id}": e + d, "DELETE /v1/classes/{id}": e + d,
		"GET /v1/hosts": all, "GET /v1/hosts/{id}": all,
		"POST /v1/hosts": p + e + d, "PUT /v1/hosts/{id}": p + e + d, "DELETE /v1/hosts/{id}": p + e + d,
		"GET /v1/host-tokens": all, "GET /v1/host-tokens/{id}": all,
		"POST /v1/host-tokens": p + e + d, "PUT /v1/host-tokens/{id}": p + e + d, "DELETE /v1/host-tokens/{id}": p + e + d,
		"GET /v1/api-tokens": a + d, "GET /v1/api-tokens/{id}": a + d,
		"POST /v1/api-tokens": d, "PUT /v1/api-tokens/{id}": d, "DELETE /v1/api-tokens/{id}": d,
		"GET /v1/grants": all, "GET /v1/grants/{id}": all,
		"POST /v1/grants": e + d, "PUT /v1/grants/{id}": e + d, "DELETE /v1/grants/{id}": e + d,
		"GET /v1/exemptions": all, "GET /v1/exemptions/{id}": all,
		"POST /v1/exemptions": e + d, "PUT /v1/exemptions/{id}": e + d, "DELETE /v1/exemptions/{id}": e + d,
		"GET /v1/requests": all, "GET /v1/requests/{id}": all,
		"POST /v1/requests": e + d, "DELETE /v1/requests/{id}": e + d,
		"GET /v1/identity": all, "POST /v1/identity/rotate": d, "POST /v1/identity/revoke": d,
		"GET /v1/ca": all, "POST /v1/ca/rotate": d, "POST /v1/ca/request": d, "POST /v1/ca/issuer": d,
		"POST /v1/requests/{id}/approve": e + d, "POST /v1/requests/{id}/reject": e + d,
	}
	b := newAdmin(t, newMemory())
	h := b.Remote()
	secrets := map[Role]string{}
	for _, role := range Roles() {
		secrets[role] = b.token(t, string(role), role)
	}
	routes := b.routes()
	if len(routes) != len(want) {
		t.Errorf("%d routes, %d rows", len(routes), len(want))
	}
	for _, route := range routes {
		method, path, _ := strings.Cut(route.pattern, " ")
		for _, role := range append(Roles(), "") {
			r := httptest.NewRequest(method, strings.ReplaceAll(path, "{id}", "nothing"), strings.NewReader("{}"))
			r.Header.Set("Authorization", "Bearer "+secrets[role])
			r.RemoteAddr = "192.0.2.200:1"
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			refused := w.Code == 403 || w.Code == 401 || w.Code == 429
			may := role != "" && strings.Contains(want[route.pattern], string(role)+" ")
			if refused == may {
				t.Errorf("%s by %q: %d %s, want allowed %v", route.pattern, role, w.Code, w.Body, may)
			}
		}
	}
}

// token makes an API token of that name and role, and returns its secret.
func (b *bench) token(t *testing.T, name string, role Role, classes ...exitgate.Class) string {
	t.Helper()
	secret, hash := newSecret(apiTokenPrefix)
	v := StoredAPIToken{APIToken{ID: name, Name: name, Role: role, Classes: classes, Until: b.now().Add(time.Hour)}, hash}
	value, err := json.Marshal(v)
	if err == nil {
		_, err = b.ledger.Apply(t.Context(), Change{Who: "u", Reason: "r"}, Edit{Kind: KindAPIToken, ID: name, Value: value})
	}
	if err = errors.Join(err, b.Mirror.Sync(t.Context())); err != nil {
		t.Fatal(err)
	}
	return secret
}

// remote returns b as who presents the secret sees it.
func (b *bench) remote(t *testing.T, secret string) *bench {
	if b.base == "" || !strings.HasPrefix(b.base, "https") {
		s := httptest.NewTLSServer(b.Remote())
		t.Cleanup(s.Close)
		c := *b
		c.client, c.base = s.Client(), s.URL
		b = &c
	}
	c := *b
	c.header = http.Header{"Authorization": {"Bearer " + secret}}
	return &c
}

// TestBoundToClasses holds that a token that is bound to a class changes nothing of another, on no way around.
func TestBoundToClasses(t *testing.T) {
	b := newBench(t)
	for _, c := range []string{"build", "db"} {
		b.want(t, 201, "", "PUT", "/v1/classes/"+c, `{"reason":"r"}`)
	}
	b.want(t, 201, "", "PUT", "/v1/hosts/db-1", `{"class":"db","reason":"r"}`)
	b.want(t, 201, "", "PUT", "/v1/hosts/ci-1", `{"class":"build","reason":"r"}`)
	b.want(t, 201, "", "PUT", "/v1/grants/db-g", `{"class":"db","to":"a.example.com","reason":"r"}`)
	b.want(t, 201, "", "POST", "/v1/requests", `{"class":"db","url":"https://a.example.com/","reason":"r"}`)
	request := b.Mirror.Requests.List()[0].ID
	r := b.remote(t, b.token(t, "bound", RoleEditor, "build"))
	const no = "may change what is of class build"
	for _, c := range [][3]string{
		{"PUT", "/v1/hosts/db-1", `{"class":"db","reason":"x"}`},
		{"PUT", "/v1/hosts/db-1", `{"class":"build","reason":"x"}`}, // take a host
		{"PUT", "/v1/hosts/ci-1", `{"class":"db","reason":"x"}`},    // give one the class
		{"DELETE", "/v1/hosts/db-1?reason=x", ""},
		{"POST", "/v1/host-tokens", `{"class":"db","reason":"x"}`},
		{"POST", "/v1/grants", `{"class":"db","to":"b.example.com","reason":"x"}`},
		{"POST", "/v1/grants", `{"host":"db-1","to":"b.example.com","reason":"x"}`},
		{"POST", "/v1/grants", `{"host":"nobody","to":"b.example.com","reason":"x"}`},
		{"PUT", "/v1/grants/db-g", `{"class":"build","to":"a.example.com","reason":"x"}`},
		{"DELETE", "/v1/grants/db-g?reason=x", ""},
		{"PUT", "/v1/classes/db", `{"audit":true,"reason":"x"}`},
		{"PUT", "/v1/classes/new", `{"reason":"x"}`},
		{"POST", "/v1/exemptions", `{"class":"db","to":"b.example.com","reason":"x","until":"2031-01-01T00:00:00Z"}`},
		{"POST", "/v1/requests", `{"class":"db","url":"https://b.example.com/","reason":"x"}`},
		{"POST", "/v1/requests/" + request + "/approve", `{"reason":"x"}`},
		{"POST", "/v1/requests/" + request + "/reject", `{"reason":"x"}`},
		{"DELETE", "/v1/requests/" + request + "?reason=x", ""},
	} {
		r.want(t, 403, no, c[0], c[1], c[2])
	}
	r.want(t, 201, `"by":"token:bound"`, "POST", "/v1/grants", `{"class":"build","to":"b.example.com","reason":"x","by":"somebody"}`)
	r.want(t, 201, "", "POST", "/v1/host-tokens", `{"class":"build","reason":"x"}`)
}

// TestOtherGatewayWasQuicker holds that a change that another gateway makes in between is not lost.
func TestOtherGatewayWasQuicker(t *testing.T) {
	b := newBench(t)
	b.want(t, 201, "", "PUT", "/v1/classes/build", `{"reason":"r"}`)
	write := func(value string) func() {
		return func() {
			b.ledger.Apply(context.Background(), Change{Who: "other", Reason: "o"}, Edit{Kind: KindClass, ID: "build", Value: json.RawMessage(value)})
		}
	}
	tag := b.do(t, "GET", "/v1/classes/build", "").header.Get("ETag")
	b.ledger.race = write(`{"name":"build","description":"theirs","reason":"o"}`)
	b.want(t, 412, "was changed since", "PUT", "/v1/classes/build", `{"audit":true,"reason":"s"}`, "If-Match", tag)
	b.ledger.race = write(`{"name":"build","description":"theirs again","reason":"o"}`)
	b.want(t, 200, `"audit":true`, "PUT", "/v1/classes/build", `{"audit":true,"reason":"s"}`)
	if got := b.ledger.trail; len(got) != 4 || got[2].Who != "other" || got[3].Who == "other" {
		t.Errorf("trail %+v", got)
	}
	b.ledger.race = write(`{"name":"build","description":"x","reason":"o"}`)
	b.want(t, 200, "", "DELETE", "/v1/classes/build?reason=r", "")
	// an id that the other gave away meanwhile
	b.ledger.race = write(`{"name":"build","description":"x","reason":"o"}`)
	b.want(t, 409, "there is one with the id", "POST", "/v1/classes", `{"name":"build","reason":"s"}`)
}

// TestSameAddressAtOnce holds that of two hosts that two gateways give one address, the first has it and the second is
// refused.
func TestSameAddressAtOnce(t *testing.T) {
	ledger := newMemory()
	a, b := newAdmin(t, ledger), newAdmin(t, ledger)
	a.serveSocket(t)
	b.serveSocket(t)
	ledger.race = func() {
		a.want(t, 201, "", "PUT", "/v1/hosts/first", `{"class":"app","addresses":["198.51.100.1"],"reason":"r"}`)
	}
	b.want(t, 409, "198.51.100.1 belongs to host first", "PUT", "/v1/hosts/second", `{"class":"app","addresses":["198.51.100.1"],"reason":"r"}`)
	if _, ok := b.Mirror.Hosts.Get("second"); ok {
		t.Error("the second was kept")
	}
}

// TestFollowed holds that what one gateway changes is what the other reads, document by document; that what was used
// is loaded nowhere; and that a failed load is tried again.
func TestFollowed(t *testing.T) {
	ledger := newMemory()
	a, b := newAdmin(t, ledger), newAdmin(t, ledger)
	a.serveSocket(t)
	for i := range 30 {
		a.want(t, 201, "", "POST", "/v1/grants", fmt.Sprintf(`{"id":"g%d","class":"app","to":"a.example.com","reason":"r"}`, i))
	}
	a.want(t, 200, "", "DELETE", "/v1/grants/g7?reason=r", "")
	a.want(t, 200, "", "PUT", "/v1/grants/g8", `{"class":"app","to":"b.example.com","reason":"r"}`)
	if err := b.Mirror.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if g, _ := b.Mirror.Grants.Get("g8"); len(b.Mirror.Grants.List()) != 29 || g == nil || g.Value.To != "b.example.com" || b.loaded != 1 {
		t.Errorf("%d grants, loaded %d times", len(b.Mirror.Grants.List()), b.loaded)
	}
	for range 3 {
		if err := b.Mirror.Sync(t.Context()); err != nil || b.loaded != 1 {
			t.Errorf("nothing changed: %v, loaded %d times", err, b.loaded)
		}
	}
	a.want(t, 201, "", "POST", "/v1/host-tokens", `{"class":"app","reason":"r"}`)
	if err := b.Mirror.Sync(t.Context()); err != nil || b.loaded != 1 || len(b.Mirror.HostTokens.List()) != 1 {
		t.Errorf("a token: %v, loaded %d times", err, b.loaded)
	}
	b.loadErr = errors.New("broken")
	a.want(t, 200, "", "DELETE", "/v1/grants/g8?reason=r", "")
	for range 2 {
		if err := b.Mirror.Sync(t.Context()); err == nil {
			t.Error("a load that failed is no error")
		}
	}
	b.loadErr = nil
	if err := b.Mirror.Sync(t.Context()); err != nil || b.loaded != 4 {
		t.Errorf("%v, loaded %d times", err, b.loaded)
	}
	// more than can be followed one by one, and a document that cannot be read
	var edits []Edit
	for i := range most + 5 {
		edits = append(edits, Edit{Kind: KindHost, ID: fmt.Sprint("h", i), Value: json.RawMessage(`{"class":"app"}`)})
	}
	edits = append(edits, Edit{Kind: KindHost, ID: "bad", Value: json.RawMessage(`{"class":7}`)})
	if _, err := ledger.Apply(t.Context(), Change{}, edits...); err != nil {
		t.Fatal(err)
	}
	if err := b.Mirror.Sync(t.Context()); err != nil || len(b.Mirror.Hosts.List()) != most+5 {
		t.Errorf("%v, %d hosts", err, len(b.Mirror.Hosts.List()))
	}
}

// TestRun holds that the mirror polls until it is told to end, says once that it cannot, and goes on.
func TestRun(t *testing.T) {
	b := newAdmin(t, newMemory())
	loaded := make(chan struct{}, 10)
	b.Mirror.Load = func(context.Context, []string) error { loaded <- struct{}{}; return nil }
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { b.Mirror.Run(ctx) })
	for i := range 2 {
		if _, err := b.ledger.Apply(ctx, Change{}, Edit{Kind: KindClass, ID: fmt.Sprint(i), Value: json.RawMessage(`{}`)}); err != nil {
			t.Fatal(err)
		}
		<-loaded
	}
	cancel()
	wg.Wait()
}
