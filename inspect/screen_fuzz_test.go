package inspect

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"
)

// FuzzScreen holds the Screen's promise: whatever it lets through whole, net/http reads as the same messages with the same
// bodies, in whatever pieces it came.
func FuzzScreen(f *testing.F) {
	for _, s := range []string{
		get9, get9 + get9,
		"POST /a?b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n5;e=\"f\"\r\nhello\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.0\r\nHost: b\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a:80\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabcCONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET http://a.example?x HTTP/1.1\r\nHost: A.example:80\r\nConnection: TE, close\r\nTE: trailers\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n",
		"GET /%41%zz HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		whole := NewScreen(ScreenLimits{})
		n, err := whole.Scan(in)
		if n > len(in) || n < 0 || err == nil && n != len(in) {
			t.Fatalf("handed on %d of %d: %v", n, len(in), err)
		}
		pieces := NewScreen(ScreenLimits{})
		_, err2 := scanAll(pieces, string(in), int(size)+1)
		if (err == nil) != (err2 == nil) || err != nil && err.Error() != err2.Error() {
			t.Fatalf("whole: %v; in pieces of %d: %v", err, int(size)+1, err2)
		}
		compare(t, in[:n], err == nil && whole.at == atStart && len(whole.line) == 0)
	})
}

// compare reads what a Screen handed on as net/http's server does. It must hold only whole messages when whole is
// true; else it may end inside one, but must not hold a violation.
func compare(t *testing.T, in []byte, whole bool) {
	r := bufio.NewReader(bytes.NewReader(in))
	for {
		if _, err := r.Peek(1); err == io.EOF {
			return
		}
		left := r.Buffered()
		req, err := http.ReadRequest(r)
		if err != nil {
			if !whole && (err == io.ErrUnexpectedEOF || left > 0 && !headEnds(in)) {
				return
			}
			t.Fatalf("net/http refuses what the screen let through: %v\n%q", err, in)
		}
		serverWouldRefuse(t, req, in)
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			if !whole {
				return
			}
			t.Fatalf("net/http refuses a body that the screen let through: %v\n%q", err, in)
		}
		for k := range req.Trailer {
			if notTrailer([]byte(k)) {
				t.Fatalf("trailer %s got through", k)
			}
		}
	}
}

// headEnds reports whether in ends behind a head: only then must net/http be able to read its last head.
func headEnds(in []byte) bool { return bytes.HasSuffix(in, []byte("\r\n\r\n")) }

// serverWouldRefuse holds what net/http's server checks after ReadRequest, and what smuggling needs.
func serverWouldRefuse(t *testing.T, req *http.Request, in []byte) {
	switch { // http.ReadRequest refuses two Host fields, and moves the one to req.Host
	case req.Host == "" && (req.ProtoAtLeast(1, 1) || req.Method != "CONNECT"):
		t.Fatalf("a request without Host got through: %q", in)
	case !httpguts.ValidHostHeader(req.Host):
		t.Fatalf("a bad Host got through: %q", in)
	case len(req.Header["Content-Length"]) > 1, req.ContentLength >= 0 && len(req.TransferEncoding) > 0:
		t.Fatalf("ambiguous framing got through: %q", in)
	case req.Header.Get("Expect") != "" && !strings.EqualFold(req.Header.Get("Expect"), "100-continue"):
		t.Fatalf("an Expect that is answered with 417 got through: %q", in)
	}
	for k, vv := range req.Header {
		for _, v := range vv {
			if !httpguts.ValidHeaderFieldName(k) || !httpguts.ValidHeaderFieldValue(v) {
				t.Fatalf("a bad field got through: %q: %q", k, v)
			}
		}
	}
}

// TestScreenFraming shows that the Screen and net/http count the same messages and body bytes.
func TestScreenFraming(t *testing.T) {
	in := "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 19\r\n\r\nGET /x HTTP/1.1\r\n\r\n" +
		"POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n13\r\nGET /y HTTP/1.1\r\n\r\n\r\n0\r\n\r\n" +
		"GET /3 HTTP/1.1\r\nHost: a\r\n\r\n"
	s := NewScreen(ScreenLimits{})
	if n, err := s.Scan([]byte(in)); err != nil || n != len(in) || s.msg != 3 || s.at != atStart {
		t.Fatalf("%d of %d bytes, %d messages, state %d: %v", n, len(in), s.msg, s.at, err)
	}
	r := bufio.NewReader(strings.NewReader(in))
	for _, want := range []struct {
		path string
		body int64
	}{{"/1", 19}, {"/2", 19}, {"/3", 0}} {
		req, err := http.ReadRequest(r)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, req.Body); err != nil || n != want.body || req.URL.Path != want.path {
			t.Errorf("%s: %d bytes, want %s %d: %v", req.URL.Path, n, want.path, want.body, err)
		}
	}
}
