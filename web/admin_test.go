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
	"net/url"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
)

// memory is a ledger in memory, which several gateways can share.
type memory struct {
	mu    sync.Mutex
	docs  map[object]Document
	trail []Entry
	err   error  // what every call returns
	race  func() // called once, before the next Apply takes effect
}

func newMemory() *memory { return &memory{docs: map[object]Document{}} }

func (m *memory) Documents(_ context.Context, kind string) (out []Document, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.docs {
		if d.Kind == kind {
			out = append(out, d)
		}
	}
	return out, m.err
}

func (m *memory) Document(_ context.Context, kind, id string) (Document, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.docs[object{kind, id}]
	if !ok && m.err == nil {
		return d, NotFound(fmt.Errorf("no %s %s", kind, id))
	}
	return d, m.err
}

func (m *memory) Apply(_ context.Context, c Change, edits ...Edit) (int64, error) {
	m.mu.Lock()
	race := m.race
	m.race = nil
	m.mu.Unlock()
	if race != nil {
		race()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return 0, m.err
	}
	for _, e := range edits {
		have := m.docs[object{e.Kind, e.ID}].Version
		if e.If == MustNotExist && have != 0 || e.If > 0 && e.If != have {
			return 0, fmt.Errorf("%s %s: %w", e.Kind, e.ID, ErrChanged)
		}
	}
	for _, e := range edits {
		seq, key := int64(len(m.trail)+1), object{e.Kind, e.ID}
		entry := Entry{Seq: seq, At: c.At, Who: c.Who, Action: e.Kind + ".put", Object: e.ID, Reason: c.Reason, Value: e.Value}
		if e.Value == nil {
			entry.Action, entry.Value = e.Kind+".remove", m.docs[key].Value
			delete(m.docs, key)
		} else {
			m.docs[key] = Document{e.Kind, e.ID, seq, e.Value}
		}
		m.trail = append(m.trail, entry)
	}
	return int64(len(m.trail)), nil
}

func (m *memory) Revision(context.Context) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int64(len(m.trail)), m.err
}

func (m *memory) Audit(_ context.Context, f AuditFilter) (out []Entry, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range slices.Backward(m.trail) {
		if e.Seq > f.After && (f.Before == 0 || e.Seq < f.Before) && len(out) < f.Limit {
			out = append(out, e)
		}
	}
	return out, m.err
}

