package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/inspect"
	"github.com/exitgate/exitgate/policy"
	"github.com/exitgate/exitgate/storage"
)

// TestCookbookRewrites: what recipes write into requests is taken by the pipeline.
func TestCookbookRewrites(t *testing.T) {
	all := []exitgate.Grant{
		{ID: "t1", Class: "desk", To: "*.example.net", Methods: []string{"*"}, Reason: "test"},
		{ID: "t2", Class: "app", To: "*.example.net", Methods: []string{"*"}, Reason: "test"},
		{ID: "t3", Class: "desk", To: "login.provider.example.net", Methods: []string{"*"}, Reason: "test"},
	}
	for name, q := range map[string][3]string{
		"10-restrict-tenants-by-header": {"desk", "login.provider.example.net", "/common"},
		"11-remove-headers":             {"desk", "news.example.net", "/"},
		"12-replace-user-agent":         {"app", "api.example.net", "/"},
		"13-safe-search":                {"desk", "search.example.net", "/search"},
	} {
		e, err := policy.New(t.Context(), policy.Options{Dir: filepath.Join("../../policy/cookbook", name)}, policy.Data{Grants: all})
		if err != nil {
			t.Fatal(err)
		}
		v, err := e.Decide(t.Context(), &exitgate.Question{
			Stage: exitgate.StageRequest, At: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC), Way: exitgate.WayProxy,
			Host: exitgate.Host{Name: "h", Class: exitgate.Class(q[0])}, Dest: exitgate.Destination{Host: q[1], Port: 443},
			HTTP: &exitgate.Request{Method: "GET", Scheme: "https", URL: "https://" + q[1] + q[2], Path: q[2], Headers: map[string][]string{}},
		})
		if err != nil || v.Action != exitgate.Allow || len(v.Rewrite) == 0 {
			t.Errorf("%s: %+v %v", name, v, err)
		}
		if err := inspect.CheckRewrite(v.Rewrite); err != nil {
			t.Errorf("%s: %s: %v", name, v.Rewrite, err)
		}
	}
}

// TestStoredQuestionsAreWhatWasAsked: whatever a host sends, a question that went through the store and back looks to a
// policy as it did when it was asked, byte for byte.
func TestStoredQuestionsAreWhatWasAsked(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	text := func() string {
		list := []string{"", "a", "é", "\xff\xfe", "\x00", "\u2028", "\U0001f600", "<&>", `"\`, "a\tb", "\xed\xa0\x80", "x\x7f", "Bearer fp:0123"}
		return list[r.IntN(len(list))] + list[r.IntN(len(list))]
	}
	headers := func() map[string][]string {
		h := map[string][]string{}
		for range r.IntN(4) {
			h["x-"+text()] = []string{text(), text()}[:r.IntN(3)]
		}
		return h
	}
	e, err := policy.New(t.Context(), policy.Options{}, policy.Data{Grants: []exitgate.Grant{{ID: "g", Class: "app", To: "a.example.com", Reason: "test"}}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		q := exitgate.Question{
			Stage: exitgate.StageRequest, At: time.Date(2026, 1, 1, 0, 0, 0, r.IntN(1e9), time.UTC), Way: exitgate.WayProxy,
			Host: exitgate.Host{Name: text(), Class: "app", Addr: netip.MustParseAddr("192.0.2.1"), By: text()},
			Dest: exitgate.Destination{Host: "a.example.com", Port: uint16(1 + r.IntN(65535)), Addr: netip.MustParseAddrPort("[2001:db8::1]:443")},
			HTTP: &exitgate.Request{Method: text(), Scheme: "https", URL: "https://a.example.com/" + text(), Path: "/" + text(), Query: text() + "=" + text(), Headers: headers(), Length: r.Int64N(3) - 1, Upgrade: text()},
		}
		if r.IntN(2) == 0 {
			q.TLS = &exitgate.TLS{SNI: text(), ALPN: []string{text()}, Versions: []string{"1.3"}, ECH: r.IntN(2) == 0, JA4: text()}
		}
		if r.IntN(2) == 0 {
			q.Stage, q.Response = exitgate.StageResponse, &exitgate.Response{Status: 200, Headers: headers(), Length: -1}
		}
		f := &exitgate.Flow{ID: exitgate.NewID(q.At), Begin: q.At, End: q.At.Add(time.Second), Question: q}
		back, err := storage.DecodeRow(storage.NewRowEncoder().Row(f).Fields)
		if err != nil {
			t.Fatal(err)
		}
		was, err1 := e.Explain(t.Context(), &q)
		is, err2 := e.Explain(t.Context(), &back.Question)
		if fmt.Sprint(err1) != fmt.Sprint(err2) || !bytes.Equal(was.Input, is.Input) || len(was.Input) == 0 {
			t.Fatalf("%d: %v %v\nasked  %s\nstored %s", i, err1, err2, was.Input, is.Input)
		}
	}
}
