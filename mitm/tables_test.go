package mitm

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/exitgate/exitgate"
)

func TestParseAuthority(t *testing.T) {
	for s, want := range map[string]string{
		"www.example.com:443": "www.example.com:443", "WWW.Example.COM:443": "www.example.com:443", "a:1": "a:1", "a_b.example.com:65535": "a_b.example.com:65535",
		"192.0.2.1:80": "192.0.2.1:80", "[2001:db8::1]:443": "[2001:db8::1]:443", "[2001:DB8:0::1]:443": "[2001:db8::1]:443", "[::ffff:192.0.2.1]:443": "192.0.2.1:443",
		"1e100.example:443": "1e100.example:443", "0x.example:443": "0x.example:443", "0xg:1": "0xg:1",
		"": "", ":": "", "a": "", "a:": "", ":443": "", "a:0": "", "a:00443": "", "a:65536": "", "a:+1": "", "a:-1": "", "a: 1": "", "a:1 ": "", "a:1:1": "", "a:0x50": "",
		"a.:443": "", ".a:443": "", "a..b:443": "", "-a:443": "", "a-:443": "", "a-.b:443": "", "a b:443": "", "a/b:443": "", "a@b:443": "", "a%00:443": "", "\u00e4:443": "",
		"1.2.3:443": "", "1.2.3.4.5:443": "", "256.1.1.1:443": "", "01.2.3.4:443": "", "127.1:443": "", "2130706433:443": "", "0x7f000001:443": "", "0x7f.1:443": "", "a.0x1:443": "", "0x:443": "",
		"::1:443": "", "[::1:443": "", "::1]:443": "", "[]:443": "", "[1.2.3.4]:443": "", "[::1%lo]:443": "", "[::1]443": "", "[a]:443": "",
		strings.Repeat("a", 63) + ":443": strings.Repeat("a", 63) + ":443", strings.Repeat("a", 64) + ":443": "", strings.Repeat("a.", 127) + "a:443": "",
	} {
		d, err := parseAuthority(s)
		if got := d.String(); (err != nil) != (want == "") || err == nil && got != want || err != nil && d != (exitgate.Destination{}) {
			t.Errorf("%q: %s %v, want %q", s, got, err, want)
		}
	}
}

// FuzzParseAuthority: what is read once is read again as itself, and is never of the shapes that resolvers read in two ways.
func FuzzParseAuthority(f *testing.F) {
	for _, s := range []string{"www.example.com:443", "[2001:db8::1]:443", "127.1:443", "0x7f.1:80", "a_-b.c:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := parseAuthority(s)
		if err != nil {
			return
		}
		again, err := parseAuthority(d.String())
		if err != nil || again != d {
			t.Errorf("%q is %s, which is %s %v", s, d, again, err)
		}
		_, isIP := d.IP()
		if last := d.Host[strings.LastIndexByte(d.Host, '.')+1:]; !isIP && (last == "" || last[0] >= '0' && last[0] <= '9' && strings.Trim(last, "0123456789") == "") {
			t.Errorf("%q is %s, which ends in a number", s, d)
		}
	})
}

func TestGuard(t *testing.T) {
	for addr, ok := range map[string]bool{
		"93.184.216.34:443": true, "[2606:2800:220:1::1]:443": true, "100.63.255.255:1": true, "100.128.0.1:1": true, "172.15.0.1:1": true, "172.32.0.1:1": true, "11.0.0.1:1": true,
		"93.184.216.34:0": false, "0.0.0.0:80": false, "0.1.2.3:80": false, "127.0.0.1:80": false, "127.255.255.254:80": false, "10.1.2.3:80": false, "172.16.0.1:80": false, "172.31.255.255:80": false,
		"192.168.1.1:80": false, "100.64.0.1:80": false, "100.127.255.255:80": false, "169.254.169.254:80": false, "192.0.0.8:80": false, "198.18.0.1:80": false, "224.0.0.1:80": false,
		"239.255.255.250:80": false, "240.0.0.1:80": false, "255.255.255.255:80": false,
		"[::]:80": false, "[::1]:80": false, "[fc00::1]:80": false, "[fd00:ec2::254]:80": false, "[fe80::1]:80": false, "[fec0::1]:80": false, "[ff02::1]:80": false, "[100::1]:80": false,
		"[::ffff:127.0.0.1]:80": false, "[::ffff:169.254.169.254]:80": false, "[::127.0.0.1]:80": false, "[64:ff9b::10.0.0.1]:80": false, "[64:ff9b:1::10.0.0.1]:80": false,
		"[2002:7f00:1::]:80": false, "[2002:a9fe:a9fe::1]:80": false, "[2001:0:5ef5:79fd:0:0:80ff:fffe]:80": false, "[2001:0:7f00:1::]:80": false,
		"[2606:2800::5efe:10.0.0.1]:80": false, "[2606:2800::200:5efe:169.254.169.254]:80": false,
		"[64:ff9b::93.184.216.34]:80": true, "[2002:5db8:d822::1]:80": true, "[2606:2800::5efe:93.184.216.34]:80": true,
	} {
		if err := new(Guard).Check(netip.MustParseAddrPort(addr)); (err == nil) != ok {
			t.Errorf("%s: %v", addr, err)
		}
	}
	g := &Guard{Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8")}}
	g.addListener(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 3128})
	g.addListener(&net.TCPAddr{IP: net.IPv6unspecified, Port: 3129})
	for addr, ok := range map[string]bool{"10.1.2.3:80": true, "[::ffff:10.1.2.3]:80": true, "192.168.0.1:80": false, "127.0.0.1:80": true, "127.0.0.1:3128": false,
		"[::ffff:127.0.0.1]:3128": false, "127.0.0.2:3128": true, "127.0.0.1:3129": false, "127.9.9.9:3129": false} {
		if err := g.Check(netip.MustParseAddrPort(addr)); (err == nil) != ok {
			t.Errorf("%s with exceptions: %v", addr, err)
		}
	}
}

