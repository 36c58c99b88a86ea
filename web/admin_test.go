package web

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
)

// shelf is a ledger in memory.
type shelf[T any] struct {
	id      func(T) string
	entries []T
	changes []Change
	err     error // what Put and Remove return
}

func (s *shelf[T]) List(context.Context) ([]T, error) { return s.entries, nil }

func (s *shelf[T]) Put(_ context.Context, entry T, c Change) error {
	if s.err == nil {
		s.entries, s.changes = append(s.entries, entry), append(s.changes, c)
	}
	return s.err
}

func (s *shelf[T]) Remove(_ context.Context, id string, c Change) error {
	if s.err != nil {
		return s.err
	}
	for i, e := range s.entries {
		if s.id(e) == id {
			s.entries, s.changes = append(s.entries[:i:i], s.entries[i+1:]...), append(s.changes, c)
			return nil
		}
	}
	return NotFound(fmt.Errorf("no %s", id))
}

// past has the flows that a test put there.
type past struct {
	flows []*exitgate.Flow
	ended chan *exitgate.Flow
}

func (p *past) Find(_ context.Context, query string, limit int, _ exitgate.ID) ([]*exitgate.Flow, error) {
	if strings.HasPrefix(query, "hots:") {
		return nil, Invalid(errors.New("query, column 1: no field hots"))
	}
	return p.flows[:min(limit, len(p.flows))], nil
}

func (p *past) Flow(_ context.Context, id exitgate.ID) (*exitgate.Flow, error) {
	for _, f := range p.flows {
		if f.ID == id {
			return f, nil
		}
	}
	return nil, NotFound(fmt.Errorf("find flow %s: not in the store", id))
}

