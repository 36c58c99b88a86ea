package hostapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/web"
	"github.com/exitgate/exitgate/web/hostapi"
)

// ledger is a small ledger in memory.
type ledger struct {
	mu    sync.Mutex
	docs  map[[2]string]web.Document
	trail []web.Entry
}

func (l *ledger) Documents(_ context.Context, kind string) (out []web.Document, _ error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range l.docs {
		if d.Kind == kind {
			out = append(out, d)
		}
	}
	return out, nil
}

func (l *ledger) Document(_ context.Context, kind, id string) (web.Document, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d, ok := l.docs[[2]string{kind, id}]; ok {
		return d, nil
	}
	return web.Document{}, web.NotFound(errors.New("none"))
}

func (l *ledger) Apply(_ context.Context, c web.Change, edits ...web.Edit) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range edits {
		if have := l.docs[[2]string{e.Kind, e.ID}].Version; e.If == web.MustNotExist && have != 0 || e.If > 0 && e.If != have {
			return 0, web.ErrChanged
		}
	}
	for _, e := range edits {
		seq, action := int64(len(l.trail)+1), ".put"
		if e.Value == nil {
			action = ".remove"
			delete(l.docs, [2]string{e.Kind, e.ID})
		} else {
			l.docs[[2]string{e.Kind, e.ID}] = web.Document{Kind: e.Kind, ID: e.ID, Version: seq, Value: e.Value}
		}
		l.trail = append(l.trail, web.Entry{Seq: seq, Action: e.Kind + action, Object: e.ID, Who: c.Who, Reason: c.Reason, Value: e.Value})
	}
	return int64(len(l.trail)), nil
}

func (l *ledger) Revision(context.Context) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.trail)), nil
}

func (l *ledger) Audit(_ context.Context, f web.AuditFilter) (out []web.Entry, _ error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range slices.Backward(l.trail) {
		if e.Seq > f.After {
			out = append(out, e)
		}
	}
	return out, nil
}

// noFlows has no flow.
type noFlows struct{}

func (noFlows) Find(context.Context, string, int, exitgate.ID) ([]*exitgate.Flow, error) {
	return nil, nil
}
func (noFlows) Flow(context.Context, exitgate.ID) (*exitgate.Flow, error) {
	return nil, web.NotFound(errors.New("none"))
}
func (noFlows) Follow(context.Context, string, func(), func(*exitgate.Flow) error) error { return nil }

// A bench is the handler over a ledger in memory that has some hosts and one token.
type bench struct {
	*hostapi.Handler
	now    time.Time
	looked int
	log    strings.Builder
}

