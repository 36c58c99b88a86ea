package gatetest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"sort"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/mitm"
)

// counted wraps h and counts the connections on which requests came.
func counted(h http.HandlerFunc) (http.Handler, func() int) {
	var mu sync.Mutex
	seen := map[string]bool{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			seen[r.RemoteAddr] = true
			mu.Unlock()
			h(w, r)
		}), func() int {
			mu.Lock()
			defer mu.Unlock()
			return len(seen)
		}
}

// What a host says about its own connection is not about the gateway's.
func TestCloseOfClientKeepsUpstream(t *testing.T) {
	g := New(t)
	h, conns := counted(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Close, r.Header.Get("Connection")) })
	g.Origin(h, "www.example.com")
	for range 20 {
		c := g.speak("www.example.com")
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n")
		res, body := answerOn(t, bufio.NewReader(c), "GET")
		if res.StatusCode != 200 || body != "false" || !res.Close {
			t.Fatalf("got %v %q", res, body)
		}
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("after the answer: %v", err)
		}
	}
	if n := conns(); n != 1 {
		t.Errorf("20 requests took %d upstream connections", n)
	}
}

func TestKeepAliveAndPipelining(t *testing.T) {
	g := New(t)
	g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) }), "www.example.com")
	c := g.speak("www.example.com")
	br := bufio.NewReader(c)
	for i := range 10 {
		fmt.Fprintf(c, "GET /%d HTTP/1.1\r\nHost: www.example.com\r\n\r\n", i)
	}
	for i := range 10 {
		if _, body := answerOn(t, br, "GET"); body != fmt.Sprintf("/%d", i) {
			t.Fatalf("answer %d is for %s", i, body)
		}
	}
	flows := g.Recorder.Wait(10)
	for _, f := range flows {
		if f.Conn != flows[0].Conn {
			t.Errorf("flow of another connection: %s", f.Conn)
		}
	}
}

// wireHead returns the first head that an origin gets, as lines.
func wireHead(t *testing.T, g *Gate) <-chan []string {
	got := make(chan []string, 1)
	g.rawTLS("www.example.com", func(n int, c net.Conn) {
		br := bufio.NewReader(c)
		var lines []string
		for {
			line, err := br.ReadString('\n')
			if err != nil {
				return
			}
			if line == "\r\n" {
				break
			}
			lines = append(lines, strings.TrimSuffix(line, "\r\n"))
		}
		got <- lines
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})
	return got
}

// What the policy saw is what the origin gets: each byte of the target, and each value.
func TestRequestFidelity(t *testing.T) {
	target := "/a%20b/%E2%82%AC/c;d=1/@~!$&'()*+,=:?q=%20+&&=&a=[b]%7cd&?/"
	fields := []string{"Accept: a, b", "Accept: c", "X-Lower: \tv v", "X-Empty: ", "X-Utf: é", "Cookie: a=1; b=2", "Authorization: Bearer s3cret"}
	for _, p := range pairings {
		if p.name == "h2-h2" {
			continue // the wire of HTTP/2 is in TestRequestFidelityH2
		}
		t.Run(p.name, func(t *testing.T) {
			g := New(t, p.set...)
			got := wireHead(t, g)
			if p.h2 {
				h := newRawH2(t, g.speak("www.example.com", "h2"))
				list := []string{":method", "GET", ":scheme", "https", ":authority", "www.example.com", ":path", target}
				for _, f := range fields {
					k, v, _ := strings.Cut(f, ": ")
					list = append(list, strings.ToLower(k), strings.Trim(v, "\t"))
				}
				h.headers(true, list...)
			} else {
				io.WriteString(g.speak("www.example.com"), "GET "+target+" HTTP/1.1\r\nHost: www.example.com\r\n"+strings.Join(fields, "\r\n")+"\r\n\r\n")
			}
			lines := within(t, got, "the request")
			if lines[0] != "GET "+target+" HTTP/1.1" {
				t.Errorf("request line %q", lines[0])
			}
			want := append([]string{"Host: www.example.com", "Via: " + map[bool]string{true: "2.0", false: "1.1"}[p.h2] + " exitgate"}, fields...)
			for i := range want {
				want[i] = strings.Replace(want[i], "\tv", "v", 1) // blanks around a value are no part of it
			}
			sort.Strings(want)
			sort.Strings(lines[1:])
			if !reflect.DeepEqual(lines[1:], want) {
				t.Errorf("the origin got\n%q, want\n%q", lines[1:], want)
			}
			f := g.Recorder.Last(1)
			q := f.Question.HTTP
			if q.URL != "https://www.example.com"+target || !reflect.DeepEqual(q.Headers["accept"], []string{"a, b", "c"}) ||
				q.Headers["x-lower"][0] != "v v" || len(q.Headers) != 6 || strings.Contains(fmt.Sprint(q.Headers), "s3cret") {
				t.Errorf("the policy saw %s %v", q.URL, q.Headers)
			}
		})
	}
}

