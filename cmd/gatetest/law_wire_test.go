package gatetest

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/exitgate/exitgate"
)

// TestWhatWasJudgedIsSent is law 5: path, query and header fields reach the upstream byte for byte as the Question held
// them, from HTTP/1.1 and from HTTP/2.
func TestWhatWasJudgedIsSent(t *testing.T) {
	targets := []string{"/", "/a/company", "/a//company", "/a/", "/a/company?", "/?", "/?a", "/?a=b&a=c&=&&", "/a?b?c", "/a;b=c/d;e", "/a%20b", "/a%2Fb", "/a%2fb",
		"/~me", "/%7Eme", "/a+b?c+d", "/a/...", "/.well-known/x", "/..a/b..", "/a:b@c!d$e&f'g(h)i*j,k=l", "/[x]", "/caf%C3%A9", "/%E2%98%83?%E2%98%83",
		"/a?x=%2e%2e%2f&y=../..", "/a?q={\"k\":[1|2]}^`", "/a?u=https://www.example.org/?x", "/" + strings.Repeat("long/", 600)}
	fields := []string{"x-one", "1", "x-empty", "", "x-two", "a, b", "x-two", "c", "x-quote", `"a\"b" ; c='d'`, "x-utf", "caf\u00e9 \u2603", "accept", "*/*", "x-tab", "a\tb",
		"x-long", strings.Repeat("v", 8000), "referer", "https://www.example.com/from"}
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("h2=%v", h2), func(t *testing.T) {
			g := New(t)
			o := wire(g, www, true, nil)
			for i, target := range targets {
				a := 0
				if h2 {
					a = askH2Fields(t, g, target, fields)
				} else {
					a = askH1Fields(t, g, target, fields)
				}
				if a != 200 {
					t.Errorf("%s: status %d", target, a)
				}
				f := g.Recorder.Last(i + 1)
				if q := f.Question.HTTP; q == nil || q.Path+map[bool]string{true: "?"}[strings.Contains(target, "?")]+q.Query != target ||
					q.URL != "https://"+www+target {
					t.Errorf("judged %+v, asked for %s", q, target)
				}
				sameFields(t, f.Question.HTTP.Headers, fields)
			}
			_, got, reqs := o.seen()
			for i, target := range targets {
				if i >= len(reqs) || reqs[i] != "GET "+target {
					t.Fatalf("the upstream got %q for %q", reqs, target)
				}
			}
			if n := strings.Count(got, "\r\nHost: "+www+"\r\n"); n != len(targets) {
				t.Errorf("%d Host fields for %d requests", n, len(targets))
			}
			for i := 0; i < len(fields); i += 2 {
				line := "\r\n" + http.CanonicalHeaderKey(fields[i]) + ": " + fields[i+1] + "\r\n"
				if n := strings.Count(got, line); n != len(targets) {
					t.Errorf("%d times %q for %d requests", n, line, len(targets))
				}
			}
		})
	}
}

func askH1Fields(t *testing.T, g *Gate, target string, fields []string) int {
	c := g.insideAs(www+":443", www)
	defer c.Close()
	s := "GET " + target + " HTTP/1.1\r\nHost: " + www + "\r\n"
	for i := 0; i < len(fields); i += 2 {
		s += fields[i] + ": " + fields[i+1] + "\r\n"
	}
	send(t, c, s+"\r\n")
	return receive(t, bufio.NewReader(c), "GET").status
}

func askH2Fields(t *testing.T, g *Gate, target string, fields []string) (status int) {
	c := g.insideAs(www+":443", www, "h2")
	defer c.Close()
	h := newRawH2(t, c)
	a := h.answer(h.headers(true, append([]string{":method", "GET", ":scheme", "https", ":authority", www, ":path", target}, fields...)...))
	fmt.Sscan(a.status, &status)
	return status
}

func sameFields(t *testing.T, judged map[string][]string, fields []string) {
	t.Helper()
	want := map[string][]string{}
	for i := 0; i < len(fields); i += 2 {
		want[fields[i]] = append(want[fields[i]], fields[i+1])
	}
	for k, v := range want {
		if !slices.Equal(judged[k], v) {
			t.Errorf("field %s: judged %q, sent %q", k, judged[k], v)
		}
	}
	if len(judged) != len(want) {
		t.Errorf("judged %d fields, sent %d: %v", len(judged), len(want), judged)
	}
}

