package inspect

import (
	"errors"
	"strings"
	"testing"

	"github.com/exitgate/exitgate"
)

const get9 = "GET /v1/items/42?expand=owner&page=3 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: curl/8.5.0\r\nAccept: application/json\r\n" +
	"Accept-Encoding: gzip, deflate\r\nAccept-Language: en-GB,en;q=0.9\r\nAuthorization: Bearer 0123456789abcdef0123456789abcdef\r\n" +
	"Cookie: session=abcdef0123456789; theme=dark\r\nCache-Control: no-cache\r\nConnection: keep-alive\r\n\r\n"

// scanAll feeds s in pieces of at most size bytes and returns how many bytes were handed on.
func scanAll(s *Screen, in string, size int) (handed int, err error) {
	for len(in) > 0 {
		p := in[:min(size, len(in))]
		n, err := s.Scan([]byte(p))
		handed += n
		if err != nil {
			return handed, err
		}
		in = in[len(p):]
	}
	return handed, nil
}

const h = "Host: a.example\r\n"

func TestScreenAccepts(t *testing.T) {
	for name, in := range map[string]string{
		"get":                      get9,
		"no headers but host":      "GET / HTTP/1.1\r\n" + h + "\r\n",
		"pipelined":                get9 + get9,
		"http/1.0 absolute":        "GET http://a.example/ HTTP/1.0\r\n\r\n",
		"http/1.0 connect":         "CONNECT a.example:443 HTTP/1.0\r\n\r\n",
		"http/1.0 with host":       "GET / HTTP/1.0\r\n" + h + "\r\n",
		"absolute":                 "GET http://A.example/x?y HTTP/1.1\r\nHost: a.EXAMPLE\r\n\r\n",
		"absolute, default port":   "GET http://a.example:80/ HTTP/1.1\r\n" + h + "\r\n",
		"absolute without path":    "GET http://a.example HTTP/1.1\r\n" + h + "\r\n",
		"absolute with query only": "GET http://a.example?x HTTP/1.1\r\n" + h + "\r\n",
		"connect":                  "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
		"connect, host no port":    "CONNECT a.example:443 HTTP/1.1\r\n" + h + "Proxy-Connection: keep-alive\r\n\r\n",
		"connect to ipv6":          "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n",
		"options star":             "OPTIONS * HTTP/1.1\r\n" + h + "\r\n",
		"body":                     "POST / HTTP/1.1\r\n" + h + "Content-Length: 5\r\n\r\nhello" + get9,
		"empty body":               "POST / HTTP/1.1\r\n" + h + "Content-Length: 0\r\n\r\n" + get9,
		"chunked":                  "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n" + get9,
		"chunked with trailer":     "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n0\r\nX-Sum: 1\r\n\r\n" + get9,
		"expect":                   "POST / HTTP/1.1\r\n" + h + "Expect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
		"h2c":                      "GET / HTTP/1.1\r\n" + h + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n",
		"websocket":                "GET / HTTP/1.1\r\n" + h + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"empty value":              "GET / HTTP/1.1\r\n" + h + "X-Empty:\r\nX-Tab:\ta\tb \r\n\r\n",
		"host with port":           "GET / HTTP/1.1\r\nHost: a.example:8080\r\n\r\n",
		"ipv4 host":                "GET / HTTP/1.1\r\nHost: 192.0.2.7\r\n\r\n",
		"underscore":               "GET / HTTP/1.1\r\nHost: _a.b_c.example\r\n\r\n",
		"obs-text":                 "GET / HTTP/1.1\r\n" + h + "X-A: caf\xc3\xa9\r\n\r\n",
		"te":                       "GET / HTTP/1.1\r\n" + h + "TE: trailers\r\nConnection: TE, close\r\n\r\n",
	} {
		for _, size := range []int{1, 2, 7, 64, 1 << 20} {
			if n, err := scanAll(NewScreen(ScreenLimits{}), in, size); err != nil || n != len(in) {
				t.Errorf("%s in pieces of %d: handed on %d of %d: %v", name, size, n, len(in), err)
			}
		}
	}
}

