package inspect

import (
	"net/http"
	"testing"

	"github.com/exitgate/exitgate"
)

func TestAuthority(t *testing.T) {
	for name, c := range map[string]struct {
		v    visit
		says string // "": agrees
	}{
		"all the same":               {visit{}, ""},
		"case":                       {visit{connect: "A.example:443", sni: "a.EXAMPLE", host: "a.Example"}, ""},
		"explicit default port":      {visit{host: "a.example:443"}, ""},
		"other port everywhere":      {visit{dest: "a.example:8443", host: "a.example:8443"}, ""},
		"no SNI, names agree":        {visit{sni: "-"}, ""},
		"no SNI, address":            {visit{sni: "-", dest: "192.0.2.7:443", host: "192.0.2.7"}, ""},
		"no SNI, ipv6":               {visit{sni: "-", dest: "[2001:db8::1]:443", connect: "[2001:DB8::1]:443", host: "[2001:db8:0::1]"}, ""},
		"transparent TLS":            {visit{way: exitgate.WayTransparent, connect: "-"}, ""},
		"absolute":                   {visit{scheme: "http", dest: "-", target: "http://a.example/"}, ""},
		"other host":                 {visit{host: "b.example"}, "b.example"},
		"host below":                 {visit{host: "x.a.example"}, "x.a.example"},
		"other port":                 {visit{host: "a.example:444"}, "444"},
		"port missing":               {visit{dest: "a.example:8443"}, "8443"},
		"port 80 in TLS":             {visit{host: "a.example:80"}, "80"},
		"other SNI":                  {visit{sni: "b.example"}, "TLS server name"},
		"SNI for an address":         {visit{dest: "192.0.2.7:443", sni: "a.example", host: "192.0.2.7"}, "TLS server name"},
		"name for an address":        {visit{dest: "192.0.2.7:443", sni: "-", host: "a.example"}, "connection is for 192.0.2.7"},
		"other CONNECT":              {visit{connect: "b.example:443"}, "CONNECT"},
		"other CONNECT port":         {visit{connect: "a.example:444"}, "CONNECT"},
		"broken CONNECT":             {visit{connect: "a.example"}, "CONNECT"},
		"no SNI, other host":         {visit{sni: "-", host: "b.example"}, "b.example"},
		"transparent, other host":    {visit{way: exitgate.WayTransparent, connect: "-", host: "b.example"}, "b.example"},
		"mapped address":             {visit{sni: "-", dest: "192.0.2.7:443", host: "[::ffff:192.0.2.7]"}, "ffff"},
		"connect by mapped, host v4": {visit{sni: "-", dest: "192.0.2.7:443", connect: "[::ffff:192.0.2.7]:443", host: "192.0.2.7"}, "CONNECT"},
	} {
		for _, h2 := range []bool{false, true} {
			v, status := c.v, 403
			if v.h2 = h2; h2 {
				status = 421
				if v.target != "" {
					continue
				}
			}
			req, x := v.request(t)
			err := run(req, &Canonical{testRedactor}, Authority{})
			if c.says != "" {
				wantRefusal(t, name, err, status, exitgate.RuleAuthority, c.says)
				continue
			}
			if err != nil || x.Flow.Authority.Host != or(v.host, "a.example") || req.Host != req.URL.Host {
				t.Errorf("%s: %v, host as sent %q, upstream %q %q", name, err, x.Flow.Authority.Host, req.Host, req.URL.Host)
			}
		}
	}
}

// TestAuthorityHostField shows that a Host field beside :authority, which net/http's HTTP/2 server leaves in the
// header, must say the same and does not go on.
func TestAuthorityHostField(t *testing.T) {
	req, _ := visit{h2: true}.request(t)
	req.Header["Host"] = []string{"b.example"}
	wantRefusal(t, "other", run(req, &Canonical{testRedactor}, Authority{}), 421, exitgate.RuleAuthority, "b.example")
	req, _ = visit{h2: true}.request(t)
	req.Header["Host"] = []string{"a.example", "b.example"}
	wantRefusal(t, "two", run(req, &Canonical{testRedactor}, Authority{}), 421, exitgate.RuleAuthority, "b.example")
	req, x := visit{h2: true}.request(t)
	req.Header["Host"] = []string{"a.example"}
	if err := run(req, front()...); err != nil || req.Header["Host"] != nil || x.Flow.Question.HTTP.Headers["host"] != nil {
		t.Errorf("%v %v", err, req.Header)
	}
}

func TestLoop(t *testing.T) {
	for via, loop := range map[string]bool{
		"1.1 gate1":                    true,
		"1.0 fred, 1.1 GATE1 (x)":      true,
		"HTTP/1.1 gate1, 2.0 other":    true,
		"1.1  gate1":                   true,
		"1.1 gate12":                   false,
		"1.1 other (gate1)":            false,
		"1.1":                          false,
		"":                             false,
		"1.1 other, 1.1 p.example.com": false,
	} {
		req, _ := visit{fields: http.Header{"Via": {"1.1 first", via}}}.request(t)
		err := run(req, &Loop{"gate1"})
		if loop {
			wantRefusal(t, via, err, 508, exitgate.RuleLoop, "gate1")
		} else if err != nil {
			t.Errorf("%q: %v", via, err)
		}
	}
	req, _ := visit{fields: http.Header{"Via": {"1.0 a"}}, h2: true}.request(t)
	if err := run(req, &Via{"gate1"}); err != nil || len(req.Header["Via"]) != 2 || req.Header["Via"][1] != "2.0 gate1" {
		t.Errorf("%v %v", err, req.Header["Via"])
	}
	wantRefusal(t, "its own", run(req, &Loop{"gate1"}), 508, exitgate.RuleLoop, "gate1")
}
