package gatetest

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/exitgate/exitgate"
)

// noise yields n bytes and counts those that were taken.
type noise struct {
	left  int64
	taken atomic.Int64
}

func (z *noise) Read(b []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), z.left))
	z.left -= int64(n)
	z.taken.Add(int64(n))
	return n, nil
}

func TestUploadShapes(t *testing.T) {
	for _, tc := range []struct {
		name   string
		body   func() io.Reader
		length int64 // as declared; -1 none
		want   int64
	}{
		{"known", func() io.Reader { return strings.NewReader("body") }, 4, 4},
		{"unknown", func() io.Reader { return io.MultiReader(strings.NewReader("bo"), strings.NewReader("dy")) }, -1, 4},
		{"unknown and empty", func() io.Reader { return io.MultiReader() }, -1, 0},
		{"large and known", func() io.Reader { return &noise{left: 3 << 20} }, 3 << 20, 3 << 20},
		{"large and unknown", func() io.Reader { return &noise{left: 3 << 20} }, -1, 3 << 20},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
				g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					n, err := io.Copy(io.Discard, r.Body)
					fmt.Fprint(w, n, " ", r.ContentLength, " ", err)
				}), "www.example.com")
				r := must[*http.Request](t)(http.NewRequest("PUT", "https://www.example.com/", tc.body()))
				r.ContentLength = tc.length
				res := must[*http.Response](t)(c.Do(r))
				defer res.Body.Close()
				b, _ := io.ReadAll(res.Body)
				length := tc.length
				if tc.want == 0 && r.ProtoMajor == 2 {
					length = 0
				}
				want := fmt.Sprint(tc.want, " ", length, " <nil>")
				if tc.want == 0 && string(b) == "0 0 <nil>" {
					want = "0 0 <nil>" // an empty body of unknown length may become one of known length
				}
				if string(b) != want {
					t.Errorf("the origin read %q, want %q", b, want)
				}
				f := g.Recorder.Last(1)
				if f.Sent.Body != tc.want || tc.want > 0 && f.RequestBody != exitgate.BodyComplete || f.Outcome() != exitgate.OutcomeAllowed {
					t.Errorf("flow: sent %d %q, %s %v", f.Sent.Body, f.RequestBody, f.Outcome(), f.Fault)
				}
				if tc.want == 4 {
					if sum := sha256.Sum256([]byte("body")); f.RequestSHA256 != hex.EncodeToString(sum[:]) {
						t.Errorf("flow: SHA-256 %s", f.RequestSHA256)
					}
				}
			})
		})
	}
}

// heldUpload writes a head and the start of a body that never ends.
func heldUpload(t *testing.T, g *Gate, framing string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c := g.speak("www.example.com")
	fmt.Fprintf(c, "POST /up HTTP/1.1\r\nHost: www.example.com\r\n%s\r\nabc\r\n", framing)
	return c, bufio.NewReader(c)
}

const (
	held        = "Content-Length: 1000000\r\n"
	heldSmall   = "Content-Length: 1000\r\n"
	heldChunked = "Transfer-Encoding: chunked\r\n"
)

// An answer that comes before the body's end goes to the client at once, from policy and upstream alike; the rest is not
// waited for.
func TestEarlyAnswerToHeldUpload(t *testing.T) {
	for _, tc := range []struct {
		name    string
		status  int
		framing string
	}{
		{"upstream", 401, held}, {"upstream", 401, heldSmall}, {"upstream", 413, heldChunked},
		{"policy", 403, held}, {"policy", 403, heldSmall}, {"policy", 403, heldChunked}, {"limit", 413, held},
	} {
		t.Run(fmt.Sprint(tc.name, tc.status, tc.framing), func(t *testing.T) {
			g := New(t)
			g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				http.NewResponseController(w).EnableFullDuplex()
				w.WriteHeader(tc.status)
				io.WriteString(w, "early")
			}), "www.example.com")
			switch tc.name {
			case "policy":
				g.Decide(func(*exitgate.Question) exitgate.Verdict { return exitgate.Verdict{Rule: "no-grant"} })
			case "limit":
				g.Decide(allow(exitgate.Limits{RequestBody: 1000}))
			}
			c, br := heldUpload(t, g, tc.framing)
			if res, body := answerOn(t, br, "POST"); res.StatusCode != tc.status || tc.name == "upstream" && body != "early" {
				t.Errorf("got %d %q", res.StatusCode, body)
			}
			c.Close()
			g.Recorder.Last(1)
		})
	}
}