// traps are targets that servers read in more than one way; each is refused, and says so (security.md, on paths).
var traps = []string{"//a/company", "//www.example.org/x", "/a/../b", "/a/..", "/..", "/.", "/a/./b", "/a/%2e%2e/b", "/a/%2E%2e/b", "/a/.%2e/b", "/%2e", "/a%2f..%2fb", "/a/..%2fb",
	"/a/%252e%252e/b", "/a/%25252e%25252e/b", "/a/..;/b", "/a/..;x=y/b", "/a/.;/b", "/a\\b", "/a%5cb", "/a%5Cb", "/..\\b", "/a%00b", "/a%0d%0ab", "/a%0ab", "/a%1bb", "/a%7fb", "/%61/company",
	"/a%2", "/a%", "/a%zz", "/a#b", "/a?b#c", "/a?b=%", "/a?b=%0", "/caf\u00e9", "/a?caf\u00e9", "/%ff", "/%c0%af", "/%c0%ae%c0%ae/b", "/a\x7fb", "/a\"b", "/a<b>", "/a|b", "/a^b", "/a`b", "/{a}",
	"a/company", "", "*", "?x", "http://www.example.com/", "https://www.example.com/", "/a b", "/a\tb", "/a?b c"}

func TestPathTraps(t *testing.T) {
	for _, trap := range traps {
		t.Run(trap, func(t *testing.T) {
			g := New(t)
			o, p := wire(g, www, true, nil), wire(g, www, false, nil)
			n := 0
			refusedWith := func(status int, what string) {
				t.Helper()
				if n++; status != 400 {
					t.Errorf("%s: status %d", what, status)
				}
				f := g.Recorder.Last(n)
				if f.Verdict.Rule != exitgate.RuleMalformed || f.Verdict.Reason == "" || f.Outcome() != exitgate.OutcomeRefused {
					t.Errorf("%s: flow: %s", what, describe(f))
				}
			}
			c := g.insideAs(www+":443", www)
			send(t, c, "GET "+trap+" HTTP/1.1\r\nHost: "+www+"\r\n\r\n")
			refusedWith(receive(t, bufio.NewReader(c), "GET").status, "HTTP/1.1")
			c.Close()
			if strings.HasPrefix(trap, "/") {
				c := g.Dial()
				send(t, c, "GET http://"+www+trap+" HTTP/1.1\r\nHost: "+www+"\r\n\r\n")
				refusedWith(receive(t, bufio.NewReader(c), "GET").status, "absolute form")
				c.Close()
			}
			c2 := g.insideAs(www+":443", www, "h2")
			h := newRawH2(t, c2)
			a := h.answer(h.headers(true, ":method", "GET", ":scheme", "https", ":authority", www, ":path", trap))
			c2.Close()
			status := 400
			if a.reset == nil {
				fmt.Sscan(a.status, &status)
			}
			refusedWith(status, "HTTP/2")
			o.untouched(t)
			p.untouched(t)
		})
	}
}