// TestShellWord gives each word to a real shell, which must see it as it was.
func TestShellWord(t *testing.T) {
	words := []string{"", "plain", "a b", "it's", "''", "$(id)", "`id`", "$HOME", "a\nb", "a\tb", `\`, `\\n`, `"`, "*", "?", "[a]", "{a,b}", "~", "!x", "#x", "a;b", "a&b", "a|b", "a>b", "<a", "(a)", "-n", "--", "=", "%s", "\u202e", "\x1b[2J", "a'\"'\"'b"}
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = shellWord(w)
	}
	out, err := exec.Command("/bin/sh", "-c", "printf '%s\\0' "+strings.Join(quoted, " ")).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"); strings.Join(got, "\x00") != strings.Join(words, "\x00") {
		t.Errorf("the shell saw %q", got)
	}
}

// TestClientTLSReason reads how real clients leave a handshake that they do not like.
func TestClientTLSReason(t *testing.T) {
	remote := func(alert uint8) error { return &net.OpError{Op: "remote error", Err: tls.AlertError(alert)} }
	plain := func(alert byte) []byte { return []byte{0x15, 3, 3, 0, 2, 2, alert} }
	for _, c := range []struct {
		client string
		err    error
		last   []byte
		want   string
	}{
		{"Go", remote(42), nil, "bad certificate"},
		{"Java 17", remote(46), nil, "unknown certificate"},
		{"gnutls-cli", remote(42), plain(42), "alert 42 (bad certificate)"},
		{"curl on TLS 1.2", remote(48), plain(48), "alert 48 (unknown CA"},
		{"curl on TLS 1.3", &net.OpError{Op: "local error", Err: errors.New("tls: bad record MAC")}, append(make([]byte, 9), plain(48)...), "alert 48 (unknown CA"},
		{"Node 20", io.EOF, []byte{1, 2, 3}, "closed in the middle"},
		{"reset", &net.OpError{Op: "read", Err: net.ErrClosed}, nil, "closed in the middle"},
		{"silence", os.ErrDeadlineExceeded, nil, "did not finish in time"},
		{"an alert that nobody knows", io.EOF, plain(99), "alert 99 (see RFC 8446"},
		{"bytes that only end like an alert", io.EOF, []byte{0x16, 3, 3, 0, 2, 2, 48}, "closed in the middle"},
		{"another failure", errors.New("tls: no supported versions"), nil, "no supported versions"},
	} {
		if got := clientTLSReason(c.err, c.last); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.client, got, c.want)
		}
	}
}