func TestScreenRefuses(t *testing.T) {
	post := "POST / HTTP/1.1\r\n" + h
	chunked := post + "Transfer-Encoding: chunked\r\n\r\n"
	for _, c := range []struct {
		name, in string
		status   int
		says     string
	}{
		{"bare LF after request line", "GET / HTTP/1.1\n" + h + "\r\n", 400, "bare LF"},
		{"bare LF after field", "GET / HTTP/1.1\r\nHost: a\n\r\n", 400, "bare LF"},
		{"bare LF at end", "GET / HTTP/1.1\r\n" + h + "\n", 400, "bare LF"},
		{"bare CR in value", "GET / HTTP/1.1\r\n" + h + "X: a\rb\r\n\r\n", 400, "0x0d"},
		{"CR CR LF", "GET / HTTP/1.1\r\r\n" + h + "\r\n", 400, "HTTP/1.1"},
		{"empty line first", "\r\n" + get9, 400, "empty line"},
		{"leading space", " GET / HTTP/1.1\r\n" + h + "\r\n", 400, "method"},
		{"two spaces", "GET  / HTTP/1.1\r\n" + h + "\r\n", 400, "one space"},
		{"two spaces before version", "GET /  HTTP/1.1\r\n" + h + "\r\n", 400, "HTTP/1.1"},
		{"tab", "GET\t/ HTTP/1.1\r\n" + h + "\r\n", 400, "method"},
		{"trailing space", "GET / HTTP/1.1 \r\n" + h + "\r\n", 400, "HTTP/1.1"},
		{"no version (0.9)", "GET /\r\n\r\n", 400, "one space"},
		{"version 1.2", "GET / HTTP/1.2\r\n" + h + "\r\n", 400, "HTTP/1.1"},
		{"version 2.0", "PRI * HTTP/2.0\r\n\r\n", 400, "HTTP/1.1"},
		{"lower-case version", "GET / http/1.1\r\n" + h + "\r\n", 400, "HTTP/1.1"},
		{"bad method", "G(T / HTTP/1.1\r\n" + h + "\r\n", 400, "method"},
		{"fragment", "GET /#x HTTP/1.1\r\n" + h + "\r\n", 400, "0x23"},
		{"control in target", "GET /\x01 HTTP/1.1\r\n" + h + "\r\n", 400, "0x01"},
		{"non-ascii target", "GET /\xc3\xa9 HTTP/1.1\r\n" + h + "\r\n", 400, "0xc3"},
		{"bad percent", "GET /%zz HTTP/1.1\r\n" + h + "\r\n", 400, "%"},
		{"cut percent", "GET /%2 HTTP/1.1\r\n" + h + "\r\n", 400, "%"},
		{"star without options", "GET * HTTP/1.1\r\n" + h + "\r\n", 400, "neither"},
		{"path without slash", "GET a HTTP/1.1\r\n" + h + "\r\n", 400, "neither"},
		{"https absolute", "GET https://a.example/ HTTP/1.1\r\n" + h + "\r\n", 400, "CONNECT"},
		{"ftp absolute", "GET ftp://a.example/ HTTP/1.1\r\n" + h + "\r\n", 400, "neither"},
		{"userinfo", "GET http://u:p@a.example/ HTTP/1.1\r\n" + h + "\r\n", 400, "user"},
		{"absolute empty host", "GET http:/// HTTP/1.1\r\n" + h + "\r\n", 400, "empty"},
		{"absolute with other host", "GET http://b.example/ HTTP/1.1\r\n" + h + "\r\n", 400, "another host"},
		{"absolute with other port", "GET http://a.example:81/ HTTP/1.1\r\n" + h + "\r\n", 400, "another host"},
		{"connect without port", "CONNECT a.example HTTP/1.1\r\n" + h + "\r\n", 400, "port"},
		{"connect to path", "CONNECT /x HTTP/1.1\r\n" + h + "\r\n", 400, "host:port"},
		{"connect to url", "CONNECT http://a.example:443 HTTP/1.1\r\n" + h + "\r\n", 400, "host:port"},
		{"connect, other host", "CONNECT b.example:443 HTTP/1.1\r\n" + h + "\r\n", 400, "another host"},
		{"connect, other port", "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:444\r\n\r\n", 400, "another host"},
		{"connect with body", "CONNECT a.example:443 HTTP/1.1\r\n" + h + "Content-Length: 3\r\n\r\n", 400, "body"},
		{"no host", "GET / HTTP/1.1\r\n\r\n", 400, "no Host"},
		{"no host 1.0", "GET / HTTP/1.0\r\n\r\n", 400, "no Host"},
		{"two hosts", "GET / HTTP/1.1\r\n" + h + h + "\r\n", 400, "more than one Host"},
		{"empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, "empty"},
		{"host with path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "byte"},
		{"host with user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, "user"},
		{"host with dot", "GET / HTTP/1.1\r\nHost: a.example.\r\n\r\n", 400, "dot"},
		{"host list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, "byte"},
		{"host in brackets", "GET / HTTP/1.1\r\nHost: [a]\r\n\r\n", 400, "brackets"},
		{"host with zone", "GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n", 400, "brackets"},
		{"host with empty port", "GET / HTTP/1.1\r\nHost: a:\r\n\r\n", 400, "port"},
		{"host with port 0", "GET / HTTP/1.1\r\nHost: a:0\r\n\r\n", 400, "port"},
		{"host with big port", "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400, "port"},
		{"octal address", "GET / HTTP/1.1\r\nHost: 0177.0.0.1\r\n\r\n", 400, "number"},
		{"hex address", "GET / HTTP/1.1\r\nHost: 0x7f000001\r\n\r\n", 400, "number"},
		{"short address", "GET / HTTP/1.1\r\nHost: 127.1\r\n\r\n", 400, "number"},
		{"decimal address", "GET / HTTP/1.1\r\nHost: 2130706433\r\n\r\n", 400, "number"},
		{"space before colon", "GET / HTTP/1.1\r\n" + h + "X-A : b\r\n\r\n", 400, "blank"},
		{"space before colon of length", post + "Content-Length : 5\r\n\r\nhello", 400, "blank"},
		{"folding", "GET / HTTP/1.1\r\n" + h + "X: a\r\n b\r\n\r\n", 400, "folding"},
		{"folding first", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, "folding"},
		{"no colon", "GET / HTTP/1.1\r\n" + h + "nonsense\r\n\r\n", 400, "colon"},
		{"empty name", "GET / HTTP/1.1\r\n" + h + ": x\r\n\r\n", 400, "empty"},
		{"bad name", "GET / HTTP/1.1\r\n" + h + "X(y: x\r\n\r\n", 400, "0x28"},
		{"NUL in value", "GET / HTTP/1.1\r\n" + h + "X: a\x00b\r\n\r\n", 400, "0x00"},
		{"DEL in value", "GET / HTTP/1.1\r\n" + h + "X: \x7f\r\n\r\n", 400, "0x7f"},
		{"escape in value", "GET / HTTP/1.1\r\n" + h + "X: \x1b[2J\r\n\r\n", 400, "0x1b"},
		{"two lengths", post + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400, "more than one Content-Length"},
		{"length list", post + "Content-Length: 5, 5\r\n\r\nhello", 400, "number"},
		{"signed length", post + "Content-Length: +5\r\n\r\nhello", 400, "number"},
		{"negative length", post + "Content-Length: -5\r\n\r\nhello", 400, "number"},
		{"hex length", post + "Content-Length: 0x5\r\n\r\nhello", 400, "number"},
		{"huge length", post + "Content-Length: 99999999999999999999\r\n\r\n", 400, "number"},
		{"empty length", post + "Content-Length:\r\n\r\n", 400, "number"},
		{"length and chunked", post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "both"},
		{"chunked and length", post + "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", 400, "both"},
		{"gzip, chunked", post + "Transfer-Encoding: gzip, chunked\r\n\r\n", 501, "chunked"},
		{"identity", post + "Transfer-Encoding: identity\r\n\r\n", 501, "chunked"},
		{"xchunked", post + "Transfer-Encoding: xchunked\r\n\r\n", 501, "chunked"},
		{"vertical tab chunked", post + "Transfer-Encoding: \x0bchunked\r\n\r\n", 400, "0x0b"},
		{"quoted chunked", post + "Transfer-Encoding: \"chunked\"\r\n\r\n", 501, "chunked"},
		{"chunked twice", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "more than one"},
		{"chunked in 1.0", "POST / HTTP/1.0\r\n" + h + "Transfer-Encoding: chunked\r\n\r\n", 400, "HTTP/1.0"},
		{"connection host", "GET / HTTP/1.1\r\n" + h + "Connection: close, Host\r\n\r\n", 400, "Host"},
		{"connection length", "GET / HTTP/1.1\r\n" + h + "Connection: content-length\r\n\r\n", 400, "content-length"},
		{"connection coding", "GET / HTTP/1.1\r\n" + h + "Connection: Transfer-Encoding\r\n\r\n", 400, "Transfer-Encoding"},
		{"connection authorization", "GET / HTTP/1.1\r\n" + h + "Connection: authorization\r\n\r\n", 400, "authorization"},
		{"connection garbage", "GET / HTTP/1.1\r\n" + h + "Connection: a b\r\n\r\n", 400, "field name"},
		{"two upgrades", "GET / HTTP/1.1\r\n" + h + "Upgrade: websocket\r\nUpgrade: websocket\r\n\r\n", 400, "more than one"},
		{"expect", "GET / HTTP/1.1\r\n" + h + "Expect: 200-maybe\r\n\r\n", 400, "Expect"},
		{"expect twice", "GET / HTTP/1.1\r\n" + h + "Expect: 100-continue\r\nExpect: 100-continue\r\n\r\n", 400, "Expect"},
		{"trailer names length", post + "Transfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n", 400, "no trailer"},
		{"chunk size with plus", chunked + "+5\r\nhello\r\n", 400, "size"},
		{"chunk size with minus", chunked + "-5\r\nhello\r\n", 400, "size"},
		{"chunk size 0x", chunked + "0x5\r\nhello\r\n", 400, "0x78"},
		{"chunk size with underscore", chunked + "1_0\r\n", 400, "0x5f"},
		{"chunk size with space", chunked + "5 \r\nhello\r\n", 400, "0x20"},
		{"chunk size empty", chunked + "\r\nhello\r\n", 400, "size"},
		{"chunk size overflow", chunked + "10000000000000005\r\nhello\r\n", 400, "size"},
		{"chunk bare LF", chunked + "5\nhello\r\n", 400, "bare LF"},
		{"chunk data without CRLF", chunked + "5\r\nhello0\r\n\r\n", 400, "CRLF"},
		{"chunk data with LF", chunked + "5\r\nhello\n0\r\n\r\n", 400, "CRLF"},
		{"chunk extension with CR", chunked + "5;a\rb\r\nhello\r\n", 400, "0x0d"},
		{"chunk extension too long", chunked + "5;" + strings.Repeat("a", 300) + "\r\nhello\r\n", 413, "256"},
		{"chunk overhead", chunked + strings.Repeat("1;"+strings.Repeat("a", 200)+"\r\nx\r\n", 200), 413, "overhead"},
		{"trailer framing", chunked + "0\r\nContent-Length: 5\r\n\r\n", 400, "trailer"},
		{"trailer auth", chunked + "0\r\nAuthorization: x\r\n\r\n", 400, "trailer"},
		{"trailer host", chunked + "0\r\nHost: x\r\n\r\n", 400, "trailer"},
		{"trailer folding", chunked + "0\r\nX: a\r\n b\r\n\r\n", 400, "folding"},
		{"trailer bare LF", chunked + "0\r\n\n", 400, "bare LF"},
		{"trailer too long", chunked + "0\r\nX: " + strings.Repeat("a", 3000) + "\r\n\r\n", 431, "trailer"},
		{"request line too long", "GET /" + strings.Repeat("a", 20<<10) + " HTTP/1.1\r\n" + h + "\r\n", 431, "request line"},
		{"head too long", "GET / HTTP/1.1\r\n" + h + strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 70) + "\r\n", 431, "head"},
		{"head without end", "GET / HTTP/1.1\r\n" + h + "X-A: " + strings.Repeat("a", 70<<10), 431, "head"},
		{"too many fields", "GET / HTTP/1.1\r\n" + h + strings.Repeat("X-A: a\r\n", 200) + "\r\n", 431, "128"},
		{"garbage after body", "POST / HTTP/1.1\r\n" + h + "Content-Length: 1\r\n\r\nx\x00", 0, ""},
		{"tls in plain text", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", 400, "LF"},
	} {
		for _, size := range []int{1, 5, 1 << 20} {
			s := NewScreen(ScreenLimits{})
			n, err := scanAll(s, c.in, size)
			var r *exitgate.Refusal
			if c.status == 0 {
				if err != nil {
					t.Errorf("%s: an unfinished line was refused: %v", c.name, err)
				}
				continue
			}
			if !errors.As(err, &r) {
				t.Errorf("%s in pieces of %d: not refused (%v)", c.name, size, err)
				continue
			}
			if r.Status != c.status || r.Verdict.Rule != exitgate.RuleMalformed || !strings.Contains(r.Verdict.Reason, c.says) {
				t.Errorf("%s in pieces of %d: %d %v, want %d and %q", c.name, size, r.Status, r, c.status, c.says)
			}
			if n == len(c.in) {
				t.Errorf("%s in pieces of %d: all was handed on", c.name, size)
			}
			if n, again := s.Scan([]byte("GET / HTTP/1.1\r\n")); n != 0 || again != err {
				t.Errorf("%s: after the refusal %d bytes were handed on: %v", c.name, n, again)
			}
		}
	}
}

// TestScreenHandsOnWhatStandsBefore shows that a good request is carried before a bad one in the same piece is refused,
// and nothing of the bad one is.
func TestScreenHandsOnWhatStandsBefore(t *testing.T) {
	good := "POST / HTTP/1.1\r\n" + h + "Content-Length: 5\r\n\r\nhello"
	n, err := NewScreen(ScreenLimits{}).Scan([]byte(good + "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"))
	if n != len(good) || err == nil || !strings.Contains(err.Error(), "request 2") {
		t.Errorf("handed on %d of %d: %v", n, len(good), err)
	}
	head := "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
	n, err = NewScreen(ScreenLimits{}).Scan([]byte(head + "zz\r\n"))
	if n != len(head) || err == nil {
		t.Errorf("handed on %d of %d: %v", n, len(head), err)
	}
}

// TestScreenConnect shows that bytes after a CONNECT which was not accepted are still screened, and that Pass ends it.
func TestScreenConnect(t *testing.T) {
	const connect = "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n"
	hello := "\x16\x03\x01\n"
	s := NewScreen(ScreenLimits{})
	if n, err := s.Scan([]byte(connect + hello)); err == nil || n != len(connect) {
		t.Errorf("bytes sent before the answer to CONNECT: handed on %d of %d, %v", n, len(connect), err)
	}
	s = NewScreen(ScreenLimits{})
	if n, err := s.Scan([]byte(connect)); err != nil || n != len(connect) {
		t.Fatalf("%d %v", n, err)
	}
	if n, err := s.Scan([]byte(connect)); err != nil || n != len(connect) { // a client that tries again after 407
		t.Fatalf("%d %v", n, err)
	}
	s.Pass()
	if n, err := s.Scan([]byte(hello)); err != nil || n != len(hello) {
		t.Errorf("after Pass: %d %v", n, err)
	}
}

func TestScreenAllocatesNothing(t *testing.T) {
	s, p := NewScreen(ScreenLimits{}), []byte(get9)
	absolute := []byte("GET http://a.example/x HTTP/1.1\r\n" + h + "\r\n")
	s.Scan(absolute)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := s.Scan(p); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Scan(absolute); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for two requests", n)
	}
}

func BenchmarkScreen(b *testing.B) {
	s, p := NewScreen(ScreenLimits{}), []byte(get9)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Scan(p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScreenChunked(b *testing.B) {
	s := NewScreen(ScreenLimits{})
	p := []byte("POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("8000\r\n"+strings.Repeat("x", 32<<10)+"\r\n", 32) + "0\r\n\r\n")
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if _, err := s.Scan(p); err != nil {
			b.Fatal(err)
		}
	}
}