// smuggling are requests whose end two parsers would see in two places, or whose head they would read in two ways.
// Each is followed by a second request that must not reach the upstream.
var smuggling = map[string]string{
	"CL.TE":                      "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
	"TE.CL":                      "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n",
	"TE.TE":                      "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
	"TE twice":                   "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"TE list":                    "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
	"TE x":                       "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
	"TE vertical tab":            "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
	"TE quoted":                  "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
	"TE blank before colon":      "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
	"TE folded":                  "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
	"TE behind a bare LF":        "X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"TE behind a bare CR":        "X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"TE behind a NUL":            "X: y\x00Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"TE empty":                   "Transfer-Encoding:\r\n\r\n",
	"TE of underscores and CL":   "Content-Length: 5\r\nTransfer-Encoding : chunked\r\n\r\nabcde",
	"CL twice, unlike":           "Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
	"CL twice, alike":            "Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
	"CL list":                    "Content-Length: 5, 5\r\n\r\nabcde",
	"CL plus":                    "Content-Length: +5\r\n\r\nabcde",
	"CL minus":                   "Content-Length: -5\r\n\r\n",
	"CL hexadecimal":             "Content-Length: 0x5\r\n\r\nabcde",
	"CL leading zero":            "Content-Length: 05\r\n\r\nabcde",
	"CL blank inside":            "Content-Length: 1 0\r\n\r\nabcde",
	"CL empty":                   "Content-Length:\r\n\r\n",
	"CL overflow":                "Content-Length: 18446744073709551621\r\n\r\nabcde",
	"CL blank before colon":      "Content-Length : 5\r\n\r\nabcde",
	"field without name":         ": x\r\n\r\n",
	"field without colon":        "X\r\n\r\n",
	"field name with a blank":    "X Y: z\r\n\r\n",
	"field name not ASCII":       "X\u00e4: z\r\n\r\n",
	"obsolete folding":           "X: y\r\n z\r\n\r\n",
	"folding of the first field": " X: y\r\n\r\n",
	"bare CR in a value":         "X: y\rz\r\n\r\n",
	"bare LF at a line's end":    "X: y\n\r\n",
	"bare LF at the head's end":  "X: y\r\n\n",
	"NUL in a value":             "X: y\x00z\r\n\r\n",
	"DEL in a value":             "X: y\x7fz\r\n\r\n",
	"chunk size not hexadecimal": "Transfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n",
	"chunk size with 0x":         "Transfer-Encoding: chunked\r\n\r\n0x5\r\nabcde\r\n0\r\n\r\n",
	"chunk size with plus":       "Transfer-Encoding: chunked\r\n\r\n+5\r\nabcde\r\n0\r\n\r\n",
	"chunk size with minus":      "Transfer-Encoding: chunked\r\n\r\n-5\r\nabcde\r\n0\r\n\r\n",
	"chunk size behind a blank":  "Transfer-Encoding: chunked\r\n\r\n 5\r\nabcde\r\n0\r\n\r\n",
	"chunk size before a blank":  "Transfer-Encoding: chunked\r\n\r\n5 \r\nabcde\r\n0\r\n\r\n",
	"chunk size overflow":        "Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nabcde\r\n0\r\n\r\n",
	"chunk size underscore":      "Transfer-Encoding: chunked\r\n\r\n0_5\r\nabcde\r\n0\r\n\r\n",
	"chunk size and bare LF":     "Transfer-Encoding: chunked\r\n\r\n5\nabcde\r\n0\r\n\r\n",
	"chunk size and bare CR":     "Transfer-Encoding: chunked\r\n\r\n5\rabcde\r\n0\r\n\r\n",
	"chunk extension with LF":    "Transfer-Encoding: chunked\r\n\r\n5;a\nb\r\nabcde\r\n0\r\n\r\n",
	"chunk extension, huge":      "Transfer-Encoding: chunked\r\n\r\n5;" + strings.Repeat("a", 5000) + "\r\nabcde\r\n0\r\n\r\n",
	"chunk data longer":          "Transfer-Encoding: chunked\r\n\r\n5\r\nabcdefg\r\n0\r\n\r\n",
	"chunk data without CRLF":    "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde0\r\n\r\n",
	"chunk data and bare LF":     "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\n0\r\n\r\n",
	"trailer with Host":          "Transfer-Encoding: chunked\r\nTrailer: Host\r\n\r\n0\r\nHost: other.example.com\r\n\r\n",
	"trailer with Host, unsaid":  "Transfer-Encoding: chunked\r\n\r\n0\r\nHost: other.example.com\r\n\r\n",
	"trailer with CL":            "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n",
	"trailer with TE":            "Transfer-Encoding: chunked\r\n\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
	"trailer with Authorization": "Transfer-Encoding: chunked\r\n\r\n0\r\nAuthorization: Basic eDp5\r\n\r\n",
	"trailer with bare LF":       "Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n",
	"Connection names Host":      "Connection: host\r\n\r\n",
	"Connection names CL":        "Connection: content-length\r\nContent-Length: 5\r\n\r\nabcde",
	"Connection names TE":        "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"Connection names Cookie":    "Connection: cookie\r\nCookie: a=b\r\n\r\n",
	"Connection names Via":       "Connection: via\r\n\r\n",
	"Expect of another kind":     "Expect: 200-ok\r\nContent-Length: 5\r\n\r\nabcde",
	"Expect twice":               "Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nabcde",
	"second Host":                "Host: other.example.com\r\n\r\n",
}