func TestHosts(t *testing.T) {
	prefixes := func(s ...string) (out []netip.Prefix) {
		for _, p := range s {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	h := &Hosts{}
	if got, _ := h.ByAddress(netip.MustParseAddr("10.0.0.1")); got.Class != exitgate.ClassUnknown {
		t.Errorf("before Set: %+v", got)
	}
	list := []RegisteredHost{
		{Name: "all", Class: "guest", Addresses: prefixes("0.0.0.0/0")},
		{Name: "net", Class: "app", Addresses: prefixes("10.0.0.0/8", "2001:db8::/32")},
		{Name: "subnet", Class: "build", Addresses: prefixes("10.1.0.0/16", "10.2.0.9/16")},
		{Name: "one", Class: "db", Addresses: prefixes("10.1.2.3/32", "2001:db8::1/128"), Token: sha256.Sum256([]byte("t1"))},
	}
	if err := h.Set(list); err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]string{"10.1.2.3": "one", "10.1.2.4": "subnet", "10.2.3.4": "subnet", "10.3.0.1": "net", "11.0.0.1": "all", "2001:db8::1": "one", "2001:db8::2": "net", "2001:db9::1": ""} {
		if got, _ := h.ByAddress(netip.MustParseAddr(addr)); got.Name != want {
			t.Errorf("%s is %q, want %q", addr, got.Name, want)
		}
	}
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for c, want := range map[string]bool{"Bearer t1": true, "bearer t1": true, "BEARER  t1": true, "Basic " + b64("one:t1"): true, "basic " + b64(":t1"): true,
		"": false, "Bearer": false, "Bearer ": false, "Bearer t2": false, "Bearer t1 ": true, "t1": false, "Basic t1": false, "Basic " + b64("one"): false, "Basic " + b64("one:"): false,
		"Basic " + b64("net:t1"): false, "Basic " + b64("one:t1:"): false, "Digest t1": false} {
		if _, err := h.ByToken(netip.MustParseAddr("192.0.2.1"), c); (err == nil) != want {
			t.Errorf("%q: %v", c, err)
		}
	}
	for what, bad := range map[string]RegisteredHost{"name": {Name: "one"}, "prefix": {Name: "x", Addresses: prefixes("10.0.0.0/8")}, "prefix not masked": {Name: "x", Addresses: prefixes("10.9.9.9/8")},
		"token": {Name: "x", Token: sha256.Sum256([]byte("t1"))}} {
		if err := h.Set(append(list[:4:4], bad)); err == nil {
			t.Errorf("two hosts with one %s were accepted", what)
		}
	}
	if got, _ := h.ByAddress(netip.MustParseAddr("10.1.2.3")); got.Name != "one" {
		t.Errorf("a list that was not accepted replaced the old one: %+v", got)
	}
}

func TestNoProxy(t *testing.T) {
	p := &Proxy{Upstream: Upstream{Proxy: &url.URL{Scheme: "http", Host: "parent.example.com:3128"},
		NoProxy: []string{"direct.example.com", ".Inner.example.com", "10.0.0.0/8", "2001:db8::/32", "192.0.2.7"}}}
	for host, direct := range map[string]bool{"www.example.com": false, "direct.example.com": true, "a.direct.example.com": false, "xdirect.example.com": false, "inner.example.com": false,
		"a.inner.example.com": true, "a.b.inner.example.com": true, "ainner.example.com": false, "10.1.2.3": true, "11.1.2.3": false, "2001:db8::1": true, "2001:db9::1": false, "192.0.2.7": true} {
		if got := p.parentFor(host) == nil; got != direct {
			t.Errorf("%s direct: %v", host, got)
		}
	}
	p.Upstream.NoProxy = []string{"*"}
	if p.parentFor("www.example.com") != nil {
		t.Error("* does not mean every host")
	}
}

func TestQuota(t *testing.T) {
	q := &quota{bound: 10}
	if a, b, c := q.take(4), q.take(100), q.take(1); a != 4 || b != 6 || c != 0 || !q.over.Load() {
		t.Errorf("took %d, %d, %d of 10; over %v", a, b, c, q.over.Load())
	}
	q = &quota{bound: 10}
	n, full, _ := q.fill(100, func(room int64) (int64, error) { return room - 3, nil })
	if n != 7 || full || q.over.Load() {
		t.Errorf("filled %d of a room of 10, full %v", n, full)
	}
	if n, _, _ = q.fill(100, func(room int64) (int64, error) { return room, nil }); n != 3 {
		t.Errorf("filled %d of the 3 that were left", n)
	}
	if _, full, _ = q.fill(1, func(int64) (int64, error) { t.Error("asked for more"); return 0, nil }); !full || q.over.Load() {
		t.Errorf("full %v; over %v before a byte was refused", full, q.over.Load())
	}
	q = &quota{}
	if n := q.take(1 << 40); n != 1<<40 || q.over.Load() {
		t.Errorf("without a bound: %d", n)
	}
}

// TestProxyStatus holds the field to RFC 9209 and RFC 8941: visible ASCII, quotes and backslashes escaped, bounded.
func TestProxyStatus(t *testing.T) {
	p := &Proxy{Gateway: "exitgate"}
	s := p.proxyStatus(notice{ErrorType: "http_request_denied", Rule: `deny:"x"`, Detail: "a\"b\\c\r\nSet-Cookie: d\x1b[2J\u202e" + strings.Repeat("e", 5000), Flow: "f"})
	if len(s) > 700 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) || !strings.Contains(s, `deny:\"x\": a\"b\\c??Set-Cookie`) {
		t.Errorf("%s", s)
	}
}