// Nothing is invented for the upstream, nor for the host.
func TestNothingInvented(t *testing.T) {
	g := New(t)
	got := wireHead(t, g)
	c := g.speak("www.example.com")
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n")
	res, _ := answerOn(t, bufio.NewReader(c), "GET")
	lines := within(t, got, "the request")
	sort.Strings(lines)
	if !reflect.DeepEqual(lines, []string{"GET / HTTP/1.1", "Host: www.example.com", "Via: 1.1 exitgate"}) {
		t.Errorf("the origin got %q", lines)
	}
	if want := (http.Header{"Content-Length": {"0"}, "Via": {"1.1 exitgate"}}); !reflect.DeepEqual(res.Header, want) {
		t.Errorf("the host got %v", res.Header)
	}
}

func TestCompressedBodyUntouched(t *testing.T) {
	pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
		var z bytes.Buffer
		zw := gzip.NewWriter(&z)
		zw.Write([]byte("plain"))
		zw.Close()
		g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("X-Asked", fmt.Sprintf("%q", r.Header.Values("Accept-Encoding")))
			w.Write(z.Bytes())
		}), "www.example.com")
		res, body := do(t, c, "GET", "https://www.example.com/", nil)
		if body != z.String() || res.Header.Get("Content-Encoding") != "gzip" || res.Header.Get("X-Asked") != "[]" {
			t.Errorf("got %q %v", body, res.Header)
		}
	})
}

// Answers without a body keep their header, and the connection its framing.
func TestBodilessAnswers(t *testing.T) {
	for _, tc := range []struct{ name, method, answer, length string }{
		{"HEAD with length", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", "1000"},
		{"HEAD of chunks", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ""},
		{"HEAD without length", "HEAD", "HTTP/1.1 200 OK\r\n\r\n", ""},
		{"204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", ""},
		{"204 with length", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", ""},
		{"304 with length", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: \"x\"\r\n\r\n", ""},
		{"304 without", "GET", "HTTP/1.1 304 Not Modified\r\n\r\n", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
				g.rawHTTP("www.example.com", func(n, i int, r *http.Request, _ string) string {
					if r.URL.Path == "/next" {
						return "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext"
					}
					return tc.answer
				})
				res, body := do(t, c, tc.method, "https://www.example.com/", nil)
				if body != "" || res.Header.Get("Content-Length") != tc.length || len(res.TransferEncoding) > 0 {
					t.Errorf("got %q, %v %v", body, res.Header, res.TransferEncoding)
				}
				if _, body := do(t, c, "GET", "https://www.example.com/next", nil); body != "next" {
					t.Errorf("the next answer is %q", body)
				}
				if f := g.Recorder.Last(2); f.Outcome() != exitgate.OutcomeAllowed {
					t.Errorf("flow: %s %v", f.Outcome(), f.Fault)
				}
			})
		})
	}
}

