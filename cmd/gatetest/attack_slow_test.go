package gatetest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/mitm"
)

func impatient(p *mitm.Proxy) {
	p.Timeouts = mitm.Timeouts{FirstBytes: soon, Handshake: soon, RequestHeader: soon, Idle: soon, BodyIdle: soon, StreamIdle: soon, ResponseHeader: soon, SpliceIdle: soon}
}

// TestSlowClients: in whatever phase a host stops, the gate lets it go, and the record says in which.
func TestSlowClients(t *testing.T) {
	hello := string(clientHello(t, www))
	get := "GET / HTTP/1.1\r\nHost: " + www + "\r\n\r\n"
	for _, c := range []struct {
		name string
		do   func(t *testing.T, g *Gate) net.Conn
		want string // in the flow; "" no flow
	}{
		{"silent", func(t *testing.T, g *Gate) net.Conn { return g.Dial() }, ""},
		{"one byte", func(t *testing.T, g *Gate) net.Conn { return after(t, g.Dial(), "G") }, "do not tell what they open"},
		{"half a head", func(t *testing.T, g *Gate) net.Conn {
			return after(t, g.Dial(), "GET http://www.example.com/ HTTP/1.1\r\nHos")
		}, exitgate.RuleMalformed},
		{"idle after a request", func(t *testing.T, g *Gate) net.Conn {
			c := after(t, g.Dial(), "GET http://"+www+"/ HTTP/1.1\r\nHost: "+www+"\r\n\r\n")
			receive(t, bufio.NewReader(c), "GET")
			return c
		}, "allowed"},
		{"half a head after a request", func(t *testing.T, g *Gate) net.Conn {
			c := after(t, g.Dial(), "GET http://"+www+"/ HTTP/1.1\r\nHost: "+www+"\r\n\r\n")
			receive(t, bufio.NewReader(c), "GET")
			return after(t, c, "GET http://www.exam")
		}, "allowed"},
		{"silent in the tunnel", func(t *testing.T, g *Gate) net.Conn { return g.opened(www + ":443") }, "no byte came through the tunnel"},
		{"half a hello", func(t *testing.T, g *Gate) net.Conn { return after(t, g.opened(www+":443"), hello[:len(hello)/2]) }, exitgate.RuleMalformed},
		{"half a handshake", func(t *testing.T, g *Gate) net.Conn { return after(t, g.opened(www+":443"), hello) }, "did not finish in time"},
		{"silent after the handshake", func(t *testing.T, g *Gate) net.Conn { return g.insideAs(www+":443", www) }, "client_tls"},
		{"half a head inside", func(t *testing.T, g *Gate) net.Conn {
			return after(t, g.insideAs(www+":443", www), get[:20])
		}, "client_"},
		{"half a body", func(t *testing.T, g *Gate) net.Conn {
			return after(t, g.insideAs(www+":443", www), "POST / HTTP/1.1\r\nHost: "+www+"\r\nContent-Length: 10\r\n\r\nabc")
		}, "client/connection_read_timeout"},
		{"half a chunk", func(t *testing.T, g *Gate) net.Conn {
			return after(t, g.insideAs(www+":443", www), "POST / HTTP/1.1\r\nHost: "+www+"\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab")
		}, "client/connection_read_timeout"},
		{"half a body, refused", func(t *testing.T, g *Gate) net.Conn {
			g.Decide(refused)
			c := after(t, g.insideAs(www+":443", www), "POST / HTTP/1.1\r\nHost: "+www+"\r\nContent-Length: 10\r\n\r\nabc")
			if a := receive(t, bufio.NewReader(c), "POST"); a.status != 403 {
				t.Errorf("status %d", a.status)
			}
			return c
		}, "refused"},
		{"stops reading", func(t *testing.T, g *Gate) net.Conn {
			c := after(t, g.insideAs(www+":443", www), "GET /endless HTTP/1.1\r\nHost: "+www+"\r\n\r\n")
			g.Recorder.Wait(1)
			return c
		}, "client/connection_write_timeout"},
		{"h2 preface", func(t *testing.T, g *Gate) net.Conn { return after(t, g.Dial(), http2.ClientPreface) }, exitgate.RuleMalformed},
		{"h2, header without end", func(t *testing.T, g *Gate) net.Conn {
			c := g.insideAs(www+":443", www, "h2")
			h := newRawH2(t, c)
			h.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.block(":method", "GET")})
			return c
		}, exitgate.RuleMalformed},
		{"h2, half a body", func(t *testing.T, g *Gate) net.Conn {
			c := g.insideAs(www+":443", www, "h2")
			h := newRawH2(t, c)
			h.fr.WriteData(h.headers(false, ":method", "POST", ":scheme", "https", ":authority", www, ":path", "/"), false, []byte("abc"))
			return c
		}, "client/connection_read_timeout"},
		{"h2, window of zero", func(t *testing.T, g *Gate) net.Conn {
			c := g.insideAs(www+":443", www, "h2")
			h := newRawH2(t, c, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			h.headers(true, ":method", "GET", ":scheme", "https", ":authority", www, ":path", "/endless")
			return c
		}, "client/connection_write_timeout"},
		{"silent splice", func(t *testing.T, g *Gate) net.Conn {
			g.Decide(spliceAll)
			return g.opened(www + ":443")
		}, "nothing moved"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := New(t, impatient)
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for r.URL.Path == "/endless" {
					if _, err := w.Write(make([]byte, 1<<16)); err != nil {
						return
					}
				}
				io.Copy(io.Discard, r.Body)
			})
			g.Origin(h, www)
			g.PlainOrigin(h, www)
			conn := c.do(t, g)
			if c.want == "" {
				mustEnd(t, conn)
				if n := g.Recorder.Begun(); n != 0 {
					t.Errorf("%d flows of a connection that sent nothing", n)
				}
				return
			}
			if f := g.Recorder.Last(1); !strings.Contains(describe(f), c.want) {
				t.Errorf("flow: %s; want %s", describe(f), c.want)
			}
			mustEnd(t, conn)
			conn.Close()
			g.waitFor(0)
		})
	}
}

