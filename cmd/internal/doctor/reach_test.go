package doctor

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// proxy is a port of loopback that reads the head of a request and then does what answer says.
func proxy(t *testing.T, answer func(c net.Conn)) *url.URL {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if r, err := http.ReadRequest(bufio.NewReaderSize(&headReader{c: c}, 16)); err == nil && r.Method == http.MethodConnect {
					answer(c)
				}
			}()
		}
	}()
	return &url.URL{Scheme: "http", Host: l.Addr().String()}
}

func reachThrough(t *testing.T, p *url.URL, limit time.Duration) (Reached, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return machine{Host{}.complete()}.reach(ctx, Way{To: &url.URL{Scheme: "https", Host: "www.example.com"}, Proxy: p, Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
}

// TestReachHostile: whatever a proxy answers, it is bounded and said in one line.
func TestReachHostile(t *testing.T) {
	say := func(s string) func(net.Conn) { return func(c net.Conn) { io.WriteString(c, s) } }
	for name, tc := range map[string]struct {
		answer func(net.Conn)
		limit  time.Duration
		kind   Kind
		step   string
		text   string
	}{
		"problem":    {say("HTTP/1.1 403 Forbidden\r\nContent-Length: 26\r\n\r\n{\"detail\":\"no, not today\"}"), 0, KindProxySaid, "proxy", "the proxy answered 403: no, not today"},
		"status":     {say("HTTP/1.1 407 Who\r\nProxy-Status: x; details=\"say \\\"who\\\"\"; flow=\"1\"\r\n\r\n"), 0, KindProxySaid, "proxy", `407: say "who"`},
		"bare":       {say("HTTP/1.0 502 Bad Gateway\r\n\r\n"), 0, KindProxySaid, "proxy", "502 Bad Gateway"},
		"short body": {say("HTTP/1.1 403 Forbidden\r\nContent-Length: 25000000\r\n\r\nhalf"), 0, KindProxySaid, "proxy", "403: half"},
		"long body":  {say("HTTP/1.1 403 Forbidden\r\nContent-Length: 25000000\r\n\r\n" + strings.Repeat("x", maxSaid)), 0, KindProxySaid, "proxy", "xxx..."},
		"no HTTP":    {say("SSH-2.0-OpenSSH\r\n\r\n"), 0, KindOther, "proxy", "malformed"},
		"closes":     {say(""), 0, KindInterrupt, "proxy", "the connection was closed"},
		"endless head": {func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for {
				if _, err := io.WriteString(c, "X: "+strings.Repeat("y", 1000)+"\r\n"); err != nil {
					return
				}
			}
		}, 0, KindOther, "proxy", "does not end"},
		"silent":    {func(c net.Conn) { io.Copy(io.Discard, c) }, 30 * time.Millisecond, KindTimeout, "proxy", "did not come in time"},
		"no TLS":    {say("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 400 Bad Request\r\n\r\n"), 0, KindNotTLS, "tls", "does not speak TLS"},
		"TLS hangs": {func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); io.Copy(io.Discard, c) }, 50 * time.Millisecond, KindTimeout, "tls", "did not come in time"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			r, err := reachThrough(t, proxy(t, tc.answer), cmp.Or(tc.limit, 10*time.Second))
			p := problem(err)
			if p == nil || p.Kind != tc.kind || r.Step != tc.step || !strings.Contains(p.Text, tc.text) || len(p.Text) > 1000 {
				t.Errorf("step %q, %+v", r.Step, p)
			}
		})
	}
}

// TestReachTLS: bytes behind the answer to CONNECT are TLS's, and the chain is kept whoever signed it.
func TestReachTLS(t *testing.T) {
	s := newSigner(t, "site")
	chain := s.chain(t, "www.example.com")
	p := proxy(t, func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		tls.Server(c, &tls.Config{NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{{Certificate: [][]byte{chain[0].Raw, chain[1].Raw}, PrivateKey: s.key}}}).Handshake()
	})
	r, err := reachThrough(t, p, 10*time.Second)
	if err != nil || r.Status != 200 || r.ALPN != "http/1.1" || r.TLS != "1.3" || r.Step != "" || len(r.Chain) != 2 || !r.Chain[0].Equal(chain[0]) {
		t.Errorf("%+v %v", r, err)
	}
}