// An answer that breaks the rules of HTTP/1.1 is a fault, and nothing of it is taken for the next answer's.
func TestBrokenAnswers(t *testing.T) {
	big := strings.Repeat("v", 300<<10)
	for _, tc := range []struct{ name, answer, typ string }{
		{"garbage", "SSH-2.0-OpenSSH_9.2\r\n\r\n", "http_protocol_error"},
		{"field without colon", "HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 0\r\n\r\n", "http_protocol_error"},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody5", "http_protocol_error"},
		{"bad length", "HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nbody", "http_protocol_error"},
		{"unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 4\r\n\r\nbody", "http_protocol_error"},
		{"bad status", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", "http_protocol_error"},
		{"huge head", "HTTP/1.1 200 OK\r\nX-A: " + big + "\r\nContent-Length: 0\r\n\r\n", "http_response_header_section_size"},
		{"control byte in a value", "HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 0\r\n\r\n", "http_protocol_error"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
				g.rawHTTP("www.example.com", func(n, i int, r *http.Request, _ string) string {
					if r.URL.Path == "/next" {
						return "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext"
					}
					return tc.answer
				})
				res, body := do(t, c, "GET", "https://www.example.com/", nil)
				if res.StatusCode != 502 {
					t.Errorf("got %d %.200q", res.StatusCode, body)
				}
				if _, body := do(t, c, "GET", "https://www.example.com/next", nil); body != "next" {
					t.Errorf("the next answer is %q", body)
				}
				fault(t, g.Recorder.Wait(1)[0], "receive", tc.typ)
			})
		})
	}
}

// More bytes than an answer declared are not the beginning of the next one.
func TestSurplusIsNotTheNextAnswer(t *testing.T) {
	pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
		g.rawHTTP("www.example.com", func(n, i int, r *http.Request, _ string) string {
			return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n%02dHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", n)
		})
		for i := range 5 {
			if _, body := do(t, c, "GET", "https://www.example.com/", nil); body == "poison" {
				t.Errorf("answer %d is %q", i, body)
			}
		}
	})
}

func TestHugeHeadH2(t *testing.T) {
	g := New(t, func(p *mitm.Proxy) { p.Limits.ResponseHeader = 64 << 10 })
	g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for i := range 100 {
			w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("v", 1000))
		}
	}), "www.example.com")
	if res, _ := do(t, g.Client(true), "GET", "https://www.example.com/", nil); res.StatusCode != 502 {
		t.Errorf("got %d", res.StatusCode)
	}
	fault(t, g.Recorder.Last(1), "receive", "http_protocol_error") // a connection error, to net/http
}

// A field whose name is none is left behind, so that no two readers can differ on it.
func TestBlankInFieldName(t *testing.T) {
	pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
		g.rawHTTP("www.example.com", func(n, i int, r *http.Request, _ string) string {
			return "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\nX-A : v\r\nContent-Length: 4\r\n\r\nbody"
		})
		if res, body := do(t, c, "GET", "https://www.example.com/", nil); body != "body" || len(res.Header) > 2 || res.TransferEncoding != nil {
			t.Errorf("got %q %v", body, res.Header)
		}
	})
}

// An upstream of HTTP/2 may say how long the body would be that 304 spares (RFC 9110, section 8.6).
func TestNotModifiedWithLengthRegression(t *testing.T) {
	g := New(t)
	g.rawTLS("www.example.com", func(n int, c net.Conn) {
		serveRawH2(c, func(h *http2.Framer, id uint32, enc func(...string) []byte) {
			h.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: true,
				BlockFragment: enc(":status", "304", "content-length", "1000", "etag", `"x"`)})
		})
	}, "h2")
	res, body := do(t, g.Client(true), "GET", "https://www.example.com/", nil)
	if res.StatusCode != 304 || body != "" || res.Header.Get("Etag") != `"x"` {
		t.Errorf("got %d %q %v", res.StatusCode, body, res.Header)
	}
	if f := g.Recorder.Last(1); f.Outcome() != exitgate.OutcomeAllowed || f.ResponseBody != exitgate.BodyNone {
		t.Errorf("flow: %s %v %q", f.Outcome(), f.Fault, f.ResponseBody)
	}
}

// serveRawH2 speaks HTTP/2 as a server, frame by frame, and calls answer for the head of each request.
func serveRawH2(c net.Conn, answer func(fr *http2.Framer, id uint32, enc func(fields ...string) []byte)) {
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	fr := http2.NewFramer(c, c)
	fr.WriteSettings()
	var buf bytes.Buffer
	he := hpack.NewEncoder(&buf)
	enc := func(fields ...string) []byte {
		buf.Reset()
		for i := 0; i+1 < len(fields); i += 2 {
			he.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		return bytes.Clone(buf.Bytes())
	}
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				fr.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				fr.WritePing(true, f.Data)
			}
		case *http2.HeadersFrame:
			answer(fr, f.StreamID, enc)
		}
	}
}
