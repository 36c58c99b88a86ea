package inspect

import (
	"bufio"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/exitgate/exitgate"
)

// TestCanonicalCarries shows what is carried, and that every byte of path and query goes on as it came.
func TestCanonicalCarries(t *testing.T) {
	for target, slash := range map[string]bool{
		"/":                               false,
		"/a/b/c.tar.gz":                   false,
		"/a/":                             false,
		"/a//b":                           false, // an empty segment is a segment: policy sees it
		"/a?":                             false,
		"/?":                              false,
		"/a??b":                           false,
		"/a?b=c&d=%2F..%2F":               false,
		"/a?next=/../x":                   false,
		"/a?q={\"x\":[1|2]}^`<>\\":        false,
		"/a;v=1/b;w=2":                    false,
		"/a;jsessionid=..":                false,
		"/@scope/name":                    false,
		"/%40scope%2fname":                true,
		"/%40scope%2Fname":                true,
		"/a%252Fb":                        true, // Jenkins writes branch names so
		"/job/feature%25252Fx":            true,
		"/100%25":                         false,
		"/100%25/a":                       false,
		"/%E2%82%AC/caf%C3%A9":            false,
		"/%7Euser":                        false,
		"/~user":                          false,
		"/a%20b":                          false,
		"/a%3Fb%23c%3Bd":                  false,
		"/.well-known/acme-challenge/x":   false,
		"/...":                            false,
		"/.../x":                          false,
		"/..a/.b/c..":                     false,
		"/a.../b":                         false,
		"/pages/[id].js":                  false,
		"/!$&'()*+,;=:@-._~":              false,
		"/a:b":                            false,
		"/http://b.example/x":             false,
		"/" + strings.Repeat("a%20", 400): false,
	} {
		req, x := visit{target: target}.request(t)
		if err := run(req, &Canonical{testRedactor}); err != nil {
			t.Errorf("%s: %v", target, err)
			continue
		}
		q := x.Flow.Question.HTTP
		path, query, _ := strings.Cut(target, "?")
		if got := req.URL.RequestURI(); got != target {
			t.Errorf("%s would go upstream as %s", target, got)
		}
		if q.Path != path || q.Query != query || q.URL != "https://a.example"+target || q.EncodedSlash != slash {
			t.Errorf("%s: %+v", target, q)
		}
	}
}

func TestCanonicalRefuses(t *testing.T) {
	for target, says := range map[string]string{
		"//a/company":         "two slashes",
		"//b.example/x":       "two slashes",
		"/a/../b":             "dot segment",
		"/..":                 "dot segment",
		"/.":                  "dot segment",
		"/a/.":                "dot segment",
		"/a/./b":              "dot segment",
		"/a/..":               "dot segment",
		"/../":                "dot segment",
		"/a/..;x/b":           "dot segment",
		"/a/..;/b":            "dot segment",
		"/a/.;/b":             "dot segment",
		"/a/..%3bx/b":         "dot segment",
		"/a/%2e%2e/b":         "encoded",
		"/a/%2E%2e/b":         "encoded",
		"/a/.%2e/b":           "encoded",
		"/a/%2e./b":           "encoded",
		"/a/%2e/b":            "encoded",
		"/a/%252e%252e/b":     "dot segment",
		"/a/%25252e%25252e/b": "dot segment",
		"/a/.%252e/b":         "dot segment",
		"/a/..%2fb":           "dot segment",
		"/a%2f../b":           "dot segment",
		"/a%2f..%2fb":         "dot segment",
		"/a%252f..%252fb":     "dot segment",
		"/a\\b":               "backslash",
		"/a/..\\b":            "backslash",
		"/a%5cb":              "backslash",
		"/a%5Cb":              "backslash",
		"/a%255cb":            "backslash",
		"/a%00":               "control",
		"/a%0d%0aX:y":         "control",
		"/a%09b":              "control",
		"/a%7f":               "control",
		"/a%2500":             "control",
		"/%61/company":        "encoded 'a'",
		"/%41":                "encoded 'A'",
		"/a%2Db":              "encoded '-'",
		"/a%5Fb":              "encoded '_'",
		"/a%2Etxt":            "encoded '.'",
		"/%30":                "encoded '0'",
		"/a%25%32%66b":        "encoded '2'",
		"/%c0%ae%c0%ae/":      "UTF-8",
		"/%c0%af":             "UTF-8",
		"/%e0%80%af":          "UTF-8",
		"/%ff":                "UTF-8",
		"/caf%e9":             "UTF-8",
		"/%ed%a0%80":          "UTF-8",
		"/a|b":                "0x7c",
		"/a{b}":               "0x7b",
		"/a\"b":               "0x22",
		"/a<b>":               "0x3c",
		"/a^b":                "0x5e",
		"/a`b":                "0x60",
		"/a?b=%":              "%",
		"/a?b=%2":             "%",
		"/a?b=%zz":            "%",
		"/a?b=%u0041":         "%",
		"http://a.example/":   "whole URL",
	} {
		req, x := visit{target: target}.request(t)
		wantRefusal(t, target, run(req, &Canonical{testRedactor}), 400, exitgate.RuleMalformed, says)
		if q := x.Flow.Question.HTTP; !strings.HasPrefix(q.URL, "https://a.example/") || q.Path == "" {
			t.Errorf("%s: the flow does not tell what was refused: %+v", target, q)
		}
	}
}