func (p *past) Follow(ctx context.Context, query string, ready func(), emit func(*exitgate.Flow) error) error {
	if query == "bad:" {
		return Invalid(errors.New("query, column 1"))
	}
	ready()
	for {
		select {
		case f := <-p.ended:
			if err := emit(f); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

type because string

func (b because) WriteText(w io.Writer) error {
	_, err := io.WriteString(w, string(b))
	return err
}

// A bench is the API on a real socket, with parts in memory.
type bench struct {
	*Admin
	grants     *shelf[exitgate.Grant]
	exemptions *shelf[exitgate.Exemption]
	past       *past
	asked      *exitgate.Question // by explain, last
	applied    int
	applyErr   error
	client     *http.Client
}

func newBench(t *testing.T) *bench {
	b := &bench{
		grants:     &shelf[exitgate.Grant]{id: func(g exitgate.Grant) string { return g.ID }},
		exemptions: &shelf[exitgate.Exemption]{id: func(x exitgate.Exemption) string { return x.ID }},
		past:       &past{ended: make(chan *exitgate.Flow)},
	}
	b.Admin = &Admin{
		Grants: b.grants, Exemptions: b.exemptions, Flows: b.past,
		CheckGrant: func(g *exitgate.Grant, _ time.Time) error {
			if g.To == "*.com" {
				return errors.New("to: *.com covers a public suffix")
			}
			g.To = strings.ToLower(g.To)
			return nil
		},
		CheckExemption: func(x *exitgate.Exemption, _ time.Time) error {
			if x.Until.IsZero() {
				return errors.New("until: it has no end")
			}
			return nil
		},
		Apply: func(context.Context) error { b.applied++; return b.applyErr },
		Explain: func(_ context.Context, q *exitgate.Question) (Explanation, error) {
			b.asked = q
			return because("because"), nil
		},
		Host: func(name string) (exitgate.Host, bool) {
			return exitgate.Host{Name: name, Class: "app", Addr: netip.MustParseAddr("192.0.2.1")}, name == "web-1"
		},
		Status: func(context.Context) Status { return Status{Gateway: "gate-1"} },
		Reload: func(context.Context) error { return b.applyErr },
		Audit:  func(context.Context, int) ([]Entry, error) { return nil, nil },
		Logger: slog.New(slog.DiscardHandler),
		Now:    func() time.Time { return time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC) },
	}
	socket := filepath.Join(t.TempDir(), "admin.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx, l) }()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	b.client = &http.Client{Transport: tr}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return b
}

// ask makes one request and returns status, type and body of the answer.
func (b *bench) ask(t *testing.T, method, path, body string, header ...string) (int, string, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://gateway"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := b.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header.Get("Content-Type"), string(out)
}

const grant = `{"class":"app","to":"API.example.com","reason":"r"}`

// TestAnswers holds each path to its status, and each error to be a problem document that says what was wrong.
func TestAnswers(t *testing.T) {
	id := exitgate.NewID(time.Now()).String()
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string // in the body
	}{
		{"GET", "/v1/status", "", 200, `"gateway":"gate-1"`},
		{"GET", "/v1/grants", "", 200, `[]`},
		{"GET", "/v1/exemptions", "", 200, `[]`},
		{"GET", "/v1/audit", "", 200, `[]`},
		{"POST", "/v1/reload", "", 200, `gate-1`},
		{"POST", "/v1/grants", grant, 201, `"to":"api.example.com"`},
		{"POST", "/v1/grants", `{"class":"app","to":"a.example.com"}`, 400, "needs a reason"},
		{"POST", "/v1/grants", `{"class":"app","to":"*.com","reason":"r"}`, 400, "public suffix"},
		{"POST", "/v1/grants", `{"clas":"app"}`, 400, "clas"},
		{"POST", "/v1/grants", ``, 400, "it is empty"},
		{"POST", "/v1/grants", grant + grant, 400, "something follows"},
		{"POST", "/v1/grants", grant + "x", 400, "read the body"},
		{"POST", "/v1/grants", `[]`, 400, "read the body"},
		{"POST", "/v1/grants", `{"reason":"` + strings.Repeat("x", MaxBody) + `"}`, 413, "larger than"},
		{"POST", "/v1/exemptions", `{"class":"app","to":"a.example.com","reason":"r"}`, 400, "no end"},
		{"POST", "/v1/exemptions", `{"class":"app","to":"a.example.com","reason":"r","until":"2031-01-01T00:00:00Z"}`, 201, `"by":`},
		{"DELETE", "/v1/grants/none?reason=r", "", 404, "none with this id"},
		{"DELETE", "/v1/grants/none", "", 400, "needs a reason"},
		{"PUT", "/v1/grants", grant, 404, "no such path"},
		{"GET", "/v2/status", "", 404, "no such path"},
		{"GET", "/v1/flows", "", 200, `[]`},
		{"GET", "/v1/flows?limit=0", "", 400, "limit"},
		{"GET", "/v1/flows?limit=10001", "", 400, "limit"},
		{"GET", "/v1/flows?before=x", "", 400, "26 characters"},
		{"GET", "/v1/flows?query=hots:x", "", 400, "column 1"},
		{"GET", "/v1/flows?query=bad:&follow=true", "", 400, "column 1"},
		{"GET", "/v1/flows/" + id, "", 404, "not in the store"},
		{"GET", "/v1/flows/x", "", 400, "26 characters"},
		{"POST", "/v1/explain", `{"host":"web-1","url":"https://example.com/"}`, 200, `because`},
		{"POST", "/v1/explain", `{"class":"app","url":"https://example.com/"}`, 200, `because`},
		{"POST", "/v1/explain", `{"host":"web-2","url":"https://example.com/"}`, 404, "web-2"},
		{"POST", "/v1/explain", `{"url":"https://example.com/"}`, 400, "host or the class"},
		{"POST", "/v1/explain", `{"host":"web-1","class":"app","url":"https://example.com/"}`, 400, "host or the class"},
		{"POST", "/v1/explain", `{"class":"app","url":"example.com"}`, 400, "absolute"},
		{"POST", "/v1/explain", `{"class":"app","url":"ftp://example.com/"}`, 400, "absolute"},
		{"POST", "/v1/explain", `{"class":"app","url":"https://example.com:99999/"}`, 400, "port"},
		{"POST", "/v1/explain", `{"class":"app","url":"https://exa mple.com/"}`, 400, "read the URL"},
		{"POST", "/v1/explain", `{"flow":"` + id + `"}`, 404, "not in the store"},
		{"POST", "/v1/explain", `{"flow":"` + id + `","class":"app"}`, 400, "not both"},
	} {
		t.Run(c.method+" "+c.path+" "+c.body[:min(len(c.body), 40)], func(t *testing.T) {
			status, ct, body := newBench(t).ask(t, c.method, c.path, c.body)
			if status != c.status || !strings.Contains(body, c.want) {
				t.Errorf("%d %s, want %d with %q", status, body, c.status, c.want)
			}
			if status < 400 {
				return
			}
			var p Problem
			if err := json.Unmarshal([]byte(body), &p); err != nil || p.Status != status || p.Title == "" || ct != "application/problem+json" {
				t.Errorf("not a problem document: %s %s %v", ct, body, err)
			}
		})
	}
}

// TestAuthor holds that the kernel, not the client, says who makes a change, and when is the gateway's clock.
func TestAuthor(t *testing.T) {
	b := newBench(t)
	status, _, body := b.ask(t, "POST", "/v1/grants", `{"id":"g1","class":"app","to":"a.example.com","reason":"why","by":"mallory","at":"1999-01-01T00:00:00Z"}`)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if status != 201 || len(b.grants.entries) != 1 {
		t.Fatalf("%d %s", status, body)
	}
	if g := b.grants.entries[0]; g.By != me.Username || g.At.Year() != 2030 || g.Source != "store" {
		t.Errorf("by %q at %v from %q", g.By, g.At, g.Source)
	}
	if c := b.grants.changes[0]; c.Who != me.Username || c.Reason != "why" || c.At.Year() != 2030 {
		t.Errorf("change %+v", c)
	}
}

// TestNobody holds that a change over a connection that tells no user is refused.
func TestNobody(t *testing.T) {
	b := newBench(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx, l) }()
	res, err := http.Post("http://"+l.Addr().String()+"/v1/grants", "application/json", strings.NewReader(grant))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 403 || len(b.grants.entries) != 0 {
		t.Errorf("%s, %d grants", res.Status, len(b.grants.entries))
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestNothingChanged holds that a change that cannot be loaded leaves the store as it was.
func TestNothingChanged(t *testing.T) {
	b := newBench(t)
	b.applyErr = errors.New("rego_parse_error")
	status, _, body := b.ask(t, "POST", "/v1/grants", grant)
	if status != 409 || !strings.Contains(body, "rego_parse_error") || !strings.Contains(body, "nothing was changed") || len(b.grants.entries) != 0 {
		t.Errorf("add: %d %s, %d grants", status, body, len(b.grants.entries))
	}
	b.grants.entries = []exitgate.Grant{{ID: "g1"}}
	status, _, body = b.ask(t, "DELETE", "/v1/grants/g1?reason=r", "")
	if status != 409 || len(b.grants.entries) != 1 {
		t.Errorf("remove: %d %s, %d grants", status, body, len(b.grants.entries))
	}
	b.applyErr, b.grants.err = nil, errors.New("disk is full")
	before := b.applied
	status, _, body = b.ask(t, "POST", "/v1/grants", grant)
	if status != 500 || !strings.Contains(body, "disk is full") || b.applied != before {
		t.Errorf("store: %d %s, applied %d times", status, body, b.applied-before)
	}
}

// TestChangesAtOnce holds that changes come one after the other: each is applied, and one ID is given once.
func TestChangesAtOnce(t *testing.T) {
	b := newBench(t)
	var made atomic.Int32
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			body := fmt.Sprintf(`{"id":"g%d","class":"app","to":"a.example.com","reason":"r"}`, i/2)
			if status, _, _ := b.ask(t, "POST", "/v1/grants", body); status == 201 {
				made.Add(1)
			}
		})
	}
	wg.Wait()
	if made.Load() != 20 || len(b.grants.entries) != 20 || b.applied != 20 {
		t.Errorf("%d made, %d kept, %d applied, want 20", made.Load(), len(b.grants.entries), b.applied)
	}
}

