package gatetest

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/mitm"
)

// heap returns the bytes in use after a collection; the second one empties the pools.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// TestHugeHeads: what is larger than a head may be is refused before it is held.
func TestHugeHeads(t *testing.T) {
	for name, s := range map[string]string{
		"request line":          "GET http://www.example.com/" + strings.Repeat("a", 20<<10) + " HTTP/1.1\r\n",
		"request line, endless": "GET http://www.example.com/" + strings.Repeat("a", 8<<20),
		"one field":             "GET http://www.example.com/ HTTP/1.1\r\nHost: www.example.com\r\nX: " + strings.Repeat("a", 70<<10) + "\r\n\r\n",
		"one field, endless":    "GET http://www.example.com/ HTTP/1.1\r\nHost: www.example.com\r\nX: " + strings.Repeat("a", 8<<20),
		"100,000 fields":        "GET http://www.example.com/ HTTP/1.1\r\nHost: www.example.com\r\n" + strings.Repeat("a:b\r\n", 100_000) + "\r\n",
		"200 fields":            "GET http://www.example.com/ HTTP/1.1\r\nHost: www.example.com\r\n" + strings.Repeat("a:b\r\n", 200) + "\r\n",
		"trailer":               "POST http://www.example.com/ HTTP/1.1\r\nHost: www.example.com\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("a:b\r\n", 100_000) + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			g := New(t)
			wire(g, www, false, nil)
			c := g.Dial()
			go io.WriteString(c, s) // the gate stops reading
			a, err := tryReceive(bufio.NewReader(c), "GET")
			if err == nil && a.status != 431 {
				t.Errorf("status %d", a.status)
			}
			f := g.Recorder.Last(1)
			if f.Status != 431 || f.Verdict.Rule != exitgate.RuleMalformed {
				t.Errorf("flow: %s; the client got %v", describe(f), err)
			}
		})
	}
}

// TestHalfHeads: what two hundred hosts can make the gate hold by half a head each is bounded.
func TestHalfHeads(t *testing.T) {
	const n, size = 200, 60 << 10
	g := New(t)
	half := "GET http://www.example.com/ HTTP/1.1\r\nHost: www.example.com\r\n" + strings.Repeat("X: "+strings.Repeat("a", 1000)+"\r\n", size/1005)
	before := heap()
	conns := make([]net.Conn, n)
	for i := range conns {
		conns[i] = g.Dial()
		send(t, conns[i], half)
	}
	g.waitFor(n)
	used := heap() - before
	t.Logf("%d bytes for each of %d half heads of %d bytes", used/n, n, len(half))
	if used > n*4*size {
		t.Errorf("%d half heads of %d bytes take %d bytes", n, len(half), used)
	}
	for _, c := range conns {
		c.Close()
	}
	g.Recorder.Wait(n)
}