func TestSmuggling(t *testing.T) {
	const second = "GET /smuggled HTTP/1.1\r\nHost: www.example.com\r\n\r\n"
	for name, rest := range smuggling {
		for _, way := range []string{"tunnel", "absolute"} {
			t.Run(name+" "+way, func(t *testing.T) {
				g := New(t)
				o := wire(g, www, way == "tunnel", nil)
				target := "/first"
				var c net.Conn
				if way == "tunnel" {
					c = g.insideAs(www+":443", www)
				} else {
					c, target = g.Dial(), "http://"+www+"/first"
				}
				c.Write([]byte("POST " + target + " HTTP/1.1\r\nHost: " + www + "\r\n" + rest + second))
				a := receive(t, bufio.NewReader(c), "POST")
				if a.status != 400 && a.status != 413 && a.status != 431 && a.status != 501 {
					t.Errorf("status %d\n%s", a.status, a.body)
				}
				mustEnd(t, c)
				if f := g.Recorder.Last(1); f.Outcome() != exitgate.OutcomeRefused || f.Verdict.Rule != exitgate.RuleMalformed || f.Verdict.Reason == "" {
					t.Errorf("flow: %s", describe(f))
				}
				if _, got, reqs := o.seen(); strings.Contains(got, "/smuggled") || len(reqs) > 0 && strings.Contains(rest, "chunked") == false {
					t.Errorf("the upstream got %q", got)
				}
			})
		}
	}
}