// TestCanonicalRawTarget covers what net/http's parser of HTTP/1 would not let through and HTTP/2's might.
func TestCanonicalRawTarget(t *testing.T) {
	for target, says := range map[string]string{
		"/a\xc3\xa9":         "0xc3",
		"/a?\xff":            "0xff",
		"/a#b":               "0x23",
		"/a?b#c":             "0x23",
		"/a b":               "0x20",
		"/a\x00":             "0x00",
		"/%zz":               "%",
		"/%":                 "%",
		"":                   "slash",
		"a":                  "whole URL",
		"*":                  "OPTIONS",
		"https://a.example/": "whole URL",
	} {
		req, x := visit{h2: true}.request(t)
		req.RequestURI, req.URL = target, &url.URL{Path: target}
		wantRefusal(t, target, run(req, &Canonical{testRedactor}), 400, exitgate.RuleMalformed, says)
		if strings.Contains(x.Flow.Question.HTTP.URL, "\xff") {
			t.Errorf("%q: bytes that are not UTF-8 got into the question", target)
		}
	}
	req, _ := visit{target: "/a"}.request(t)
	req.URL.Path = "/b" // whoever changed it
	wantRefusal(t, "another path", run(req, &Canonical{testRedactor}), 400, exitgate.RuleMalformed, "forwarded as")
}

func TestCanonicalMethods(t *testing.T) {
	for method, says := range map[string]string{
		"get": "capitals", "Get": "capitals", "GET!": "capitals", "TRACE": "TRACE", strings.Repeat("A", 33): "33",
	} {
		req, _ := visit{method: method}.request(t)
		wantRefusal(t, method, run(req, &Canonical{testRedactor}), 400, exitgate.RuleMalformed, says)
	}
	for _, method := range []string{"GET", "PROPFIND", "M-SEARCH", "VERSION-CONTROL", "RPC_IN_DATA", "QUERY"} {
		req, x := visit{method: method}.request(t)
		if err := run(req, &Canonical{testRedactor}); err != nil || x.Flow.Question.HTTP.Method != method {
			t.Errorf("%s: %v", method, err)
		}
	}
	req, _ := visit{}.request(t)
	req.Method = "CONNECT"
	wantRefusal(t, "CONNECT", run(req, &Canonical{testRedactor}), 400, exitgate.RuleMalformed, "inside a tunnel")
	req, x := visit{method: "OPTIONS", target: "*"}.request(t)
	if err := run(req, &Canonical{testRedactor}); err != nil || x.Flow.Question.HTTP.URL != "https://a.example" || x.Flow.Question.HTTP.Path != "*" || req.URL.RequestURI() != "*" {
		t.Errorf("OPTIONS *: %v %+v", err, x.Flow.Question.HTTP)
	}
}