// The upload behind an early answer is not drained: the client is stopped.
func TestEarlyAnswerStopsUpload(t *testing.T) {
	pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
		g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).EnableFullDuplex()
			io.CopyN(io.Discard, r.Body, 1000)
			w.WriteHeader(413)
			io.WriteString(w, "too much")
		}), "www.example.com")
		body := &noise{left: 1 << 30}
		r := must[*http.Request](t)(http.NewRequest("POST", "https://www.example.com/", body))
		r.ContentLength = body.left
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if b, _ := io.ReadAll(res.Body); res.StatusCode != 413 || string(b) != "too much" {
			t.Errorf("got %d %q", res.StatusCode, b)
		}
		f := g.Recorder.Last(1)
		if n := body.taken.Load(); n > 512<<20 || f.Sent.Body > 64<<20 { // a client that fills the socket faster than it looks takes long to stop
			t.Errorf("%d bytes were taken from the client, %d sent", n, f.Sent.Body)
		}
		if f.Status != 413 || f.RequestBody != exitgate.BodyCut {
			t.Errorf("flow: status %d, request body %q", f.Status, f.RequestBody)
		}
	})
}

// The upstream never gets a whole request over the limit, and the flow tells how much it got.
func TestUploadLimit(t *testing.T) {
	const limit = 1 << 20
	for _, declared := range []bool{true, false} {
		t.Run(fmt.Sprintf("declared=%v", declared), func(t *testing.T) {
			pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
				ended := make(chan error, 1)
				g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					n, err := io.Copy(io.Discard, r.Body)
					if err == nil {
						err = fmt.Errorf("a whole body of %d bytes", n)
						ended <- err
						return
					}
					ended <- nil
				}), "www.example.com")
				g.Decide(allow(exitgate.Limits{RequestBody: limit}))
				body := &noise{left: 1 << 28}
				r := must[*http.Request](t)(http.NewRequest("POST", "https://www.example.com/", body))
				r.ContentLength = -1
				if declared {
					r.ContentLength = body.left
				}
				res, err := c.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				f := g.Recorder.Last(1)
				left := int64(limit)
				if declared {
					left = 0
				}
				if res.StatusCode != 413 || f.Status != 413 || f.RequestBody != exitgate.BodyOverLimit || f.Verdict.Rule != exitgate.RuleLimit || f.Sent.Body != left {
					t.Errorf("got %d; flow: status %d, body %q, rule %s, sent %d", res.StatusCode, f.Status, f.RequestBody, f.Verdict.Rule, f.Sent.Body)
				}
				if n := body.taken.Load(); n > 64<<20 {
					t.Errorf("%d bytes were taken from the client", n)
				}
				if !declared {
					if err := within(t, ended, "the origin"); err != nil {
						t.Errorf("the origin got %v", err)
					}
				}
			})
		})
	}
}

func TestUploadOfExactlyTheLimit(t *testing.T) {
	pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
		g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }), "www.example.com")
		g.Decide(allow(exitgate.Limits{RequestBody: 1000}))
		if res, _ := do(t, c, "POST", "https://www.example.com/", &noise{left: 1000}); res.StatusCode != 200 {
			t.Errorf("got %d", res.StatusCode)
		}
	})
}

// A limit is met while the answer is already on its way: the client cannot get 413, but must not get a whole answer either.
func TestUploadLimitAfterAnswerBegan(t *testing.T) {
	pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
		g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			rc.EnableFullDuplex()
			io.WriteString(w, "begin")
			rc.Flush()
			io.Copy(io.Discard, r.Body)
		}), "www.example.com")
		g.Decide(allow(exitgate.Limits{RequestBody: 1000}))
		pr, pw := io.Pipe()
		r := must[*http.Request](t)(http.NewRequest("POST", "https://www.example.com/", pr))
		res := must[*http.Response](t)(c.Do(r))
		defer res.Body.Close()
		io.ReadFull(res.Body, make([]byte, 5))
		go func() { io.Copy(pw, &noise{left: 1 << 20}); pw.Close() }()
		if b, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("the answer came to its end: %q", b)
		}
		pr.Close()
		if f := g.Recorder.Last(1); f.Outcome() != exitgate.OutcomeRefused || f.Verdict.Rule != exitgate.RuleLimit || f.RequestBody != exitgate.BodyOverLimit || f.Sent.Body != 1000 {
			t.Errorf("flow: %s, rule %s, fault %+v, request body %q %d", f.Outcome(), f.Verdict.Rule, f.Fault, f.RequestBody, f.Sent.Body)
		}
	})
}

func TestDownloadLimit(t *testing.T) {
	for _, declared := range []bool{true, false} {
		t.Run(fmt.Sprintf("declared=%v", declared), func(t *testing.T) {
			pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
				g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if declared {
						w.Header().Set("Content-Length", "1000000")
					}
					w.Write(make([]byte, 1000000))
				}), "www.example.com")
				g.Decide(allow(exitgate.Limits{ResponseBody: 100000}))
				res := must[*http.Response](t)(c.Get("https://www.example.com/"))
				defer res.Body.Close()
				n, err := io.Copy(io.Discard, res.Body)
				f := g.Recorder.Last(1)
				if f.Outcome() != exitgate.OutcomeRefused || f.Verdict.Rule != exitgate.RuleLimit || f.ResponseBody != exitgate.BodyOverLimit {
					t.Errorf("flow: %s, rule %s, body %q", f.Outcome(), f.Verdict.Rule, f.ResponseBody)
				}
				if declared && (res.StatusCode == 200 || f.Received.Body != 0) {
					t.Errorf("got %d, %d bytes of the upstream's", res.StatusCode, f.Received.Body)
				}
				if !declared && (err == nil || n > 100000 || f.Received.Body != 100000) {
					t.Errorf("got %d bytes, %v; flow: %d", n, err, f.Received.Body)
				}
			})
		})
	}
}