// TestSmugglingH2 is law 5 for what only HTTP/2 can carry.
func TestSmugglingH2(t *testing.T) {
	ok := []string{":method", "POST", ":scheme", "https", ":authority", www, ":path", "/first"}
	with := func(more ...string) []string { return append(slices.Clone(ok), more...) }
	for name, c := range map[string]struct {
		fields []string
		data   string
		end    bool // with the header
	}{
		"CRLF in a value":            {fields: with("x", "a\r\nGET /smuggled HTTP/1.1"), end: true},
		"LF in a value":              {fields: with("x", "a\nb: c"), end: true},
		"CR in a value":              {fields: with("x", "a\rb"), end: true},
		"NUL in a value":             {fields: with("x", "a\x00b"), end: true},
		"CRLF in a name":             {fields: with("x\r\ny", "a"), end: true},
		"colon in a name":            {fields: with("x: y", "a"), end: true},
		"blank in a name":            {fields: with("x y", "a"), end: true},
		"empty name":                 {fields: with("", "a"), end: true},
		"upper case":                 {fields: with("X-Upper", "a"), end: true},
		"blank before a value":       {fields: with("x", " a"), end: true},
		"blank behind a value":       {fields: with("x", "a "), end: true},
		"tab behind a value":         {fields: with("x", "a\t"), end: true},
		"transfer-encoding":          {fields: with("transfer-encoding", "chunked"), data: "0\r\n\r\n"},
		"connection":                 {fields: with("connection", "close"), end: true},
		"keep-alive":                 {fields: with("keep-alive", "1"), end: true},
		"upgrade":                    {fields: with("upgrade", "websocket"), end: true},
		"proxy-connection":           {fields: with("proxy-connection", "keep-alive"), end: true},
		"te gzip":                    {fields: with("te", "gzip"), end: true},
		"content-length too small":   {fields: with("content-length", "2"), data: "abcGET /smuggled"},
		"content-length too large":   {fields: with("content-length", "50"), data: "abc"},
		"content-length, no body":    {fields: with("content-length", "5"), end: true},
		"content-length twice":       {fields: with("content-length", "3", "content-length", "5"), data: "abc"},
		"content-length plus":        {fields: with("content-length", "+3"), data: "abc"},
		"content-length of letters":  {fields: with("content-length", "x"), data: "abc"},
		"content-length empty":       {fields: with("content-length", ""), data: "abc"},
		"no path":                    {fields: []string{":method", "GET", ":scheme", "https", ":authority", www}, end: true},
		"no method":                  {fields: []string{":path", "/", ":scheme", "https", ":authority", www}, end: true},
		"no scheme":                  {fields: []string{":path", "/", ":method", "GET", ":authority", www}, end: true},
		"no authority and no host":   {fields: []string{":method", "GET", ":scheme", "https", ":path", "/"}, end: true},
		"two paths":                  {fields: with(":path", "/smuggled"), end: true},
		"two paths, after fields":    {fields: with("x", "y", ":path", "/smuggled"), end: true},
		"two methods":                {fields: []string{":method", "GET", ":method", "POST", ":scheme", "https", ":authority", www, ":path", "/"}, end: true},
		"two authorities":            {fields: []string{":method", "GET", ":scheme", "https", ":authority", www, ":authority", other, ":path", "/"}, end: true},
		"unknown pseudo field":       {fields: []string{":method", "GET", ":scheme", "https", ":authority", www, ":path", "/", ":x", "y"}, end: true},
		"pseudo field of responses":  {fields: []string{":method", "GET", ":scheme", "https", ":authority", www, ":path", "/", ":status", "200"}, end: true},
		"extended CONNECT":           {fields: []string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", www, ":path", "/"}, end: true},
		"CONNECT inside":             {fields: []string{":method", "CONNECT", ":authority", other + ":443"}},
		"method with a blank":        {fields: []string{":method", "GET /smuggled HTTP/1.1", ":scheme", "https", ":authority", www, ":path", "/"}, end: true},
		"method in lower case":       {fields: []string{":method", "get", ":scheme", "https", ":authority", www, ":path", "/"}, end: true},
		"TRACE":                      {fields: []string{":method", "TRACE", ":scheme", "https", ":authority", www, ":path", "/"}, end: true},
		"path with CRLF":             {fields: []string{":method", "GET", ":scheme", "https", ":authority", www, ":path", "/ HTTP/1.1\r\nX: y"}, end: true},
		"path with a blank":          {fields: []string{":method", "GET", ":scheme", "https", ":authority", www, ":path", "/ HTTP/1.1"}, end: true},
		"scheme of another kind":     {fields: []string{":method", "GET", ":scheme", "ftp", ":authority", www, ":path", "/"}, end: true},
		"scheme with a URL":          {fields: []string{":method", "GET", ":scheme", "https://other.example.com/?", ":authority", www, ":path", "/"}, end: true},
		"authority with CRLF":        {fields: []string{":method", "GET", ":scheme", "https", ":authority", www + "\r\nX: y", ":path", "/"}, end: true},
		"authority with a blank":     {fields: []string{":method", "GET", ":scheme", "https", ":authority", www + " x", ":path", "/"}, end: true},
		"user-agent twice":           {fields: with("user-agent", "a", "user-agent", "b"), end: true},
		"authorization twice":        {fields: with("authorization", "Basic eDp5", "authorization", "Basic eDp6"), end: true},
		"expect of another kind":     {fields: with("expect", "200-ok", "content-length", "3"), data: "abc"},
		"value that is not UTF-8":    {fields: with("x", "a\xff"), end: true},
		"Via of this gateway, again": {fields: with("via", "1.1 exitgate"), end: true},
	} {
		t.Run(name, func(t *testing.T) {
			g := New(t)
			o := wire(g, www, true, nil)
			o2 := wire(g, other, true, nil)
			conn := g.insideAs(www+":443", www, "h2")
			h := newRawH2(t, conn)
			id := h.headers(c.end, c.fields...)
			if c.data != "" {
				h.fr.WriteData(id, true, []byte(c.data))
			}
			a := h.answer(id)
			if a.reset == nil && !strings.HasPrefix(a.status, "4") && a.status != "508" {
				t.Errorf("answer: %v", a)
			}
			conn.Close()
			f := g.Recorder.Last(1)
			if f.Outcome() == exitgate.OutcomeAllowed || f.Verdict.Reason == "" && f.Fault == nil {
				t.Errorf("flow: %s", describe(f))
			}
			if f.Fault != nil && (f.Fault.Type == "client_tls" || f.Fault.Type == "proxy_internal_error" || strings.HasPrefix(f.Fault.Type, "connection")) {
				t.Errorf("flow: %s", describe(f))
			}
			if _, got, reqs := o.seen(); strings.Contains(got, "smuggled") || len(reqs) > 0 && c.end {
				t.Errorf("the upstream got %q", got)
			}
			o2.untouched(t)
		})
	}
}
