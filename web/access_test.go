package web

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
)

func TestBearer(t *testing.T) {
	b := newBench(t)
	good := b.token(t, "good", RoleViewer)
	now := b.now()
	b.Now = func() time.Time { return now }
	r := b.remote(t, good)
	r.want(t, 200, "", "GET", "/v1/grants", "")
	if use := b.Mirror.APITokens.List()[0]; strings.Contains(fmt.Sprint(use), good) || use.Hash != Digest(good) {
		t.Errorf("kept as %+v", use)
	}
	for i, c := range []struct {
		header http.Header
		path   string
		want   string
	}{
		{http.Header{}, "", "needs an API token"},
		{http.Header{"Authorization": {"Basic dTpw"}}, "", "needs an API token"},
		{http.Header{"Authorization": {"Bearer"}}, "", "not known"},
		{http.Header{"Authorization": {"Bearer " + good + "x"}}, "", "not known"},
		{http.Header{"Authorization": {"Bearer " + strings.ToUpper(good)}}, "", "not known"},
		{http.Header{"Authorization": {"Bearer " + Digest(good)}}, "", "not known"}, // what is kept opens nothing
		{http.Header{"Authorization": {"Bearer " + good, "Bearer " + good}}, "", "needs an API token"},
		{http.Header{}, "?access_token=" + good, "does not belong into a URL"},
		{http.Header{"Authorization": {"Bearer " + good}}, "?Token=" + good, "does not belong into a URL"},
	} {
		c2 := *r
		c2.header = c.header
		a := c2.do(t, "GET", "/v1/grants"+c.path, "")
		if a.status != 401 || !strings.Contains(a.body, c.want) || strings.Contains(a.body, good) || a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%d: %d %s %v", i, a.status, a.body, a.header)
		}
	}
	// the tenth failure was the last that was looked at; a good token at the same address goes on
	bad := *r
	bad.header = http.Header{"Authorization": {"Bearer xga_guess"}}
	bad.want(t, 401, "", "GET", "/v1/grants", "")
	late := bad.want(t, 429, "try again in 6 seconds", "GET", "/v1/grants", "")
	if late.header.Get("Retry-After") != "6" {
		t.Errorf("%v", late.header)
	}
	r.want(t, 200, "", "GET", "/v1/grants", "")
	now = now.Add(6 * time.Second)
	bad.want(t, 401, "", "GET", "/v1/grants", "")
	bad.want(t, 429, "", "GET", "/v1/grants", "")
	now = now.Add(time.Hour)
	r.want(t, 401, "the API token good ended", "GET", "/v1/grants", "")
	w := httptest.NewRecorder()
	if b.Remote().ServeHTTP(w, httptest.NewRequest("GET", "/v1/nothing", nil)); w.Code != 401 {
		t.Errorf("a stranger is told which paths there are: %d", w.Code)
	}
}

func TestLimiter(t *testing.T) {
	var l Limiter
	now := time.Unix(1_900_000_000, 0)
	take := func(a string) time.Duration { return l.Take(netip.MustParseAddr(a), now, 3, time.Second) }
	for _, a := range []string{"192.0.2.1", "2001:db8::1"} {
		for i := range 3 {
			if w := take(a); w != 0 {
				t.Errorf("%s: take %d waits %s", a, i, w)
			}
		}
		if w := take(a); w != time.Second {
			t.Errorf("%s waits %s", a, w)
		}
	}
	if take("2001:db8::2") == 0 || take("2001:db8:0:1::1") != 0 || take("192.0.2.2") != 0 {
		t.Error("neighbours are not told apart by /64 and by address")
	}
	now = now.Add(1500 * time.Millisecond)
	if take("192.0.2.1") != 0 || take("192.0.2.1") != 500*time.Millisecond {
		t.Error("one more is not added each second")
	}
	for i := range 3 * maxBuckets {
		take(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String())
	}
	if len(l.buckets) > maxBuckets {
		t.Errorf("%d buckets", len(l.buckets))
	}
	if take("203.0.113.9") == 0 {
		t.Error("when there are too many, the rest do not share")
	}
	now = now.Add(time.Minute)
	if take("203.0.113.9") != 0 || len(l.buckets) > maxBuckets {
		t.Error("what is empty again is not forgotten")
	}
}