// actions returns what the trail says, oldest first.
func (m *memory) actions() (out []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.trail {
		out = append(out, e.Action+" "+e.Object)
	}
	return out
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

type because struct {
	Why string `json:"why"`
}

func (b because) WriteText(w io.Writer) error {
	_, err := io.WriteString(w, b.Why)
	return err
}

// A bench is the API on a real socket, with parts in memory.
type bench struct {
	*Admin
	ledger  *memory
	past    *past
	asked   *exitgate.Question // by explain, last
	loaded  int                // how often something was put in force
	loadErr error
	client  *http.Client
	base    string
	header  http.Header // of each request
}

// newAdmin returns the API of a gateway on a ledger.
func newAdmin(t *testing.T, ledger *memory) *bench {
	b := &bench{ledger: ledger, past: &past{ended: make(chan *exitgate.Flow)}, header: http.Header{}}
	m := &Mirror{Ledger: ledger, Logger: slog.New(slog.DiscardHandler), Load: func(context.Context, []string) error { b.loaded++; return b.loadErr }}
	b.Admin = &Admin{
		Mirror: m,
		Files: Files{
			Classes: func() []Class { return []Class{{Name: "app", Origin: Origin{Source: "exitgate.yaml"}}} },
			Hosts: func() []Host {
				return []Host{{Name: "web-1", Class: "app", Addresses: ranges("192.0.2.1", "192.0.2.128/28"), Origin: Origin{Source: "exitgate.yaml"}}}
			},
			Grants: func() []exitgate.Grant {
				return []exitgate.Grant{{ID: "filed", Class: "app", To: "files.example.com", Source: "grants.yaml:3"}}
			},
		},
		Flows: b.past,
		CheckGrant: func(g *exitgate.Grant, _ time.Time) error {
			if g.To == "*.com" || g.To == "" {
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
		GrantFor: func(s string) (exitgate.Grant, error) {
			u, err := url.Parse(s)
			if err != nil {
				return exitgate.Grant{}, err
			}
			return exitgate.Grant{To: u.Hostname(), Paths: []string{u.Path + "$"}}, nil
		},
		Explain: func(_ context.Context, q *exitgate.Question) (Explanation, error) {
			b.asked = q
			return because{"because"}, nil
		},
		Status: func(context.Context) Status { return Status{Gateway: "gate-1"} },
		Reload: func(context.Context) error { return b.loadErr },
		Trust:  func(context.Context) (Trust, error) { return Trust{Roots: "PEM"}, nil },
		Proxy: func(context.Context) (ProxySettings, error) {
			return ProxySettings{HTTP: "http://gate.example.com:3128"}, nil
		},
		Logger: slog.New(slog.DiscardHandler),
		Now:    func() time.Time { return time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC) },
	}
	if err := m.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

func ranges(list ...string) (out []Range) {
	for _, s := range list {
		r, err := ParseRange(s)
		if err != nil {
			panic(err)
		}
		out = append(out, r)
	}
	return out
}

func newBench(t *testing.T) *bench {
	b := newAdmin(t, newMemory())
	b.serveSocket(t)
	return b
}

func (b *bench) serveSocket(t *testing.T) {
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
	b.client, b.base = &http.Client{Transport: tr}, "http://gateway"
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

// answered is what came back.
type answered struct {
	status int
	header http.Header
	body   string
}

func (a answered) into(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
}

// do makes one request.
func (b *bench) do(t *testing.T, method, path, body string, header ...string) answered {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, b.base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = b.header.Clone()
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
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
	a := answered{res.StatusCode, res.Header, string(out)}
	asDocumented(t, r, a)
	return a
}

// want is do, and fails t unless the answer has the status and the text.
func (b *bench) want(t *testing.T, status int, text, method, path, body string, header ...string) answered {
	t.Helper()
	a := b.do(t, method, path, body, header...)
	if a.status != status || !strings.Contains(a.body, text) {
		t.Fatalf("%s %s %.200s: %d %s, want %d with %q", method, path, body, a.status, a.body, status, text)
	}
	return a
}

// ask makes one request and returns status, type and body of the answer.
func (b *bench) ask(t *testing.T, method, path, body string, header ...string) (int, string, string) {
	t.Helper()
	a := b.do(t, method, path, body, header...)
	return a.status, a.header.Get("Content-Type"), a.body
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
		{"GET", "/v1/grants", "", 200, `"source":"grants.yaml:3"`},
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
		{"PUT", "/v1/grants", grant, 405, "this path takes GET, HEAD, POST"},
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
	if g := b.Mirror.Grants.List(); status != 201 || len(g) != 1 || g[0].By != me.Username || g[0].At.Year() != 2030 || g[0].Source != "" {
		t.Fatalf("%d %s: %+v", status, body, g)
	}
	if e := b.ledger.trail[0]; e.Who != me.Username || e.Reason != "why" || e.At.Year() != 2030 {
		t.Errorf("entry %+v", e)
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
	if res.StatusCode != 403 || len(b.ledger.trail) != 0 {
		t.Errorf("%s, trail %v", res.Status, b.ledger.actions())
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestNothingChanged holds that a change that cannot be loaded leaves the ledger as it was.
func TestNothingChanged(t *testing.T) {
	b := newBench(t)
	b.want(t, 201, "", "POST", "/v1/grants", `{"id":"g1","class":"app","to":"a.example.com","reason":"r"}`)
	b.loadErr = errors.New("rego_parse_error")
	for _, c := range [][3]string{
		{"POST", "/v1/grants", grant},
		{"PUT", "/v1/grants/g1", grant},
		{"DELETE", "/v1/grants/g1?reason=r", ""},
	} {
		body := b.want(t, 409, "rego_parse_error", c[0], c[1], c[2]).body
		if g := b.Mirror.Grants.List(); !strings.Contains(body, "nothing was changed") || len(g) != 1 || g[0].To != "a.example.com" {
			t.Errorf("%v: %s, %+v", c, body, g)
		}
	}
	b.loadErr = nil
	b.want(t, 200, "", "PUT", "/v1/grants/g1", grant)
	b.ledger.err = errors.New("disk is full")
	before := b.loaded
	b.want(t, 503, "disk is full", "POST", "/v1/grants", grant)
	if b.loaded != before || len(b.Mirror.Grants.List()) != 1 {
		t.Errorf("loaded %d times, %d grants", b.loaded-before, len(b.Mirror.Grants.List()))
	}
}

// TestChangesAtOnce holds that changes come one after the other: each is loaded, and one ID is given once.
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
	if n := len(b.Mirror.Grants.List()); made.Load() != 20 || n != 20 || b.loaded != 20 {
		t.Errorf("%d made, %d kept, %d loaded, want 20", made.Load(), n, b.loaded)
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
