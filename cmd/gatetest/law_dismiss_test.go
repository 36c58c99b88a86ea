package gatetest

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/mitm"
)

// TestDisabledHostIsCut: what a disabled host has under way ends, and its record says why: a spliced tunnel, an upgraded
// connection, an upload and a download; what another host has under way goes on.
func TestDisabledHostIsCut(t *testing.T) {
	for _, e := range entries() {
		for _, what := range []string{"splice", "raw splice", "upgrade", "upload", "download", "download h2"} {
			t.Run(e.name+" "+what, func(t *testing.T) {
				g := New(t)
				bystander := mitm.RegisteredHost{Name: "bystander", Class: "app", Token: tokenSum("another")}
				g.Register(e.host, bystander)
				under := make(chan bool, 4)
				g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Header.Get("Upgrade") != "" {
						upgradeEcho(w, r)
						return
					}
					w.WriteHeader(200)
					http.NewResponseController(w).Flush()
					under <- true
					if r.Method == "POST" {
						io.Copy(io.Discard, r.Body)
					}
					<-r.Context().Done()
				}), www)
				echo := newRaw(t, func(n int, c net.Conn) { io.Copy(c, c) })
				g.Resolver.Add("db.example.com", 5432, echo.Addr)
				if strings.Contains(what, "splice") {
					g.Decide(exempt(what == "raw splice", 0))
				}
				start := func(c net.Conn, head string) net.Conn {
					target := www + ":443"
					if what == "raw splice" {
						target = "db.example.com:5432"
					}
					send(t, c, "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n"+head+"\r\n")
					if a := receive(t, oneByOne(c), "CONNECT"); a.status != 200 {
						t.Fatal(a.status)
					}
					if what == "raw splice" {
						send(t, c, "ping")
						io.ReadFull(c, make([]byte, 4))
						return c
					}
					conf := &tls.Config{ServerName: www, InsecureSkipVerify: true}
					if what == "download h2" {
						conf.NextProtos = []string{"h2"}
						in := tls.Client(c, conf)
						h := newRawH2(t, in)
						h.headers(true, ":method", "GET", ":scheme", "https", ":authority", www, ":path", "/")
						within(t, under, "the answer")
						return in
					}
					in := tls.Client(c, conf)
					if err := in.Handshake(); err != nil {
						t.Fatal(err)
					}
					switch what {
					case "upgrade":
						send(t, in, "GET / HTTP/1.1\r\nHost: "+www+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
						if a, _ := http.ReadResponse(oneByOne(in), nil); a == nil || a.StatusCode != 101 {
							t.Fatal("not upgraded")
						}
					case "upload":
						send(t, in, "POST / HTTP/1.1\r\nHost: "+www+"\r\nContent-Length: 1000000000\r\n\r\nbegin")
						within(t, under, "the upload")
					case "download":
						send(t, in, "GET / HTTP/1.1\r\nHost: "+www+"\r\n\r\n")
						within(t, under, "the answer")
					case "splice":
						send(t, in, "GET / HTTP/1.1\r\nHost: "+www+"\r\n\r\n")
						within(t, under, "the answer")
					}
					return in
				}
				other := g.Dial()
				start(other, "Proxy-Authorization: Bearer another\r\n")
				mine := start(e.conn(g), e.head)
				g.Register(disabled(e.host), bystander)
				mine.SetDeadline(time.Now().Add(20 * time.Second))
				io.Copy(io.Discard, mine)
				f := g.Recorder.Last(1)
				if f.Question.Host.Name != e.host.Name || f.Outcome() != exitgate.OutcomeRefused || f.Verdict.Rule != exitgate.RuleHost || !strings.Contains(f.Verdict.Reason, "stolen") {
					t.Errorf("flow: %s", describe(f))
				}
				if n := g.Recorder.Begun(); n != 2 {
					t.Errorf("%d flows", n)
				}
				other.Close()
				if f := g.Recorder.Last(2); f.Verdict.Rule == exitgate.RuleHost || f.Question.Host.Name != "bystander" {
					t.Errorf("the bystander: %s", describe(f))
				}
			})
		}
	}
}