// enrolToken makes a host token and returns its secret.
func (b *bench) enrolToken(t *testing.T, body string) string {
	t.Helper()
	var made HostToken
	b.want(t, 201, "xgh_", "POST", "/v1/host-tokens", body).into(t, &made)
	if _, k := b.Mirror.HostTokens.Get(made.ID); !k || strings.Contains(string(b.ledger.docs[object{KindHostToken, made.ID}].Value), made.Secret) {
		t.Fatal("the secret is kept")
	}
	return made.Secret
}

func (b *bench) enrol(t *testing.T, e Enrolment) (Host, error) {
	if !e.From.IsValid() {
		e.From = netip.MustParseAddr("198.51.100.1")
	}
	return b.Enrol(t.Context(), e, func(Host) error { return nil })
}

// TestTokenOnce holds that a token that is good once is used once, whichever of two gateways are asked at the same time.
func TestTokenOnce(t *testing.T) {
	ledger := newMemory()
	a, b := newAdmin(t, ledger), newAdmin(t, ledger)
	a.serveSocket(t)
	for round := range 40 {
		uses := 1 + round%3
		secret := a.enrolToken(t, fmt.Sprintf(`{"class":"app","uses":%d,"reason":"r"}`, uses))
		var won atomic.Int32
		var wg sync.WaitGroup
		for i := range 8 {
			gateway := []*bench{a, b}[i%2]
			wg.Go(func() {
				_, err := gateway.enrol(t, Enrolment{Token: secret, Name: fmt.Sprintf("h-%d-%d", round, i)})
				if err == nil {
					won.Add(1)
				} else if !strings.Contains(err.Error(), "used up") {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if int(won.Load()) != uses {
			t.Fatalf("round %d: %d of %d uses", round, won.Load(), uses)
		}
	}
	a.Mirror.Sync(t.Context())
	if n := len(a.Mirror.Hosts.List()); n != 14*1+13*2+13*3 {
		t.Errorf("%d hosts are registered", n)
	}
}

func TestEnrol(t *testing.T) {
	b := newBench(t)
	b.want(t, 201, "", "PUT", "/v1/classes/build", `{"reason":"r"}`)
	b.want(t, 201, "", "PUT", "/v1/hosts/made", `{"class":"build","addresses":["198.51.100.200"],"reason":"r"}`)
	b.want(t, 201, "", "PUT", "/v1/hosts/off", `{"class":"build","disabled":true,"reason":"stolen"}`)
	any := `{"class":"build","uses":100,"reason":"r"}`
	for _, c := range []struct {
		token, name, from, want string
		addresses               []Range
	}{
		{any, "", "", "say under which name", nil},
		{any, "Upper", "", "lower-case", nil},
		{any, "../x", "", "a name", nil},
		{any, "web-1", "", "host web-1 is registered already", nil}, // of a file, and of another class
		{any, "made", "", "ask for a token that names it", nil},
		{`{"class":"build","host":"ci-1","reason":"r"}`, "ci-2", "", "is for host ci-1", nil},
		{`{"class":"build","host":"off","reason":"r"}`, "", "", "host off is disabled: stolen", nil},
		{`{"class":"build","networks":["203.0.113.0/24"],"reason":"r"}`, "n", "", "only from 203.0.113.0/24", nil},
		{`{"class":"build","networks":["203.0.113.0/24"],"reason":"r"}`, "n", "203.0.113.9", "outside of 203.0.113.0/24", ranges("198.51.100.7")},
		{any, "a", "", "belongs to host web-1", ranges("192.0.2.1")},
		{any, "a", "", "belongs to host made", ranges("198.51.100.200")},
		{any, "a", "", "not a single address", ranges("198.51.100.0/24")},
		{any, "a", "", "no address that", ranges("127.0.0.1")},
		{any, "a", "", "no address that", ranges("0.0.0.0")},
		{any, "a", "", "no address that", ranges("ff02::1")},
		{any, "a", "", "no address that", ranges("fe80::1")},
		{any, "a", "", "at most 32", make([]Range, 33)},
	} {
		secret := b.enrolToken(t, c.token)
		before := len(b.ledger.trail)
		e := Enrolment{Token: secret, Name: c.name, Addresses: c.addresses}
		if c.from != "" {
			e.From = netip.MustParseAddr(c.from)
		}
		_, err := b.enrol(t, e)
		if err == nil || !strings.Contains(err.Error(), c.want) || len(b.ledger.trail) != before || strings.Contains(err.Error(), secret) {
			t.Errorf("%s as %q: %v, want %q; trail %v", c.token, c.name, err, c.want, b.ledger.actions()[before:])
		}
	}
	if _, err := b.enrol(t, Enrolment{Token: "xgh_guess", Name: "x"}); err == nil || !strings.Contains(err.Error(), "not known") {
		t.Error(err)
	}
	h, err := b.enrol(t, Enrolment{Token: b.enrolToken(t, any), Name: "ci-1", Addresses: ranges("198.51.100.7", "2001:db8::7")})
	if err != nil || h.Class != "build" || h.By != "host:ci-1" {
		t.Fatal(h, err)
	}
	// made by somebody: its class and addresses are theirs
	h, err = b.enrol(t, Enrolment{Token: b.enrolToken(t, `{"class":"build","host":"made","reason":"r"}`), Addresses: ranges("198.51.100.8")})
	if err != nil || rangesText(h.Addresses) != "198.51.100.200" {
		t.Error(h, err)
	}
	// of a file: nothing but the use of the token is written
	before := len(b.ledger.trail)
	h, err = b.enrol(t, Enrolment{Token: b.enrolToken(t, `{"class":"app","host":"web-1","reason":"r"}`)})
	if got := b.ledger.actions()[before+1:]; err != nil || h.Class != "app" || len(got) != 1 || !strings.HasPrefix(got[0], "host-token.put") {
		t.Error(h, err, got)
	}
	// ended
	secret := b.enrolToken(t, any)
	b.Now = func() time.Time { return time.Date(2030, 1, 2, 0, 0, 0, 0, time.UTC) }
	if _, err := b.enrol(t, Enrolment{Token: secret, Name: "late"}); err == nil || !strings.Contains(err.Error(), "ended 2030-01-02") {
		t.Error(err)
	}
	// a mint that fails uses nothing up
	secret = b.enrolToken(t, any)
	before = len(b.ledger.trail)
	_, err = b.Enrol(t.Context(), Enrolment{Token: secret, Name: "m"}, func(Host) error { return errors.New("the authority is away") })
	if err == nil || len(b.ledger.trail) != before {
		t.Error(err, b.ledger.actions()[before:])
	}
}

func TestRegisterAndLeave(t *testing.T) {
	b := newBench(t)
	h, err := b.enrol(t, Enrolment{Token: b.enrolToken(t, `{"class":"app","networks":["198.51.100.0/24"],"reason":"r"}`), Name: "ci-1", Addresses: ranges("198.51.100.7")})
	if err != nil {
		t.Fatal(err)
	}
	before := len(b.ledger.trail)
	from := netip.MustParseAddr("198.51.100.7")
	if _, err := b.Register(t.Context(), h, Enrolment{Addresses: ranges("198.51.100.7"), From: from}); err != nil || len(b.ledger.trail) != before {
		t.Errorf("the same again: %v, %v", err, b.ledger.actions()[before:])
	}
	if _, err := b.Register(t.Context(), h, Enrolment{Addresses: ranges("203.0.113.1"), From: from}); err == nil {
		t.Error("an address outside of the token's network was registered")
	}
	h, err = b.Register(t.Context(), h, Enrolment{Addresses: ranges("198.51.100.8"), From: from})
	if k, _ := b.Mirror.Hosts.Get("ci-1"); err != nil || rangesText(k.Value.Addresses) != "198.51.100.8" {
		t.Error(err, k.Value)
	}
	if _, err := b.Standing("ci-1", "app"); err != nil {
		t.Error(err)
	}
	if _, err := b.Standing("ci-1", "db"); err == nil || !strings.Contains(err.Error(), "its certificate says db") {
		t.Error(err)
	}
	read := b.want(t, 200, "", "GET", "/v1/hosts/ci-1", "")
	b.want(t, 200, "", "PUT", "/v1/hosts/ci-1", strings.Replace(read.body, `"disabled":false`, `"disabled":true`, 1))
	if _, err := b.Standing("ci-1", "app"); err == nil || !strings.Contains(err.Error(), "disabled") {
		t.Error(err)
	}
	if _, err := b.Register(t.Context(), h, Enrolment{Addresses: ranges("198.51.100.9"), From: from}); err == nil {
		t.Error("a host that is disabled registered an address")
	}
	if err := b.Leave(t.Context(), h); err != nil {
		t.Error(err)
	}
	b.want(t, 200, "", "GET", "/v1/hosts/ci-1", "") // somebody has changed it since: it is theirs
	b.want(t, 200, "", "DELETE", "/v1/hosts/ci-1?reason=r", "")
	if h, err = b.enrol(t, Enrolment{Token: b.enrolToken(t, `{"class":"app","reason":"r"}`), Name: "ci-1"}); err != nil {
		t.Fatal(err)
	}
	if err := b.Leave(t.Context(), h); err != nil {
		t.Error(err)
	}
	b.want(t, 404, "", "GET", "/v1/hosts/ci-1", "")
	if _, err := b.Standing("ci-1", "app"); err == nil || !strings.Contains(err.Error(), "not registered any more") {
		t.Error(err)
	}
}

// refusedFlow is a flow of a host that was refused.
func refusedFlow(host string) *exitgate.Flow {
	return &exitgate.Flow{ID: exitgate.NewID(time.Now()), Question: exitgate.Question{
		Host: exitgate.Host{Name: host, Class: "app"}, Dest: exitgate.Destination{Host: "a.example.com", Port: 443},
		HTTP: &exitgate.Request{Method: "POST", URL: "https://a.example.com/v1/x?key=secret", Path: "/v1/x"},
	}}
}

func TestRequests(t *testing.T) {
	b := newBench(t)
	f := refusedFlow("web-1")
	allowed, unknown, tunnel := refusedFlow("web-1"), refusedFlow(""), refusedFlow("web-1")
	allowed.Verdict.Action = exitgate.Allow
	unknown.Question.Host.Class = exitgate.ClassUnknown
	tunnel.Question.HTTP = nil
	b.past.flows = []*exitgate.Flow{f, allowed, unknown, tunnel}
	for _, c := range []struct {
		body   string
		status int
		want   string
	}{
		{`{"flow":"` + f.ID.String() + `"}`, 400, "needs a reason"},
		{`{"reason":"r"}`, 400, "name the flow"},
		{`{"flow":"x","reason":"r"}`, 400, "26 characters"},
		{`{"flow":"` + f.ID.String() + `","class":"app","reason":"r"}`, 400, "not both"},
		{`{"flow":"` + allowed.ID.String() + `","reason":"r"}`, 409, "was not refused"},
		{`{"flow":"` + unknown.ID.String() + `","reason":"r"}`, 409, "does not know the host"},
		{`{"class":"ap","url":"https://a.example.com/","reason":"r"}`, 400, "did you mean app?"},
		{`{"host":"nobody","url":"https://a.example.com/","reason":"r"}`, 404, "no host is named"},
		{`{"class":"app","url":"ftp://a.example.com/","reason":"r"}`, 400, "absolute http"},
		{`{"class":"app","url":"https://u:p@a.example.com/","reason":"r"}`, 400, "absolute http"},
		{`{"class":"app","url":"https://a.example.com/` + strings.Repeat("x", 2000) + `","reason":"r"}`, 400, "longer than"},
	} {
		b.want(t, c.status, c.want, "POST", "/v1/requests", c.body)
	}
	var q, again Request
	b.want(t, 201, `"state":"open"`, "POST", "/v1/requests", `{"flow":"`+f.ID.String()+`","reason":"shop"}`).into(t, &q)
	if q.Host != "web-1" || q.Class != "app" || q.Method != "POST" || q.URL != "https://a.example.com/v1/x" {
		t.Errorf("%+v", q)
	}
	b.want(t, 200, "", "POST", "/v1/requests", `{"flow":"`+f.ID.String()+`","reason":"again"}`).into(t, &again)
	if again.ID != q.ID {
		t.Errorf("filed twice: %s and %s", q.ID, again.ID)
	}
	b.want(t, 200, `"id":"`+q.ID, "GET", "/v1/requests?state=open&host=web-1&class=app", "")
	b.want(t, 200, `[]`, "GET", "/v1/requests?state=granted", "")

	b.want(t, 400, "for", "POST", "/v1/requests/"+q.ID+"/approve", `{"reason":"r","for":"everybody"}`)
	b.want(t, 400, "needs a reason", "POST", "/v1/requests/"+q.ID+"/approve", `{}`)
	b.want(t, 404, "", "POST", "/v1/requests/none/approve", `{"reason":"r"}`)
	b.loadErr = errors.New("broken")
	b.want(t, 409, "nothing was changed", "POST", "/v1/requests/"+q.ID+"/approve", `{"reason":"r"}`)
	b.loadErr = nil
	if k, _ := b.Mirror.Requests.Get(q.ID); k.Value.State != StateOpen || len(b.Mirror.Grants.List()) != 0 {
		t.Errorf("%+v, grants %v", k.Value, b.Mirror.Grants.List())
	}
	b.want(t, 200, `"state":"granted"`, "POST", "/v1/requests/"+q.ID+"/approve", `{"reason":"fine"}`).into(t, &q)
	g, _ := b.Mirror.Grants.Get(q.Grant)
	if g == nil || g.Value.To != "a.example.com" || !slices.Equal(g.Value.Paths, []string{"/v1/x$"}) || !slices.Equal(g.Value.Methods, []string{"POST"}) || g.Value.Class != "app" || !strings.Contains(g.Value.Reason, "fine") {
		t.Errorf("%+v", g)
	}
	b.want(t, 409, "was granted already by", "POST", "/v1/requests/"+q.ID+"/reject", `{"reason":"r"}`)

	// narrower and wider
	b.want(t, 201, "", "POST", "/v1/requests", `{"flow":"`+tunnel.ID.String()+`","reason":"shop"}`).into(t, &q)
	if q.Method != "CONNECT" || q.URL != "https://a.example.com:443/" {
		t.Errorf("%+v", q)
	}
	b.want(t, 200, "", "POST", "/v1/requests/"+q.ID+"/approve",
		`{"reason":"fine","for":"host","until":"2030-02-01T00:00:00Z","lease":"7d","methods":["GET"],"path":"/v1/"}`).into(t, &q)
	g, _ = b.Mirror.Grants.Get(q.Grant)
	if g == nil || g.Value.Host != "web-1" || g.Value.Class != "" || g.Value.Lease != "7d" || g.Value.Until.Month() != 2 || !slices.Equal(g.Value.Paths, []string{"/v1/"}) {
		t.Errorf("%+v", g)
	}
}

// TestFourEyes holds that who asks does not decide, but on the gateway itself.
func TestFourEyes(t *testing.T) {
	b := newBench(t)
	ci, boss := b.token(t, "ci", RoleEditor), b.token(t, "boss", RoleEditor)
	r := b.remote(t, ci)
	other := b.remote(t, boss)
	var q Request
	r.want(t, 201, "", "POST", "/v1/requests", `{"class":"app","url":"https://a.example.com/","reason":"r"}`).into(t, &q)
	r.want(t, 403, "somebody else has to decide", "POST", "/v1/requests/"+q.ID+"/approve", `{"reason":"r"}`)
	r.want(t, 403, "somebody else has to decide", "POST", "/v1/requests/"+q.ID+"/reject", `{"reason":"r"}`)
	other.want(t, 200, `"decided_by":"token:boss"`, "POST", "/v1/requests/"+q.ID+"/approve", `{"reason":"r"}`)
	b.want(t, 201, "", "POST", "/v1/requests", `{"class":"app","url":"https://b.example.com/","reason":"r"}`).into(t, &q)
	b.want(t, 200, "", "POST", "/v1/requests/"+q.ID+"/approve", `{"reason":"r"}`)
}

func TestTooManyRequests(t *testing.T) {
	b := newBench(t)
	for i := range maxOpenPerHost {
		b.want(t, 201, "", "POST", "/v1/requests", fmt.Sprintf(`{"host":"web-1","url":"https://a.example.com/%d","reason":"r"}`, i))
	}
	b.want(t, 429, "50 of host web-1 are open", "POST", "/v1/requests", `{"host":"web-1","url":"https://a.example.com/more","reason":"r"}`)
	b.want(t, 201, "", "POST", "/v1/requests", `{"class":"app","url":"https://a.example.com/more","reason":"r"}`)
}

func TestHostsOwnRequests(t *testing.T) {
	b := newBench(t)
	f := refusedFlow("web-1")
	b.past.flows = []*exitgate.Flow{f}
	web, _ := b.HostNamed("web-1")
	if _, _, err := b.FileFor(t.Context(), Host{Name: "web-2", Class: "app"}, Ask{Flow: f.ID.String(), Reason: "r"}); !IsNotFound(err) {
		t.Errorf("the flow of another host: %v", err)
	}
	q, fresh, err := b.FileFor(t.Context(), web, Ask{URL: "https://a.example.com/", Class: "db", Host: "db-1", Reason: "r"})
	if err != nil || !fresh || q.Host != "web-1" || q.Class != "app" || q.By != "host:web-1" {
		t.Errorf("%+v %v", q, err)
	}
	if _, err := b.RequestOf(Host{Name: "web-2"}, q.ID); !IsNotFound(err) {
		t.Errorf("the request of another host: %v", err)
	}
	if got, err := b.RequestOf(web, q.ID); err != nil || got.ID != q.ID {
		t.Error(got, err)
	}
}

// usesMemory is a store of uses in memory.
type usesMemory struct {
	mu   sync.Mutex
	uses map[object]Use
	err  error
}

func (u *usesMemory) AddUses(_ context.Context, list []Use) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err != nil {
		return u.err
	}
	for _, use := range list {
		u.uses[use.key()] = u.uses[use.key()].and(use)
	}
	return nil
}

func (u *usesMemory) Uses(_ context.Context, kind string) (out []Use, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for key, use := range u.uses {
		if key.kind == kind {
			out = append(out, use)
		}
	}
	return out, u.err
}

func TestUses(t *testing.T) {
	store := &usesMemory{uses: map[object]Use{}}
	a, b := &Uses{Store: store}, &Uses{Store: store}
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	end := func(u *Uses, grant string, action exitgate.Action, at time.Time) {
		f := &exitgate.Flow{End: at, Verdict: exitgate.Verdict{Grant: grant, Action: action}, Question: exitgate.Question{Host: exitgate.Host{Name: "web-1"}}}
		r := u.Recorder(keeps{})
		if err := errors.Join(r.Begin(t.Context(), f), r.End(t.Context(), f)); err != nil {
			t.Fatal(err)
		}
	}
	end(a, "g", exitgate.Allow, at)
	end(a, "g", exitgate.Allow, at.Add(time.Hour))
	end(a, "g", exitgate.Refuse, at.Add(2*time.Hour)) // over a limit of the grant: no use of it
	end(b, "g", exitgate.Splice, at.Add(-time.Hour))
	store.err = errors.New("away")
	if err := a.Flush(t.Context()); err == nil {
		t.Error("a store that is away is no error")
	}
	if use := a.of(KindGrant, "g"); use.Count != 2 || !use.Last.Equal(at.Add(time.Hour)) {
		t.Errorf("%+v", use)
	}
	store.err = nil
	for _, u := range []*Uses{a, b} {
		if err := u.Flush(t.Context()); err != nil {
			t.Error(err)
		}
	}
	for _, u := range []*Uses{a, b} {
		if err := u.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
		if use := u.of(KindGrant, "g"); use.Count != 3 || !use.Last.Equal(at.Add(time.Hour)) {
			t.Errorf("%+v", use)
		}
		if use := u.of(KindHost, "web-1"); use.Count != 4 {
			t.Errorf("%+v", use)
		}
	}
	bench := newBench(t)
	bench.Uses = a
	bench.want(t, 200, `[{"kind":"grant","id":"g","last":"2030-01-01T01:00:00Z","count":3}]`, "GET", "/v1/uses", "")
	bench.want(t, 200, `"count":4`, "GET", "/v1/uses?kind=host&id=web-1", "")
	bench.want(t, 200, `"seen":"2030-01-01T02:00:00Z"`, "GET", "/v1/hosts/web-1", "")
}

// TestLeases holds when a leased grant ends, and when a gateway has to tell its policy again.
func TestLeases(t *testing.T) {
	store := &usesMemory{uses: map[object]Use{}}
	here, there := &Uses{Store: store}, &Uses{Store: store}
	l := &Leases{Uses: here}
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	grants := []exitgate.Grant{{ID: "plain", At: at}, {ID: "leased", At: at, Lease: "8h"}, {ID: "both", At: at, Lease: "8h", Until: at.Add(9 * time.Hour)}, {ID: "strange", At: at, Lease: "soon"}}
	ends := func() map[string]time.Duration {
		out := map[string]time.Duration{}
		for _, g := range l.Effective(grants) {
			if !g.Until.IsZero() {
				out[g.ID] = g.Until.Sub(at)
			}
		}
		return out
	}
	if got := ends(); !maps.Equal(got, map[string]time.Duration{"leased": 8 * time.Hour, "both": 8 * time.Hour, "strange": 0}) {
		t.Errorf("%v", got)
	}
	if grants[1].Until != (time.Time{}) {
		t.Error("the grants themselves were changed")
	}
	loads := 0
	step := func(now time.Duration) {
		t.Helper()
		if err := l.step(t.Context(), at.Add(now), func(context.Context) error { loads++; ends(); return nil }); err != nil {
			t.Error(err)
		}
	}
	// used through another gateway at 5 h: this one learns it when the end that it told comes near, not before
	there.Seen(KindGrant, "leased", at.Add(5*time.Hour))
	if err := there.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	step(5*time.Hour + time.Minute)
	if loads != 0 {
		t.Error("loaded although no end is near")
	}
	step(6*time.Hour + time.Minute)
	if got := ends(); loads != 1 || got["leased"] != 13*time.Hour || got["both"] != 8*time.Hour {
		t.Errorf("loaded %d times, %v", loads, got)
	}
	step(7 * time.Hour)
	step(8*time.Hour + time.Second) // both has ended
	if loads != 1 {
		t.Errorf("loaded %d times", loads)
	}
	// not used again: it ends, and is not asked about for ever
	if step(13 * time.Hour); l.Near(at.Add(14*time.Hour)) || loads != 1 {
		t.Errorf("loaded %d times", loads)
	}
	// renewed: it begins anew
	grants[1].At = at.Add(20 * time.Hour)
	if got := ends(); got["leased"] != 28*time.Hour {
		t.Errorf("%v", got)
	}
	for in, ok := range map[string]bool{"5m": true, "30d": true, "1d12h": true, "732d": true, "4m59s": false, "733d": false, "-1h": false, "": false, "99999999d": false, "d": false, "1h30": false} {
		if _, err := ParseLease(in); (err == nil) != ok {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestRenew(t *testing.T) {
	b := newBench(t)
	b.want(t, 201, "", "PUT", "/v1/grants/l", `{"class":"app","to":"a.example.com","lease":"30d","reason":"why"}`)
	b.want(t, 201, "", "PUT", "/v1/grants/p", `{"class":"app","to":"a.example.com","reason":"why"}`)
	b.Now = func() time.Time { return time.Date(2030, 1, 9, 0, 0, 0, 0, time.UTC) }
	b.want(t, 400, "needs a reason", "POST", "/v1/grants/l/renew", `{}`)
	b.want(t, 404, "", "POST", "/v1/grants/none/renew", `{"reason":"r"}`)
	b.want(t, 409, "it has no lease", "POST", "/v1/grants/p/renew", `{"reason":"r"}`)
	b.want(t, 200, `"at":"2030-01-09T00:00:00Z"`, "POST", "/v1/grants/l/renew", `{"reason":"still needed"}`)
	if e := b.ledger.trail[len(b.ledger.trail)-1]; e.Reason != "still needed" || b.Mirror.Grants.List()[0].Reason != "why" {
		t.Errorf("%+v", e)
	}
}

// TestSecretsStayOut holds that what the API logs and keeps has no secret in it.
func TestSecretsStayOut(t *testing.T) {
	b := newBench(t)
	var made APIToken
	b.want(t, 201, "xga_", "POST", "/v1/api-tokens", `{"name":"x","role":"admin","reason":"r","secret":"mine"}`).into(t, &made)
	for _, path := range []string{"/v1/api-tokens", "/v1/api-tokens/" + made.ID, "/v1/audit"} {
		if a := b.do(t, "GET", path, ""); strings.Contains(a.body, made.Secret) || strings.Contains(a.body, "mine") {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	// another role for the same token does not show or change its secret
	b.want(t, 200, "", "PUT", "/v1/api-tokens/"+made.ID, `{"name":"x","role":"viewer","reason":"r"}`)
	r := b.remote(t, made.Secret)
	r.want(t, 403, "has the role viewer", "GET", "/v1/audit", "")
	b.want(t, 200, "", "DELETE", "/v1/api-tokens/"+made.ID+"?reason=r", "")
	r.want(t, 401, "", "GET", "/v1/status", "")
}

// FuzzBody holds that no body makes the API fail, or answer anything but 201 or a problem.
func FuzzBody(f *testing.F) {
	for _, body := range sampleOf {
		f.Add(body)
	}
	f.Add(`{"reason":"\ud800"}`)
	f.Add(`[{}]`)
	f.Fuzz(func(t *testing.T, body string) {
		b := newAdmin(t, newMemory())
		for name := range sampleOf {
			r := httptest.NewRequest("POST", "/v1/"+name, strings.NewReader(body))
			w := httptest.NewRecorder()
			b.handler(func(*http.Request) (Principal, error) { return Principal{Who: "u", Role: RoleAdmin, Local: true}, nil }).ServeHTTP(w, r)
			if w.Code != 201 && (w.Code < 400 || w.Code >= 500) {
				t.Fatalf("%s %q: %d %s", name, body, w.Code, w.Body)
			}
		}
	})
}