// TestFloodsH2: what a client can do to an HTTP/2 server costs it its connection, and the gate a bounded amount.
func TestFloodsH2(t *testing.T) {
	before := heap()
	for name, flood := range map[string]func(h *rawH2) error{
		"rapid reset": func(h *rawH2) (err error) {
			for range 5_000 {
				id := h.next
				h.next += 2
				h.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: h.block(":method", "GET", ":scheme", "https", ":authority", www, ":path", "/slow"), EndStream: true, EndHeaders: true})
				if err = h.fr.WriteRSTStream(id, http2.ErrCodeCancel); err != nil {
					return err
				}
			}
			return nil
		},
		"continuation": func(h *rawH2) (err error) {
			h.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.block(":method", "GET")})
			block := h.block("x", strings.Repeat("a", 1000))
			for range 5_000 {
				if err = h.fr.WriteContinuation(1, false, block); err != nil {
					return err
				}
			}
			return nil
		},
		"empty continuation": func(h *rawH2) (err error) {
			h.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.block(":method", "GET")})
			for range 50_000 {
				if err = h.fr.WriteContinuation(1, false, nil); err != nil {
					return err
				}
			}
			return nil
		},
		"header bomb": func(h *rawH2) error {
			var b bytes.Buffer
			enc := hpack.NewEncoder(&b)
			big := hpack.HeaderField{Name: "x", Value: strings.Repeat("a", 3900)}
			for range 10_000 { // one in the table, and one byte for each time it is meant
				enc.WriteField(big)
			}
			block := append(h.block(":method", "GET", ":scheme", "https", ":authority", www, ":path", "/"), b.Bytes()...)
			return h.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true, EndHeaders: true})
		},
		"settings": func(h *rawH2) (err error) {
			for range 30_000 {
				if err = h.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}); err != nil {
					return err
				}
			}
			return nil
		},
		"ping": func(h *rawH2) (err error) {
			for range 30_000 {
				if err = h.fr.WritePing(false, [8]byte{}); err != nil {
					return err
				}
			}
			return nil
		},
		"streams": func(h *rawH2) error {
			for range 1000 {
				h.headers(false, ":method", "POST", ":scheme", "https", ":authority", www, ":path", "/slow")
			}
			return nil
		},
		"window overflow": func(h *rawH2) error { return h.fr.WriteWindowUpdate(0, 1<<31-1) },
		"frame too large": func(h *rawH2) error { return h.fr.WriteData(1, false, make([]byte, 1<<20+1)) },
		"data on idle":    func(h *rawH2) error { return h.fr.WriteData(1, false, []byte("x")) },
		"even stream": func(h *rawH2) error {
			h.next = 2
			h.headers(true, ":method", "GET", ":scheme", "https", ":authority", www, ":path", "/")
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := New(t)
			g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					<-r.Context().Done()
				}
			}), www)
			h := newRawH2(t, g.insideAs(www+":443", www, "h2"))
			flood(h) // the gate may stop reading, or be gone
			h.conn.Close()
			conn := g.Recorder.Last(1).Conn
			if status, _, _ := get(t, g.Client(true), "https://"+www+"/"); status != 200 {
				t.Errorf("the next client got %d", status)
			}
			g.Client(true).CloseIdleConnections()
			for _, f := range g.Recorder.Wait(2) {
				if f.Conn == conn && f.Fault != nil && f.Fault.Type == "client_tls" {
					t.Errorf("flow: %s", describe(f))
				}
			}
		})
	}
	used := heap() - before
	t.Logf("%d bytes after the floods", used)
	if used > 16<<20 {
		t.Errorf("%d bytes are in use after the floods", used)
	}
}

// TestOverload: connections over a bound are answered and recorded, and those that are there go on.
func TestOverload(t *testing.T) {
	for name, limits := range map[string]mitm.Limits{"in all": {Connections: 3}, "for one host": {ConnectionsPerHost: 3}} {
		t.Run(name, func(t *testing.T) {
			g := New(t, func(p *mitm.Proxy) { p.Limits = limits })
			wire(g, www, false, nil)
			held := []net.Conn{g.Dial(), g.Dial(), g.Dial()}
			g.waitFor(3)
			for i := range 3 {
				over := g.Dial()
				a := receive(t, bufio.NewReader(over), "GET")
				f := g.Recorder.Last(i + 1)
				if a.status != 503 || a.header.Get("Retry-After") == "" || !strings.Contains(a.header.Get("Proxy-Status"), "connection_limit_reached") ||
					!strings.Contains(a.header.Get("Proxy-Status"), f.ID.String()) {
					t.Errorf("%d %v", a.status, a.header)
				}
				if f.Verdict.Rule != exitgate.RuleOverload || f.Status != 503 {
					t.Errorf("flow: %s", describe(f))
				}
			}
			send(t, held[0], "GET http://"+www+"/ HTTP/1.1\r\nHost: "+www+"\r\n\r\n")
			if a := receive(t, bufio.NewReader(held[0]), "GET"); a.status != 200 {
				t.Errorf("a connection that was there: %d", a.status)
			}
			for _, c := range held {
				c.Close()
			}
			g.waitFor(0)
			if status, _, _ := get(t, g.Client(false), "http://"+www+"/"); status != 200 {
				t.Errorf("after the others left: %d", status)
			}
		})
	}
}

