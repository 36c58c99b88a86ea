package gatetest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/mitm"
)

func echoSocket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		typ, b, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if string(b) == "leave" {
			c.Close(4001, "as asked")
			return
		}
		if c.Write(r.Context(), typ, b) != nil {
			return
		}
	}
}

func TestWebSocketEcho(t *testing.T) {
	for _, scheme := range []string{"wss", "ws"} {
		t.Run(scheme, func(t *testing.T) {
			g := New(t)
			g.Origin(http.HandlerFunc(echoSocket), "ws.example.com")
			g.PlainOrigin(http.HandlerFunc(echoSocket), "ws.example.com")
			ctx := bounded(t)
			c, res, err := websocket.Dial(ctx, scheme+"://ws.example.com/echo", &websocket.DialOptions{HTTPClient: g.Client(false)})
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseNow()
			if res.Header.Get("Via") != "1.1 exitgate" || len(res.Header.Values("Connection")) != 1 {
				t.Errorf("the 101 has the header %v", res.Header)
			}
			sent := int64(0)
			for i := range 200 {
				msg := bytes.Repeat([]byte{byte(i)}, i*7)
				if err := c.Write(ctx, websocket.MessageBinary, msg); err != nil {
					t.Fatal(err)
				}
				if _, b, err := c.Read(ctx); err != nil || !bytes.Equal(b, msg) {
					t.Fatalf("message %d: %d bytes came back, %v", i, len(b), err)
				}
				sent += int64(len(msg))
			}
			c.Write(ctx, websocket.MessageText, []byte("leave"))
			if _, _, err := c.Read(ctx); websocket.CloseStatus(err) != 4001 {
				t.Errorf("the close of the upstream came as %v", err)
			}
			f := g.Recorder.Last(1)
			if f.Outcome() != exitgate.OutcomeAllowed || f.Status != 101 || f.Question.HTTP.Upgrade != "websocket" {
				t.Errorf("flow: outcome %s, status %d, fault %v", f.Outcome(), f.Status, f.Fault)
			}
			// A frame of the client has a header of 6 to 8 bytes, one of the server 2 to 4.
			if n := f.Sent.Body; n < sent+200*6 || n > sent+202*8+20 {
				t.Errorf("sent %d, for messages of %d bytes", n, sent)
			}
			if n := f.Received.Body; n < sent+200*2 || n > sent+202*4+20 {
				t.Errorf("received %d, for messages of %d bytes", n, sent)
			}
		})
	}
}

// upgradeEcho is an origin that switches to a protocol of plain bytes and echoes them.
func upgradeEcho(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	io.Copy(conn, rw)
}

func (g *Gate) upgrade(host string) (io.ReadWriteCloser, *bufio.Reader) {
	g.T.Helper()
	c := g.speak(host)
	fmt.Fprintf(c, "GET /s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", host)
	br := bufio.NewReader(c)
	if res := must[*http.Response](g.T)(http.ReadResponse(br, nil)); res.StatusCode != 101 {
		g.T.Fatalf("got %s", res.Status)
	}
	return c, br
}

func TestWebSocketLimits(t *testing.T) {
	for _, tc := range []struct {
		name   string
		limits exitgate.Limits
		state  func(exitgate.Flow) exitgate.BodyState
		left   func(exitgate.Flow) int64
	}{
		{"out", exitgate.Limits{RequestBody: 1000}, func(f exitgate.Flow) exitgate.BodyState { return f.RequestBody }, func(f exitgate.Flow) int64 { return f.Sent.Body }},
		{"in", exitgate.Limits{ResponseBody: 1000}, func(f exitgate.Flow) exitgate.BodyState { return f.ResponseBody }, func(f exitgate.Flow) int64 { return f.Received.Body }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := New(t)
			g.Origin(http.HandlerFunc(upgradeEcho), "ws.example.com")
			g.Decide(allow(tc.limits))
			c, br := g.upgrade("ws.example.com")
			go c.Write(make([]byte, 5000))
			if n, _ := io.Copy(io.Discard, br); n > 1000 {
				t.Errorf("%d bytes came back over a limit of 1000", n)
			}
			f := g.Recorder.Last(1)
			if f.Outcome() != exitgate.OutcomeRefused || f.Verdict.Rule != exitgate.RuleLimit || tc.state(f) != exitgate.BodyOverLimit || tc.left(f) != 1000 {
				t.Errorf("flow: outcome %s, verdict %+v, sent %d %s, received %d %s", f.Outcome(), f.Verdict, f.Sent.Body, f.RequestBody, f.Received.Body, f.ResponseBody)
			}
		})
	}
}

func TestWebSocketDurationLimit(t *testing.T) {
	g := New(t)
	g.Origin(http.HandlerFunc(upgradeEcho), "ws.example.com")
	g.Decide(allow(exitgate.Limits{Duration: 300 * time.Millisecond}))
	_, br := g.upgrade("ws.example.com")
	io.Copy(io.Discard, br)
	if f := g.Recorder.Last(1); f.Outcome() != exitgate.OutcomeRefused || f.Verdict.Rule != exitgate.RuleLimit {
		t.Errorf("flow: outcome %s, verdict %+v, fault %+v", f.Outcome(), f.Verdict, f.Fault)
	}
}

func TestWebSocketIdle(t *testing.T) {
	g := New(t, func(p *mitm.Proxy) { p.Timeouts.StreamIdle = 200 * time.Millisecond })
	g.Origin(http.HandlerFunc(upgradeEcho), "ws.example.com")
	_, br := g.upgrade("ws.example.com")
	io.Copy(io.Discard, br)
	fault(t, g.Recorder.Last(1), "receive", "connection_read_timeout")
}

func TestWebSocketClientLeaves(t *testing.T) {
	g := New(t)
	gone := make(chan error, 1)
	g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, _ := http.NewResponseController(w).Hijack()
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
		_, err := io.Copy(io.Discard, rw)
		gone <- err
	}), "ws.example.com")
	c, br := g.upgrade("ws.example.com")
	if b := make([]byte, 5); true {
		if _, err := io.ReadFull(br, b); err != nil || string(b) != "hello" {
			t.Fatalf("bytes behind the 101: %q, %v", b, err)
		}
	}
	c.Close()
	within(t, gone, "the upstream to see that the client left")
	g.Recorder.Last(1)
}

// The upstream may only switch protocols when it was asked to, and only to what it was asked for.
func TestUpgradeUnasked(t *testing.T) {
	pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
		g.rawHTTP("ws.example.com", func(n, i int, r *http.Request, _ string) string {
			return "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nsecret"
		})
		res, body := do(t, c, "GET", "https://ws.example.com/", nil)
		if res.StatusCode != 502 || strings.Contains(body, "secret") {
			t.Errorf("got %d %q", res.StatusCode, body)
		}
		fault(t, g.Recorder.Last(1), "wait", "http_upgrade_failed")
	})
}

// An upgrade to anything but a WebSocket is a request as if it had not asked (RFC 9110, section 7.8).
func TestUpgradeIgnored(t *testing.T) {
	g := New(t)
	g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%q %q", r.Header.Get("Upgrade"), r.Header.Get("Connection"))
	}), "www.example.com")
	c := g.speak("www.example.com")
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: www.example.com\r\nConnection: Upgrade\r\nUpgrade: example/1\r\n\r\n")
	if res, body := answerOn(t, bufio.NewReader(c), "GET"); res.StatusCode != 200 || body != `"" ""` {
		t.Errorf("got %d %s", res.StatusCode, body)
	}
}