func TestCanonicalPlaces(t *testing.T) {
	for name, c := range map[string]struct {
		v       visit
		url     string
		dest    string
		refused string
	}{
		"tunnel":              {visit{}, "https://a.example/", "a.example:443", ""},
		"upper case":          {visit{host: "A.Example"}, "https://a.example/", "a.example:443", ""},
		"default port":        {visit{host: "a.example:443"}, "https://a.example/", "a.example:443", ""},
		"other port":          {visit{host: "a.example:8443", dest: "a.example:8443"}, "https://a.example:8443/", "a.example:8443", ""},
		"ipv6":                {visit{host: "[2001:DB8:0::1]", dest: "[2001:db8::1]:443"}, "https://[2001:db8::1]/", "[2001:db8::1]:443", ""},
		"plain in tunnel":     {visit{scheme: "http", dest: "a.example:80"}, "http://a.example/", "a.example:80", ""},
		"absolute":            {visit{scheme: "http", dest: "-", target: "http://A.example:80/x?y"}, "http://a.example/x?y", "a.example:80", ""},
		"absolute no path":    {visit{scheme: "http", dest: "-", target: "http://a.example"}, "http://a.example/", "a.example:80", ""},
		"absolute only query": {visit{scheme: "http", dest: "-", target: "http://a.example:8080?x", host: "a.example:8080"}, "http://a.example:8080/?x", "a.example:8080", ""},
		"absolute and dots":   {visit{scheme: "http", dest: "-", target: "http://a.example/../x"}, "", "", "dot segment"},
		"absolute dot host":   {visit{scheme: "http", dest: "-", target: "http://a.example./x"}, "", "", "dot"},
		"absolute over TLS":   {visit{dest: "-", target: "http://a.example/x"}, "", "", "http URL in a connection"},
		"path to the proxy":   {visit{scheme: "http", dest: "-"}, "", "", "proxy itself"},
		"h2 to the proxy":     {visit{scheme: "http", dest: "-", h2: true}, "http://a.example/", "a.example:80", ""},
		"transparent":         {visit{way: exitgate.WayTransparent, scheme: "http", dest: "-"}, "http://a.example/", "a.example:80", ""},
		"transparent, url":    {visit{way: exitgate.WayTransparent, scheme: "http", dest: "-", target: "http://a.example/"}, "", "", "whole URL"},
		"trailing dot":        {visit{host: "a.example."}, "", "", "dot"},
		"octal":               {visit{host: "010.0.0.1"}, "", "", "number"},
	} {
		req, x := c.v.request(t)
		err := run(req, &Canonical{testRedactor})
		if c.refused != "" {
			wantRefusal(t, name, err, 400, exitgate.RuleMalformed, c.refused)
			continue
		}
		q := x.Flow.Question
		if err != nil || q.HTTP.URL != c.url || q.Dest.String() != c.dest || req.URL.Scheme+"://"+req.URL.Host+req.URL.RequestURI() != c.url {
			t.Errorf("%s: %v, %s %s, upstream %s %s", name, err, q.HTTP.URL, q.Dest, req.URL.Host, req.URL.RequestURI())
		}
	}
	req, x := visit{way: exitgate.WayTransparent, scheme: "http", dest: "-"}.request(t)
	x.Flow.Question.Dest.Port = 8080 // where the host aimed
	if err := run(req, &Canonical{testRedactor}); err != nil || x.Flow.Question.Dest.Port != 8080 {
		t.Errorf("%v %v", err, x.Flow.Question.Dest)
	}
	wantRefusal(t, "aimed elsewhere than Host says", run(req, Authority{}), 403, exitgate.RuleAuthority, "8080")
}

func TestCanonicalUpgrade(t *testing.T) {
	for name, c := range map[string]struct {
		fields http.Header
		want   string
		says   string
	}{
		"websocket":         {http.Header{"Upgrade": {"WebSocket"}, "Connection": {"keep-alive, Upgrade"}}, "websocket", ""},
		"not in Connection": {http.Header{"Upgrade": {"websocket"}}, "", ""},
		"h2c":               {http.Header{"Upgrade": {"h2c"}, "Connection": {"Upgrade, HTTP2-Settings"}, "Http2-Settings": {"AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA"}}, "", ""},
		"list with h2c":     {http.Header{"Upgrade": {"websocket, h2c"}, "Connection": {"upgrade"}}, "", "more than one"},
		"list":              {http.Header{"Upgrade": {"websocket, foo"}, "Connection": {"upgrade"}}, "", "more than one"},
		"two":               {http.Header{"Upgrade": {"websocket", "foo"}, "Connection": {"upgrade"}}, "", "more than one"},
	} {
		req, x := visit{fields: c.fields}.request(t)
		err := run(req, &Canonical{testRedactor})
		if c.says != "" {
			wantRefusal(t, name, err, 400, exitgate.RuleMalformed, c.says)
		} else if err != nil || x.Flow.Question.HTTP.Upgrade != c.want {
			t.Errorf("%s: %v %q", name, err, x.Flow.Question.HTTP.Upgrade)
		}
	}
}

// FuzzCanonical holds three promises for every target that passes: it goes upstream byte for byte, no decoding of it
// has a dot segment, and what is refused leaves the question storable.
func FuzzCanonical(f *testing.F) {
	for _, s := range []string{"/", "/a/../b", "/a/%2e%2e/b", "/%40s%2fn?token=x&a=b", "/a%252f..%252fb", "//x", "/a;..;/b", "/\xff", "*", "http://h/..", "/a?%41=b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		req, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: a.example\r\n\r\n")))
		if err != nil || req.RequestURI != target {
			return
		}
		base, x := visit{}.request(t)
		req = req.WithContext(base.Context())
		if err := run(req, &Canonical{testRedactor}); err != nil {
			return
		}
		if got := req.URL.RequestURI(); got != target {
			t.Fatalf("%q would go upstream as %q", target, got)
		}
		p := x.Flow.Question.HTTP.Path
		for range 5 {
			for seg := range strings.SplitSeq(strings.ReplaceAll(p, "\\", "/"), "/") {
				if seg, _, _ = strings.Cut(seg, ";"); seg == "." || seg == ".." {
					t.Fatalf("%q: the segment %q got through", target, seg)
				}
			}
			q, err := url.PathUnescape(p)
			if err != nil {
				return
			}
			p = q
		}
	})
}
