package gatetest

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/mitm"
)

// An exempt client sees the upstream's own certificate, and speaks with it as if nobody stood between.
func TestSpliceTLS(t *testing.T) {
	g := New(t)
	g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }), "www.example.com")
	g.Decide(exempt(false, 0))
	c := g.Client(true)
	c.Transport.(*http.Transport).TLSClientConfig.RootCAs = g.Origins.Pool()
	res, body := do(t, c, "GET", "https://www.example.com/", nil)
	if body != "HTTP/2.0" || res.Header.Get("Via") != "" {
		t.Errorf("got %q %v", body, res.Header)
	}
	c.CloseIdleConnections()
	f := g.Recorder.Last(1)
	if f.Kind != exitgate.KindTunnel || f.Outcome() != exitgate.OutcomeAllowed || f.Authority.SNI != "www.example.com" || f.Verdict.Exemption != "x" ||
		f.Client.Proto != "tls" || f.Sent.Body < 500 || f.Received.Body < 500 || f.Question.TLS == nil || f.Question.TLS.JA4 == "" || !f.Authority.Dialled.IsValid() {
		t.Errorf("flow: %+v", f)
	}
}

// hello is what a client with this configuration says first.
func hello(t testing.TB, conf *tls.Config) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	go tls.Client(a, conf).Handshake()
	buf := make([]byte, 16<<10)
	n, err := b.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	return buf[:n]
}

// Bytes behind the hello are carried as they are, both ways, and each end passes.
func TestSpliceIdentity(t *testing.T) {
	first := hello(t, &tls.Config{ServerName: "www.example.com"})
	up := make([]byte, 3<<20)
	rand.Read(up)
	for _, pieces := range []int{len(first), 1} {
		for _, ends := range []string{"client first", "upstream first"} {
			t.Run(fmt.Sprint(pieces, ends), func(t *testing.T) {
				g := New(t)
				g.Decide(exempt(false, 0))
				sum := make(chan [32]byte, 1)
				o := newRaw(t, func(n int, c net.Conn) {
					h := sha256.New()
					if ends == "upstream first" {
						c.Write(up)
						c.(*net.TCPConn).CloseWrite()
					}
					io.Copy(h, c)
					sum <- [32]byte(h.Sum(nil))
					if ends == "client first" {
						c.Write(up)
					}
				})
				g.Resolver.Add("www.example.com", 443, o.Addr)
				c := g.opened("www.example.com:443").(*net.TCPConn)
				c.SetNoDelay(true)
				for i := 0; i < len(first); i += pieces {
					c.Write(first[i:min(i+pieces, len(first))])
				}
				got := make(chan []byte, 1)
				go func() { b, _ := io.ReadAll(c); got <- b }()
				if ends == "upstream first" {
					if b := within(t, got, "the upstream's bytes and end"); !bytes.Equal(b, up) {
						t.Errorf("%d bytes came back, want %d", len(b), len(up))
					}
				}
				c.Write(up)
				c.CloseWrite()
				if s := within(t, sum, "the client's bytes and end"); s != sha256.Sum256(append(append([]byte{}, first...), up...)) {
					t.Error("the upstream got other bytes than were sent")
				}
				if ends == "client first" {
					if b := within(t, got, "the upstream's answer"); !bytes.Equal(b, up) {
						t.Errorf("%d bytes came back, want %d", len(b), len(up))
					}
				}
				f := g.Recorder.Last(1)
				if f.Outcome() != exitgate.OutcomeAllowed || f.Sent.Body != int64(len(first)+len(up)) || f.Received.Body != int64(len(up)) {
					t.Errorf("flow: %s %v, sent %d, received %d", f.Outcome(), f.Fault, f.Sent.Body, f.Received.Body)
				}
			})
		}
	}
}

func TestSpliceBound(t *testing.T) {
	for _, way := range []string{"out", "in"} {
		t.Run(way, func(t *testing.T) {
			g := New(t)
			g.Decide(exempt(true, 100_000))
			got := make(chan int64, 1)
			o := newRaw(t, func(n int, c net.Conn) {
				if way == "in" {
					io.Copy(c, &noise{left: 1 << 30})
				}
				n64, _ := io.Copy(io.Discard, c)
				got <- n64
			})
			g.Resolver.Add("db.example.com", 5432, o.Addr)
			c := g.opened("db.example.com:5432")
			if way == "out" {
				io.Copy(c, &noise{left: 1 << 30})
			}
			n, _ := io.Copy(io.Discard, c)
			sent := within(t, got, "the upstream to end")
			if n+sent > 100_000 {
				t.Errorf("%d bytes out and %d in over a bound of 100000", sent, n)
			}
			f := g.Recorder.Last(1)
			if f.Outcome() != exitgate.OutcomeRefused || f.Verdict.Rule != exitgate.RuleLimit || f.Verdict.Exemption != "x" || f.Sent.Body+f.Received.Body != 100_000 {
				t.Errorf("flow: %s, %+v, sent %d, received %d", f.Outcome(), f.Verdict, f.Sent.Body, f.Received.Body)
			}
		})
	}
}