func FuzzReasonOf(f *testing.F) {
	f.Add(`exitgate; error=x; details="a \"b\""`, []byte(`{"detail":"x"}`))
	f.Add(`details="\`, []byte("\n"))
	f.Fuzz(func(t *testing.T, status string, body []byte) {
		if s := reasonOf(&http.Response{Status: "403", Header: http.Header{"Proxy-Status": {status}}}, body); len(s) > 410 || s == "" {
			t.Errorf("%q", s)
		}
	})
}

// enrolled is a listener that serves view, and the enrolment of a host with it.
func enrolled(t *testing.T, h http.Handler) (machine, Enrolment) {
	t.Helper()
	root := newSigner(t, "identity root")
	sign := func(c *x509.Certificate) tls.Certificate {
		made := root.sign(t, c)
		return tls.Certificate{Certificate: [][]byte{made.Raw}, PrivateKey: root.key}
	}
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, Certificates: []tls.Certificate{sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "gate"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})}}
	server.StartTLS()
	t.Cleanup(server.Close)
	pair := sign(&x509.Certificate{Subject: pkix.Name{CommonName: "web-01"}})
	m := machine{Host{Now: noon}.complete()}
	return m, Enrolment{Gateway: server.URL, Name: "web-01", pair: &pair, root: root.cert}
}

func serve(status int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/enroll/v1/view" {
			w.WriteHeader(status)
			io.WriteString(w, body)
			return
		}
		http.NotFound(w, r)
	})
}

func TestAsk(t *testing.T) {
	view := `{"host":"web-01","class":"app","action":"allow","time":"2026-06-01T12:00:07Z"}`
	m, e := enrolled(t, serve(200, view))
	g, err := m.ask(t.Context(), e, "https://www.example.com/?a=b&c")
	if err != nil || g.Host != "web-01" || g.Action != "allow" || g.Clock == nil || g.Clock.Offset != 7*time.Second || g.Clock.Skewed {
		t.Errorf("%+v %v", g, err)
	}
	// A host whose clock is years off still learns so, from the gateway that it knows.
	m.Now = func() time.Time { return noon().AddDate(-3, 0, 0) }
	if g, err = m.ask(t.Context(), e, "https://www.example.com/"); err != nil || g.Clock == nil || !g.Clock.Skewed || g.Clock.Offset < 24*365*2*time.Hour {
		t.Errorf("%+v %v", g.Clock, err)
	}
}

func TestAskFailures(t *testing.T) {
	for name, tc := range map[string]struct {
		h     http.Handler
		spoil func(t *testing.T, e *Enrolment)
		kind  Kind
		text  string
	}{
		"refused":  {serve(403, `{"detail":"host web-01 is disabled"}`), nil, KindAnswered, "host web-01 is disabled"},
		"garbage":  {serve(200, `<html>`), nil, KindOther, "cannot be read"},
		"redirect": {http.RedirectHandler("https://elsewhere.example.test/", http.StatusFound), nil, KindAnswered, ""},
		"impostor": {serve(200, `{}`), func(t *testing.T, e *Enrolment) { e.root = newSigner(t, "another").cert }, KindImpostor, "not under the identity root"},
		"down":     {serve(200, `{}`), func(t *testing.T, e *Enrolment) { e.Gateway = "https://127.0.0.1:1" }, KindRefused, ""},
		"no key": {serve(200, `{}`), func(t *testing.T, e *Enrolment) {
			e.pair = nil
			e.Identity.Problem = &Problem{KindPermission, "root's"}
		}, KindPermission, "root's"},
		"no URL":     {serve(200, `{}`), func(t *testing.T, e *Enrolment) { e.Gateway = "https://" }, KindDamaged, ""},
		"plain":      {serve(200, `{}`), func(t *testing.T, e *Enrolment) { e.Gateway = plainServer(t) }, KindNotTLS, "does not speak TLS"},
		"wrong name": {serve(200, `{}`), func(t *testing.T, e *Enrolment) { e.Gateway = strings.Replace(e.Gateway, "127.0.0.1", "localhost", 1) }, KindImpostor, "another name"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			m, e := enrolled(t, tc.h)
			if tc.spoil != nil {
				tc.spoil(t, &e)
			}
			_, err := m.ask(t.Context(), e, "https://www.example.com/")
			if p := problem(err); p == nil || p.Kind != tc.kind || !strings.Contains(p.Text, tc.text) {
				t.Errorf("%+v", p)
			}
		})
	}
}

func plainServer(t *testing.T) string {
	s := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	return strings.Replace(s.URL, "http://", "https://", 1)
}

// TestEnrolment reads states that are whole, in part, and damaged.
func TestEnrolment(t *testing.T) {
	dir := t.TempDir()
	m := machine{Host{Config: filepath.Join(dir, "host.json"), State: dir, Now: noon}.complete()}
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(what string, kind, identity Kind) {
		t.Helper()
		e, err := m.enrolment(t.Context())
		got := func(p *Problem) Kind {
			if p == nil {
				return ""
			}
			return p.Kind
		}
		if got(problem(err)) != kind || got(e.Identity.Problem) != identity {
			t.Errorf("%s: %v, %+v", what, err, e.Identity.Problem)
		}
	}
	expect("nothing", KindMissing, "")
	write("host.json", "{")
	expect("cut off", KindDamaged, "")
	write("host.json", `{"gateway":"ftp://x"}`)
	expect("no gateway", KindDamaged, "")
	write("host.json", strings.Repeat(" ", maxFile+1))
	expect("huge", KindDamaged, "")
	state, _ := json.Marshal(map[string]any{"gateway": "https://gate.example.test:3130", "name": "web-01", "class": "app", "mode": "proxy"})
	write("host.json", string(state))
	expect("no identity", "", KindMissing)
	write("identity.crt", "nothing")
	expect("no certificate", "", KindDamaged)
}

func TestHostsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(file, []byte("# www.example.com\n127.0.0.1 localhost\n10.0.0.9\tapi WWW.example.com. # x\n::1 www.example.company\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := inHostsFile(file, "www.example.com"); !slices.Equal(got, []string{file + ":3"}) {
		t.Error(got)
	}
}

func TestRouteHere(t *testing.T) {
	m := machine{Host{}.complete()}
	r, err := m.route(t.Context(), netip.MustParseAddr("127.0.0.1"))
	if err != nil || r.Interface != "lo" || r.Source != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("%+v %v", r, err)
	}
	if r, err := m.route(t.Context(), netip.MustParseAddr("::1")); err != nil || r.Interface != "lo" {
		t.Errorf("%+v %v", r, err)
	}
}

func FuzzReadRoute(f *testing.F) {
	f.Add(routeQuestion(netip.MustParseAddr("192.0.2.1")))
	f.Add(bytes.Repeat([]byte{16, 0, 0, 0}, 8))
	f.Fuzz(func(t *testing.T, b []byte) { readRoute(netip.MustParseAddr("192.0.2.1"), b) })
}

func TestChooseProxy(t *testing.T) {
	e := Enrolment{Mode: "proxy", HTTP: "http://gate.example.test:3128", HTTPS: "http://gate.example.test:3128", NoProxy: []string{"localhost", "10.0.0.0/8", ".internal.example.test"}}
	for _, tc := range []struct {
		env, url, want string
	}{
		{"", "https://www.example.com/", "http://gate.example.test:3128 from host.json unset"},
		{"SUDO_USER=me", "https://www.example.com/", "http://gate.example.test:3128 from host.json"},
		{"https_proxy=gate.example.test:3128", "https://www.example.com/", "gate.example.test:3128 from https_proxy"},
		{"HTTPS_PROXY=http://gate.example.test:3128/", "https://www.example.com/", "http://gate.example.test:3128/ from HTTPS_PROXY"},
		{"HTTPS_PROXY=http://a:1 https_proxy=http://b:1", "https://www.example.com/", "http://b:1 from https_proxy differs"},
		{"https_proxy=http://b:1", "http://www.example.com/", "http://gate.example.test:3128 from host.json unset"},
		{"ALL_PROXY=http://b:1", "http://www.example.com/", "http://b:1 from ALL_PROXY differs"},
		{"", "https://10.1.2.3/", " from host.json unset bypass 10.0.0.0/8"},
		{"", "https://a.internal.example.test/", " from host.json unset bypass .internal.example.test"},
		{"", "https://127.0.0.1/", " from host.json unset bypass (loopback)"},
	} {
		u, err := url.Parse(tc.url)
		if err != nil {
			t.Fatal(err)
		}
		c := chooseProxy(strings.Fields(tc.env), e, "host.json", u)
		got := fmt.Sprintf("%s from %s", c.URL, c.From)
		if c.Unset {
			got += " unset"
		}
		if c.Differs != "" {
			got += " differs"
		}
		if c.Bypass != "" {
			got += " bypass " + c.Bypass
		}
		if got != tc.want {
			t.Errorf("%s %s: %q, want %q", tc.env, tc.url, got, tc.want)
		}
	}
}