// after sends s and returns c.
func after(t *testing.T, c net.Conn, s string) net.Conn {
	t.Helper()
	send(t, c, s)
	return c
}

// TestDrippedHello: a hello that comes byte by byte is read when it is whole in time, and refused when it is whole too
// late, whatever it says.
func TestDrippedHello(t *testing.T) {
	hello := clientHello(t, www)
	g := New(t)
	c := g.opened(www + ":443")
	for i := range hello {
		send(t, c, string(hello[i:i+1]))
	}
	var first [1]byte
	if _, err := c.Read(first[:]); err != nil || first[0] != 0x16 {
		t.Errorf("the answer to a dripped hello: %#x %v", first, err)
	}
	late := New(t, impatient)
	late.Decide(func(q *exitgate.Question) exitgate.Verdict {
		return exitgate.Verdict{Action: exitgate.Splice, Rule: "exemption:x"}
	})
	o := wire(late, www, true, nil)
	c = late.opened(www + ":443")
	send(t, c, string(hello[:len(hello)-1]))
	f := late.Recorder.Last(1)
	c.Write(hello[len(hello)-1:])
	mustEnd(t, c)
	if f.Verdict.Rule != exitgate.RuleMalformed || f.Outcome() != exitgate.OutcomeRefused {
		t.Errorf("flow: %s", describe(f))
	}
	o.untouched(t)
}

// TestSlowUpstream: an upstream that stops is a fault, never a refusal.
func TestSlowUpstream(t *testing.T) {
	for _, c := range []struct{ says, step, typ string }{
		{"", "wait", "http_response_timeout"},
		{"HTTP/1.1 200 OK\r\nContent-Le", "wait", "http_response_timeout"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "receive", "connection_read_timeout"},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "receive", "connection_read_timeout"},
	} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%q h2=%v", c.says, h2), func(t *testing.T) {
				t.Parallel()
				g := New(t, impatient)
				stop := make(chan struct{})
				wire(g, www, true, func(_ *wireOrigin, conn net.Conn, br *bufio.Reader) {
					http.ReadRequest(br)
					io.WriteString(conn, c.says)
					<-stop
				})
				t.Cleanup(func() { close(stop) })
				if res, err := g.Client(h2).Get("https://" + www + "/"); err == nil {
					_, err = io.Copy(io.Discard, res.Body)
					if res.Body.Close(); res.StatusCode != 504 && (res.StatusCode != 200 || err == nil) {
						t.Errorf("status %d, then %v", res.StatusCode, err)
					}
				}
				if f := g.Recorder.Last(1); f.Fault == nil || f.Fault.Step != c.step || f.Fault.Type != c.typ {
					t.Errorf("flow: %s", describe(f))
				}
			})
		}
	}
}

// TestRefusalDoesNotWait: the answer to a request that is refused comes before its body does.
func TestRefusalDoesNotWaitRegression(t *testing.T) {
	g := New(t)
	g.Decide(refused)
	for _, framing := range []string{"Content-Length: 100000", "Content-Length: 100000000000", "Transfer-Encoding: chunked"} {
		c := g.insideAs(www+":443", www)
		send(t, c, "POST / HTTP/1.1\r\nHost: "+www+"\r\n"+framing+"\r\n\r\n")
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if a := receive(t, bufio.NewReader(c), "POST"); a.status != 403 {
			t.Errorf("%s: %d", framing, a.status)
		}
		c.Close()
	}
}