// A protocol in which the server speaks first works under a raw exemption, and is refused without.
func TestSpliceServerFirst(t *testing.T) {
	g := New(t)
	o := newRaw(t, func(n int, c net.Conn) { io.WriteString(c, "SSH-2.0-test\r\n"); io.Copy(io.Discard, c) })
	g.Resolver.Add("git.example.com", 22, o.Addr)
	g.Decide(exempt(true, 0))
	c := g.opened("git.example.com:22")
	b := make([]byte, 14)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "SSH-2.0-test\r\n" {
		t.Errorf("got %q, %v", b, err)
	}
	c.Close()
	g.Recorder.Last(1)
	g.Decide(exempt(false, 0))
	c = g.opened("git.example.com:22")
	io.WriteString(c, "SSH-2.0-client\r\n")
	if n, _ := io.Copy(io.Discard, c); n != 0 {
		t.Errorf("%d bytes came without a raw exemption", n)
	}
	if f := g.Recorder.Last(2); f.Outcome() != exitgate.OutcomeRefused || f.Verdict.Rule != exitgate.RuleProtocol {
		t.Errorf("flow: %s %+v", f.Outcome(), f.Verdict)
	}
}

func TestSpliceIdle(t *testing.T) {
	g := New(t, func(p *mitm.Proxy) { p.Timeouts.SpliceIdle = 300 * time.Millisecond })
	g.Decide(exempt(true, 0))
	o := newRaw(t, func(n int, c net.Conn) { io.Copy(io.Discard, c) })
	g.Resolver.Add("db.example.com", 5432, o.Addr)
	c := g.opened("db.example.com:5432")
	io.WriteString(c, "hello")
	io.Copy(io.Discard, c)
	f := g.Recorder.Last(1)
	fault(t, f, "receive", "connection_read_timeout")
	if f.Sent.Body != 5 {
		t.Errorf("flow: sent %d", f.Sent.Body)
	}
}

// An exemption is for a name: a hello that hides its name, or has none, is refused by an alert.
func TestSpliceNameless(t *testing.T) {
	ech := must[[]byte](t)(echConfig())
	for _, tc := range []struct {
		name string
		conf *tls.Config
		rule string
	}{
		{"no SNI", &tls.Config{InsecureSkipVerify: true}, exitgate.RuleAuthority},
		{"other SNI", &tls.Config{ServerName: "other.example.com"}, exitgate.RuleAuthority},
		{"ECH", &tls.Config{ServerName: "secret.example.com", EncryptedClientHelloConfigList: ech, MinVersion: tls.VersionTLS13}, exitgate.RuleProtocol},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := New(t)
			g.Decide(exempt(false, 0))
			g.Origin(http.NotFoundHandler(), "www.example.com")
			c := g.opened("www.example.com:443")
			err := tls.Client(c, tc.conf).Handshake()
			c.Close()
			if err == nil || err.Error() != "remote error: tls: access denied" {
				t.Errorf("the handshake ended with %v", err)
			}
			if f := g.Recorder.Last(1); f.Outcome() != exitgate.OutcomeRefused || f.Verdict.Rule != tc.rule || len(g.Resolver.Asked()) > 0 {
				t.Errorf("flow: %s %+v, resolved %v", f.Outcome(), f.Verdict, g.Resolver.Asked())
			}
		})
	}
}

// After 200, only an alert can tell that the destination cannot be reached: internal error, for the fault is not the client's.
func TestSpliceCannotReach(t *testing.T) {
	g := New(t)
	g.Decide(exempt(false, 0))
	g.Resolver.Add("www.example.com", 443, dead(t))
	c := g.opened("www.example.com:443")
	err := tls.Client(c, &tls.Config{ServerName: "www.example.com"}).Handshake()
	c.Close()
	if err == nil || err.Error() != "remote error: tls: internal error" {
		t.Errorf("the handshake ended with %v", err)
	}
	fault(t, g.Recorder.Last(1), "connect", "connection_refused")
}