func newBench(t *testing.T) *bench {
	b := &bench{now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	clock, log := func() time.Time { return b.now }, slog.New(slog.NewTextHandler(&b.log, nil))
	admin := &web.Admin{
		Mirror:     &web.Mirror{Ledger: filled(t, b.now), Load: func(context.Context, []string) error { return nil }, Logger: log},
		GrantFor:   func(string) (exitgate.Grant, error) { return exitgate.Grant{To: "a.example.com"}, nil },
		CheckGrant: func(*exitgate.Grant, time.Time) error { return nil },
		Flows:      noFlows{}, Logger: log, Now: clock,
	}
	if err := admin.Mirror.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.Handler = &hostapi.Handler{
		Admin: admin, Logger: log, Now: clock,
		Ott: func(_ context.Context, name string, class exitgate.Class, sans []string) (string, error) {
			return fmt.Sprintf("ott:%s:%s:%v", name, class, sans), nil
		},
		Settings: func(context.Context) (hostapi.Settings, error) {
			return hostapi.Settings{CAURL: "https://gate.example.com:3130", Mode: "proxy"}, nil
		},
		Identity: func(r *http.Request) (string, exitgate.Class, error) {
			name, class, ok := strings.Cut(r.Header.Get("X-Test-Identity"), "/")
			if !ok {
				return "", "", errors.New("show the certificate that this host got when it enrolled")
			}
			return name, exitgate.Class(class), nil
		},
		Decide: func(_ context.Context, h web.Host, u *url.URL) (exitgate.Verdict, error) {
			if u.Host == "a.example.com" && h.Class == "build" {
				return exitgate.Verdict{Action: exitgate.Allow, Rule: "grant:g", Revision: "r1"}, nil
			}
			return exitgate.Verdict{Rule: "no-grant", Reason: "no grant covers it"}, nil
		},
		Look: func(context.Context, web.Host, *url.URL, exitgate.Verdict) hostapi.View {
			b.looked++
			return hostapi.View{Addresses: []string{"203.0.113.5"}, Dialled: "203.0.113.5:443", ALPN: "h2"}
		},
	}
	return b
}

func filled(t *testing.T, now time.Time) *ledger {
	l := &ledger{docs: map[[2]string]web.Document{}}
	for _, d := range []struct {
		kind, id string
		value    any
	}{
		{web.KindClass, "build", web.Class{Name: "build"}},
		{web.KindClass, "app", web.Class{Name: "app"}},
		{web.KindHost, "ci-1", web.Host{Name: "ci-1", Class: "build", Origin: web.Origin{By: "host:ci-1"}}},
		{web.KindHost, "web-1", web.Host{Name: "web-1", Class: "app"}},
		{web.KindHost, "off", web.Host{Name: "off", Class: "app", Disabled: true, Origin: web.Origin{Reason: "stolen"}}},
		{web.KindHostToken, "t", web.StoredHostToken{HostToken: web.HostToken{ID: "t", Class: "build", Uses: 1, Until: now.Add(time.Hour)}, Hash: web.Digest("xgh_secret")}},
	} {
		value, err := json.Marshal(d.value)
		if err == nil {
			_, err = l.Apply(t.Context(), web.Change{Who: "u", Reason: "r"}, web.Edit{Kind: d.kind, ID: d.id, Value: value})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func (b *bench) ask(method, path, identity, body string) (int, string) {
	r := httptest.NewRequest(method, "/enroll/v1/"+path, strings.NewReader(body))
	r.Header.Set("X-Test-Identity", identity)
	r.RemoteAddr = "198.51.100.7:1234"
	w := httptest.NewRecorder()
	b.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestAnswers(t *testing.T) {
	const token, ci = `{"token":"xgh_secret","name":"ci-9","addresses":["198.51.100.9"]}`, "ci-1/build"
	for _, c := range []struct {
		method, path, identity, body string
		status                       int
		want                         string
	}{
		{"POST", "token", "", token, 200, `"ott":"ott:ci-9:build:[ci-9]"`},
		{"POST", "token", "", token, 200, `"ca_url":"https://gate.example.com:3130"`},
		{"POST", "token", "", `{"token":"xgh_guess","name":"x"}`, 403, "not known"},
		{"POST", "token", "", `{"token":"xgh_secret","name":"web-1"}`, 409, "registered already"},
		{"POST", "token", "", `{"token":"xgh_secret","name":"Web"}`, 400, "lower-case"},
		{"POST", "token", "", `{"token":"xgh_secret","name":"x","class":"app"}`, 400, "class"},
		{"POST", "token", "", `{"token":"xgh_secret","name":"x","addresses":["10.0.0.0/8"]}`, 400, "not a single address"},
		{"POST", "token", "", ``, 400, "it is empty"},
		{"GET", "token", ci, "", 404, "no such path"},
		{"POST", "register", "", `{}`, 403, "show the certificate"},
		{"POST", "register", "gone/app", `{}`, 403, "not registered any more"},
		{"POST", "register", "off/app", `{}`, 403, "disabled: stolen"},
		{"POST", "register", "ci-1/app", `{}`, 403, "its certificate says app"},
		{"POST", "register", ci, `{"addresses":["198.51.100.7"],"trust":[]}`, 200, `"addresses":["198.51.100.7"]`},
		{"POST", "register", ci, `{"addresses":["127.0.0.1"],"trust":[]}`, 400, "no address that"},
		{"POST", "leave", ci, ``, 200, `{}`},
		{"POST", "requests", ci, `{"url":"https://a.example.com/","reason":"r"}`, 201, `"by":"host:ci-1"`},
		{"POST", "requests", ci, `{"url":"https://a.example.com/","reason":"r","class":"app"}`, 400, "class"},
		{"POST", "requests", ci, `{"url":"https://a.example.com/"}`, 400, "needs a reason"},
		{"GET", "requests/none", ci, "", 404, "none with this id"},
		{"GET", "requests/", ci, "", 404, "no such path"},
		{"GET", "view?url=https://a.example.com/x", ci, "", 200, `"dialled":"203.0.113.5:443"`},
		{"GET", "view?url=https://a.example.com/x", "web-1/app", "", 200, `"rule":"no-grant"`},
		{"GET", "view?url=http://169.254.169.254/", ci, "", 200, `"action":"refuse"`},
		{"GET", "view?url=file:///etc/passwd", ci, "", 400, "absolute http"},
		{"GET", "view", ci, "", 400, "absolute http"},
		{"GET", "nothing", ci, "", 404, "no such path"},
	} {
		t.Run(c.method+" "+c.path+" "+c.identity, func(t *testing.T) {
			b := newBench(t)
			status, body := b.ask(c.method, c.path, c.identity, c.body)
			if status != c.status || !strings.Contains(body, c.want) {
				t.Errorf("%d %s, want %d with %q", status, body, c.status, c.want)
			}
			if strings.Contains(b.log.String()+body, "xgh_") {
				t.Errorf("the token is in %s%s", body, b.log.String())
			}
		})
	}
}

// TestViewLooksAtNothingRefused holds that a host cannot have the gateway look up or dial what it may not reach.
func TestViewLooksAtNothingRefused(t *testing.T) {
	b := newBench(t)
	for _, u := range []string{"http://169.254.169.254/", "https://b.example.com/", "http://localhost:9128/"} {
		if _, body := b.ask("GET", "view?url="+url.QueryEscape(u), "ci-1/build", ""); strings.Contains(body, "addresses") {
			t.Errorf("%s: %s", u, body)
		}
	}
	if b.looked != 0 {
		t.Errorf("looked %d times", b.looked)
	}
}

// TestOnce holds that a token that is good once is good once.
func TestOnce(t *testing.T) {
	for range 40 {
		b := newBench(t)
		var won atomic.Int32
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				status, body := b.ask("POST", "token", "", fmt.Sprintf(`{"token":"xgh_secret","name":"h-%d"}`, i))
				if status == 200 {
					won.Add(1)
				} else if status != 403 || !strings.Contains(body, "used up (1 of 1)") {
					t.Errorf("%d %s", status, body)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("used %d times", won.Load())
		}
	}
}

// TestBounds holds that an address fails, and asks, a bounded number of times.
func TestBounds(t *testing.T) {
	b := newBench(t)
	counts := map[int]int{}
	for range 40 {
		status, _ := b.ask("POST", "token", "", `{"token":"xgh_guess","name":"x"}`)
		counts[status]++
	}
	if counts[403] != 20 || counts[429] != 20 {
		t.Errorf("%v", counts)
	}
	for range 81 { // a host that is known at the same address goes on
		status, _ := b.ask("POST", "register", "ci-1/build", `{}`)
		counts[status]++
	}
	if counts[200] != 80 || counts[429] != 21 {
		t.Errorf("%v", counts)
	}
	b.now = b.now.Add(time.Second)
	if status, _ := b.ask("POST", "register", "ci-1/build", `{}`); status != 200 {
		t.Errorf("after a second: %d", status)
	}
}