// bulk is how much goes each way; the race detector makes each byte dear.
func bulk() int64 {
	if testing.Short() || raceDetector {
		return 16 << 20
	}
	return 256 << 20
}

func TestBulkInBoundedMemory(t *testing.T) {
	pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
		size := bulk()
		var top uint64
		look := func(r io.Reader) (n int64, err error) { // one look at the heap for each 8 MiB
			for err == nil {
				var m int64
				m, err = io.CopyN(io.Discard, r, 8<<20)
				n += m
				var s runtime.MemStats
				runtime.ReadMemStats(&s)
				top = max(top, s.HeapInuse)
			}
			if err == io.EOF {
				err = nil
			}
			return n, err
		}
		g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			look(r.Body)
			io.CopyN(w, &noise{left: size}, size)
		}), "www.example.com")
		runtime.GC()
		var before runtime.MemStats
		runtime.ReadMemStats(&before)
		r := must[*http.Request](t)(http.NewRequest("POST", "https://www.example.com/", io.NopCloser(&noise{left: size})))
		r.ContentLength = size
		res := must[*http.Response](t)(c.Do(r))
		defer res.Body.Close()
		if n, err := look(res.Body); n != size || err != nil {
			t.Errorf("%d bytes came back, %v", n, err)
		}
		if grown := int64(top) - int64(before.HeapInuse); grown > 24<<20 { // client, gateway and origin together
			t.Errorf("the heap grew by %d MiB for %d MiB each way", grown>>20, size>>20)
		}
		if f := g.Recorder.Last(1); f.Sent.Body != size || f.Received.Body != size {
			t.Errorf("flow: sent %d, received %d", f.Sent.Body, f.Received.Body)
		}
	})
}

// An origin that does not read holds the client back: what is under way fits into the buffers of sockets and windows.
func TestBackPressure(t *testing.T) {
	pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
		read := make(chan bool)
		g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).EnableFullDuplex()
			<-read
			io.WriteString(w, "done")
		}), "www.example.com")
		body := &noise{left: 1 << 30}
		stalled := make(chan int64, 1)
		go func() { // until nothing was taken between two looks that had time for it
			last, same := int64(-1), 0
			for same < 20 {
				if n := body.taken.Load(); n == last && n > 0 {
					same++
				} else {
					last, same = n, 0
				}
				<-afterRoundTrip(g)
			}
			stalled <- last
			close(read)
		}()
		r := must[*http.Request](t)(http.NewRequest("POST", "https://www.example.com/", io.NopCloser(body)))
		r.ContentLength = body.left
		res := must[*http.Response](t)(c.Do(r))
		defer res.Body.Close()
		if b, _ := io.ReadAll(res.Body); string(b) != "done" {
			t.Errorf("the origin said %q", b)
		}
		if n := <-stalled; n > 32<<20 {
			t.Errorf("%d MiB were taken from a client whose origin reads nothing", n>>20)
		}
	})
}

// afterRoundTrip is closed when the gate has answered a refused request: a while of real work, not a sleep.
func afterRoundTrip(g *Gate) <-chan bool {
	ch := make(chan bool)
	go func() {
		defer close(ch)
		c, err := net.Dial("tcp", g.Addr)
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, "GET /not-a-proxy-request HTTP/1.1\r\nHost: x\r\n\r\n")
		http.ReadResponse(bufio.NewReader(c), nil)
	}()
	return ch
}

// Chunks pass unmerged in meaning: what the client sends is what the origin reads, however it was cut.
func TestChunkBoundaries(t *testing.T) {
	g := New(t)
	got := make(chan []byte, 1)
	g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- b
	}), "www.example.com")
	c := g.speak("www.example.com")
	var want bytes.Buffer
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: www.example.com\r\nTransfer-Encoding: chunked\r\n\r\n")
	for i := 1; i < 200; i++ {
		piece := bytes.Repeat([]byte{byte(i)}, i)
		want.Write(piece)
		for _, b := range fmt.Appendf(nil, "%x\r\n%s\r\n", len(piece), piece) {
			c.Write([]byte{b})
			if i > 20 {
				break
			}
		}
		if i > 20 {
			c.Write(fmt.Appendf(nil, "%x\r\n%s\r\n", len(piece), piece)[1:])
		}
	}
	io.WriteString(c, "0\r\n\r\n")
	if res, _ := answerOn(t, bufio.NewReader(c), "POST"); res.StatusCode != 200 {
		t.Fatalf("got %d", res.StatusCode)
	}
	if b := within(t, got, "the body"); !bytes.Equal(b, want.Bytes()) {
		t.Errorf("%d bytes came, want %d", len(b), want.Len())
	}
}