// hostileH2 are upstreams that break HTTP/2; each is a fault of the upstream's, and ends.
var hostileH2 = map[string]func(h *rawH2){
	"goaway at once":  func(h *rawH2) { h.fr.WriteGoAway(0, http2.ErrCodeInternal, nil) },
	"reset":           func(h *rawH2) { h.fr.WriteRSTStream(1, http2.ErrCodeInternal) },
	"refused stream":  func(h *rawH2) { h.fr.WriteRSTStream(1, http2.ErrCodeRefusedStream) },
	"frame size of 1": func(h *rawH2) { h.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1}) },
	"frame size of 0": func(h *rawH2) { h.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 0}) },
	"window of 2^31":  func(h *rawH2) { h.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31}) },
	"window overflow": func(h *rawH2) { h.fr.WriteWindowUpdate(0, 1<<31-1); h.fr.WriteWindowUpdate(0, 1<<31-1) },
	"data first":      func(h *rawH2) { h.fr.WriteData(1, true, []byte("x")) },
	"no status":       func(h *rawH2) { h.respond(false, "x", "y") },
	"bad status":      func(h *rawH2) { h.respond(true, ":status", "abc") },
	"two statuses":    func(h *rawH2) { h.respond(true, ":status", "200", ":status", "403") },
	"upper case":      func(h *rawH2) { h.respond(true, ":status", "200", "X-Upper", "y") },
	"line break":      func(h *rawH2) { h.respond(true, ":status", "200", "x", "y\r\nSet-Cookie: a=b") },
	"push": func(h *rawH2) {
		h.fr.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true, BlockFragment: h.block(":method", "GET", ":scheme", "https", ":authority", www, ":path", "/x")})
	},
	"too long": func(h *rawH2) {
		h.respond(false, ":status", "200", "content-length", "2")
		h.fr.WriteData(1, true, []byte("more than two"))
	},
	"too short": func(h *rawH2) {
		h.respond(false, ":status", "200", "content-length", "20")
		h.fr.WriteData(1, true, []byte("two"))
	},
	"huge header": func(h *rawH2) {
		block := h.block(":status", "200", "x", strings.Repeat("a", 1<<20))
		h.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:16384]})
		for block = block[16384:]; len(block) > 0; block = block[min(16384, len(block)):] {
			h.fr.WriteContinuation(1, len(block) <= 16384, block[:min(16384, len(block))])
		}
	},
	"garbage": func(h *rawH2) { io.WriteString(h.conn, strings.Repeat("garbage", 100)) },
	"http/1":  func(h *rawH2) { io.WriteString(h.conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") },
}

func (h *rawH2) respond(end bool, fields ...string) {
	h.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.block(fields...), EndStream: end, EndHeaders: true})
}

func TestHostileUpstreamH2(t *testing.T) {
	for name, attack := range hostileH2 {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := New(t, impatient)
			g.h2Upstream(www, attack)
			status, broken := 0, false
			if res, err := g.Client(true).Get("https://" + www + "/"); err == nil {
				_, err = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				status, broken = res.StatusCode, err != nil
				if res.Header.Get("Set-Cookie") != "" {
					t.Errorf("the answer was split: %v", res.Header)
				}
			} else {
				broken = true
			}
			if !broken && status != 502 && status != 504 {
				t.Errorf("status %d", status)
			}
			f := g.Recorder.Last(1)
			if f.Fault == nil || f.Fault.Step == "client" || f.Fault.Type == "proxy_internal_error" {
				t.Errorf("flow: %s", describe(f))
			}
		})
	}
}

// h2Upstream starts an upstream that reads a request, attacks, and reads until the gate closes.
func (g *Gate) h2Upstream(name string, attack func(*rawH2)) {
	g.rawTLS(name, func(_ int, c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		h := &rawH2{t: g.T, conn: c, fr: http2.NewFramer(c, c), next: 2}
		h.fr.AllowIllegalWrites = true
		h.enc = hpack.NewEncoder(&h.buf)
		h.fr.WriteSettings()
		for {
			f, err := h.fr.ReadFrame()
			if err != nil {
				return
			}
			if _, ok := f.(*http2.HeadersFrame); ok {
				break
			}
		}
		attack(h)
		io.Copy(io.Discard, c)
	}, "h2")
}