func TestSameID(t *testing.T) {
	b := newBench(t)
	b.grants.entries = []exitgate.Grant{{ID: "g1", To: "first.example.com"}}
	status, _, body := b.ask(t, "POST", "/v1/grants", `{"id":"g1","class":"app","to":"second.example.com","reason":"r"}`)
	if status != 409 || len(b.grants.entries) != 1 || b.grants.entries[0].To != "first.example.com" {
		t.Errorf("%d %s: %+v", status, body, b.grants.entries)
	}
}

func TestImagine(t *testing.T) {
	for in, want := range map[string]exitgate.Request{
		"https://Example.com":                {URL: "https://example.com/", Path: "/", Scheme: "https"},
		"https://example.com:443/a%2Fb?x=1":  {URL: "https://example.com/a%2Fb?x=1", Path: "/a%2Fb", Query: "x=1", Scheme: "https", EncodedSlash: true},
		"http://example.com.:8080/":          {URL: "http://example.com:8080/", Path: "/", Scheme: "http"},
		"https://[2001:db8::1]/":             {URL: "https://[2001:db8::1]/", Path: "/", Scheme: "https"},
		"https://[2001:db8::1]:8443/?q=%20a": {URL: "https://[2001:db8::1]:8443/?q=%20a", Path: "/", Query: "q=%20a", Scheme: "https"},
	} {
		b := newBench(t)
		body, _ := json.Marshal(Hypothesis{Class: "app", URL: in})
		if status, _, out := b.ask(t, "POST", "/v1/explain", string(body)); status != 200 {
			t.Fatalf("%s: %d %s", in, status, out)
		}
		got := b.asked.HTTP
		if got.URL != want.URL || got.Path != want.Path || got.Query != want.Query || got.Scheme != want.Scheme || got.EncodedSlash != want.EncodedSlash || got.Method != "GET" {
			t.Errorf("%s: %+v", in, got)
		}
		if strings.ContainsAny(b.asked.Dest.Host, "[]") || strings.HasSuffix(b.asked.Dest.Host, ".") {
			t.Errorf("%s: dest %+v", in, b.asked.Dest)
		}
	}
}

func TestExplainText(t *testing.T) {
	_, ct, body := newBench(t).ask(t, "POST", "/v1/explain", `{"class":"app","url":"https://example.com/"}`, "Accept", "text/plain")
	if body != "because" || !strings.HasPrefix(ct, "text/plain") {
		t.Errorf("%s %q", ct, body)
	}
}

// TestFollow holds that flows are sent as they end, one a line, and that the stream ends with the gateway.
func TestFollow(t *testing.T) {
	b := newBench(t)
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://gateway/v1/flows?follow=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := b.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if ct := res.Header.Get("Content-Type"); ct != "application/x-ndjson" {
		t.Errorf("type %s", ct)
	}
	lines := bufio.NewScanner(res.Body)
	for range 3 {
		want := &exitgate.Flow{ID: exitgate.NewID(time.Now())}
		b.past.ended <- want
		var got exitgate.Flow
		if !lines.Scan() {
			t.Fatal("the stream ended")
		}
		if err := json.Unmarshal(lines.Bytes(), &got); err != nil || got.ID != want.ID {
			t.Errorf("%s: %v", lines.Text(), err)
		}
	}
}
