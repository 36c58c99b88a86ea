package gatetest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

func TestResponseTrailers(t *testing.T) {
	for _, tc := range []struct {
		name            string
		announced, sent []string // trailer names; values are "v"
		header          http.Header
	}{
		{"announced", []string{"X-A", "X-B"}, []string{"X-A", "X-B"}, nil},
		{"unannounced", nil, []string{"X-A", "X-B"}, nil},
		{"mixed", []string{"X-A"}, []string{"X-A", "X-B"}, nil},
		{"announced and not sent", []string{"X-A", "X-B"}, []string{"X-B"}, nil},
		{"announced and none sent", []string{"X-A"}, nil, nil},
		{"header and unannounced trailer", nil, []string{"X-A"}, http.Header{"X-A": {"head"}}},
		{"multiple values", []string{"X-A"}, []string{"X-A", "X-A"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
				g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					for k, vs := range tc.header {
						w.Header()[k] = vs
					}
					if tc.announced != nil && tc.header == nil {
						w.Header().Set("Trailer", strings.Join(tc.announced, ", "))
					}
					io.WriteString(w, "body")
					http.NewResponseController(w).Flush()
					for _, k := range tc.sent {
						w.Header().Add(http.TrailerPrefix+k, "v")
					}
				}), "www.example.com")
				res, body := do(t, c, "GET", "https://www.example.com/", nil)
				want := http.Header{}
				for _, k := range tc.sent {
					want.Add(k, "v")
				}
				got := http.Header{}
				for k, vs := range res.Trailer {
					if vs != nil {
						got[k] = vs
					}
				}
				if body != "body" || !reflect.DeepEqual(got, want) {
					t.Errorf("got %q, trailers %v, want %v", body, got, want)
				}
				for _, k := range []string{"X-A", "X-B"} {
					if !reflect.DeepEqual(res.Header[k], tc.header[k]) {
						t.Errorf("header %s: %v, want %v", k, res.Header[k], tc.header[k])
					}
				}
			})
		})
	}
}

// A name that stands in the header and is announced as a trailer keeps its two values apart.
func TestResponseTrailerAlsoHeader(t *testing.T) {
	pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
		g.rawHTTP("www.example.com", func(n, i int, r *http.Request, body string) string {
			return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\nX-A: head\r\n\r\n4\r\nbody\r\n0\r\nX-A: tail\r\n\r\n"
		})
		res, body := do(t, c, "GET", "https://www.example.com/", nil)
		if body != "body" || !reflect.DeepEqual(res.Header["X-A"], []string{"head"}) || !reflect.DeepEqual(res.Trailer["X-A"], []string{"tail"}) {
			t.Errorf("got %q, header %v, trailer %v", body, res.Header["X-A"], res.Trailer["X-A"])
		}
	})
}

// A trailer behind a body of no bytes, on HTTP/2 with a declared length of 0 too.
func TestTrailerWithoutBody(t *testing.T) {
	pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
		g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-A")
			if r.ProtoMajor == 2 {
				w.Header().Set("Content-Length", "0")
			}
			http.NewResponseController(w).Flush()
			w.Header().Set("X-A", "v")
		}), "www.example.com")
		if res, _ := do(t, c, "GET", "https://www.example.com/", nil); res.Trailer.Get("X-A") != "v" {
			t.Errorf("trailers %v", res.Trailer)
		}
	})
}

func TestRequestTrailers(t *testing.T) {
	pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
		g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %v", b, r.Trailer)
		}), "www.example.com")
		r := must[*http.Request](t)(http.NewRequest("POST", "https://www.example.com/", io.MultiReader(strings.NewReader("body"))))
		r.Trailer = http.Header{"X-Sum": {"abc"}}
		res := must[*http.Response](t)(c.Do(r))
		defer res.Body.Close()
		if b, _ := io.ReadAll(res.Body); string(b) != "body map[X-Sum:[abc]]" {
			t.Errorf("the origin got %q", b)
		}
	})
}

// A client of HTTP/1.1 need not announce its trailers.
func TestRequestTrailersUnannounced(t *testing.T) {
	g := New(t)
	got := make(chan string, 1)
	g.rawTLS("www.example.com", func(n int, c net.Conn) {
		br := bufio.NewReader(c)
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		b, _ := io.ReadAll(r.Body)
		got <- fmt.Sprintf("%s %v", b, r.Trailer)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})
	c := g.speak("www.example.com")
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: www.example.com\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: abc\r\n\r\n")
	if res, _ := answerOn(t, bufio.NewReader(c), "POST"); res.StatusCode != 200 {
		t.Fatal(res.Status)
	}
	if s := within(t, got, "the request"); s != "body map[X-Sum:[abc]]" {
		t.Errorf("the origin got %q", s)
	}
}
