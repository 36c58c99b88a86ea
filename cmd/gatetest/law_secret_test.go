package gatetest

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/mitm"
)

// canaries hands out secrets, each another, that must not be found anywhere.
type canaries struct{ n int }

func (c *canaries) next() string { c.n++; return fmt.Sprintf("CANARY%04d", c.n) }

// TestSecrets is law 8: what authenticates a host to somebody stands in no question, record, log line or refusal, whether the
// request was carried, refused or too broken to be one.
func TestSecrets(t *testing.T) {
	log := &logged{}
	g := New(t, func(p *mitm.Proxy) {
		p.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	g.Decide(func(q *exitgate.Question) exitgate.Verdict {
		if q.HTTP != nil && strings.HasPrefix(q.HTTP.Path, "/no") {
			return refused(q)
		}
		return allowed(q)
	})
	c := &canaries{}
	answer := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Set-Cookie", "session="+c.next()+"; Path=/")
		w.Header().Set("Location", "https://www.example.org/?access_token="+c.next())
		w.Header().Set("Authentication-Info", c.next())
		w.WriteHeader(302)
	}
	g.Origin(http.HandlerFunc(answer), www)
	g.PlainOrigin(http.HandlerFunc(answer), www)
	var said strings.Builder
	n := 0
	fields := func() string {
		return "Authorization: Bearer " + c.next() + "\r\nCookie: a=" + c.next() + "; " + c.next() + "\r\nX-Api-Key: " + c.next() +
			"\r\nReferer: https://me:" + c.next() + "@www.example.org/?token=" + c.next() + "#access_token=" + c.next() + "\r\n"
	}
	target := func(path string) string {
		return path + "?access_token=" + c.next() + "&api_key=" + c.next() + "&X-Amz-Signature=" + c.next() + "&Tok%65n=" + c.next() + "&a=b;password=" + c.next()
	}
	over := func(conn net.Conn, s string) {
		conn.Write([]byte(s))
		if t, ok := conn.(interface{ CloseWrite() error }); ok {
			t.CloseWrite()
		}
		b, _ := io.ReadAll(conn)
		if i := bytes.Index(b, []byte("\r\n\r\n")); !bytes.Contains(b, []byte("exitgate; error=")) && i >= 0 {
			b = nil // the upstream's own answer
		}
		said.Write(b)
		conn.Close()
		n++
		g.Recorder.Wait(n)
	}
	for _, path := range []string{"/yes", "/no"} {
		over(g.insideAs(www+":443", www), "GET "+target(path)+" HTTP/1.1\r\nHost: "+www+"\r\n"+fields()+"\r\n")
		over(g.Dial(), "GET http://"+www+target(path)+" HTTP/1.1\r\nHost: "+www+"\r\n"+fields()+"\r\n")
		over(g.insideAs(www+":443", www), "GET "+target(path)+" HTTP/1.1\r\nHost: "+www+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"+fields()+"\r\n")
		over(g.Dial(), "GET http://"+www+target(path)+" HTTP/1.1\r\nHost: "+www+"\r\nProxy-Authorization: Basic "+basic("x", c.next())+"\r\n"+fields()+"\r\n")
	}
	for _, broken := range []string{
		"GET " + target("/a") + " HTTP/1.1\r\nHost: " + www + "\r\n" + fields() + "Bad : field\r\n\r\n",
		"GET " + target("/a/../b") + " HTTP/1.1\r\nHost: " + www + "\r\n" + fields() + "\r\n",
		"GET " + target("/a b") + " HTTP/1.1\r\nHost: " + www + "\r\n" + fields() + "\r\n",
		"GET " + target("/a") + "#" + c.next() + " HTTP/1.1\r\nHost: " + www + "\r\n" + fields() + "\r\n",
		"GET " + target("/a") + " HTTP/9.9\r\nHost: " + www + "\r\n" + fields() + "\r\n",
		"GET " + target("/a") + " HTTP/1.1\r\nHost: me:" + c.next() + "@" + www + "\r\n" + fields() + "\r\n",
		"GET http://me:" + c.next() + "@" + www + target("/a") + " HTTP/1.1\r\nHost: " + www + "\r\n" + fields() + "\r\n",
		"GET https://me:" + c.next() + "@" + www + target("/a") + " HTTP/1.1\r\nHost: " + www + "\r\n" + fields() + "\r\n",
		"CONNECT me:" + c.next() + "@" + www + ":443 HTTP/1.1\r\nHost: " + www + "\r\n" + fields() + "\r\n",
		"GET /a HTTP/1.1\r\nHost: " + www + "\r\nAuthorization: Bearer " + c.next() + "\x00\r\n\r\n",
		"GET /a HTTP/1.1\r\nHost: " + www + "\r\nAuthorization: Bearer " + c.next() + "\r\n " + c.next() + "\r\n\r\n",
		"GET /a HTTP/1.1\r\nHost: " + www + "\r\nAuthorization: Bearer " + c.next() + "\r\nAuthorization: Bearer " + c.next() + "\r\n\r\n",
		"GET /a HTTP/1.1\r\nHost: " + www + "\r\nAuthorization Bearer " + c.next() + "\r\n\r\n",
		"GET /a HTTP/1.1\r\nHost: " + www + "\r\nAuthorization : Bearer " + c.next() + "\r\n\r\n",
		"GET /a HTTP/1.1\r\nHost: " + www + "\r\nAuthorization: Bearer " + c.next() + "\xff\r\n\r\n",
		"GET /a HTTP/1.1\r\nHost: " + www + "\r\nCookie: a=" + c.next() + "\r\nConnection: cookie\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: " + www + "\r\n" + fields() + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + c.next(),
		"GET " + target("/a") + " HTTP/1.1\r\nHost: " + www + "\r\n" + fields(), // cut off
	} {
		over(g.insideAs(www+":443", www), broken)
		over(g.Dial(), broken)
	}
	for _, fields := range [][]string{
		{":authority", www, ":path", target("/yes"), "authorization", "Bearer " + c.next(), "cookie", "a=" + c.next()},
		{":authority", www, ":path", target("/no"), "authorization", "Bearer " + c.next(), "cookie", "a=" + c.next()},
		{":authority", www, ":path", target("/a/../b"), "authorization", "Bearer " + c.next()},
		{":authority", "me:" + c.next() + "@" + www, ":path", "/"},
		{":authority", www, "host", "me:" + c.next() + "@" + www, ":path", "/"},
		{"host", "me:" + c.next() + "@" + www, ":path", "/"},
		{":authority", www, ":path", "https://me:" + c.next() + "@" + www + "/"},
		{":authority", www, ":path", "/", "authorization", " Bearer " + c.next()},
		{":authority", www, ":path", "/", "authorization", "Bearer " + c.next(), "authorization", "Bearer " + c.next()},
		{":authority", www, ":path", "/", "proxy-authorization", "Bearer " + c.next()},
		{":authority", www, ":path", "/", "Authorization", "Bearer " + c.next()},
	} {
		conn := g.insideAs(www+":443", www, "h2")
		h := newRawH2(t, conn)
		a := h.answer(h.headers(true, append([]string{":method", "GET", ":scheme", "https"}, sortPseudo(fields)...)...))
		if a.header.Get("Proxy-Status") != "" {
			fmt.Fprintln(&said, a, a.header)
		}
		conn.Close()
		n++
		g.Recorder.Wait(n)
	}
	h := newRawH2(t, g.Dial())
	a := h.answer(h.headers(true, ":method", "CONNECT", ":authority", "me:"+c.next()+"@"+www+":443", "proxy-authorization", "Bearer "+c.next()))
	fmt.Fprintln(&said, a, a.header)
	h.conn.Close()
	n++
	for where, text := range map[string]string{"the records": allFlows(t, g.Recorder.Wait(n)), "the log": log.String(), "the answers": said.String()} {
		for line := range strings.Lines(text) {
			if strings.Contains(line, "CANARY") {
				t.Errorf("in %s: %.400s", where, line)
			}
		}
	}
	if c.n < 200 {
		t.Errorf("only %d secrets were tried", c.n)
	}
	if !strings.Contains(allFlows(t, g.Recorder.Wait(n)), "fp:") {
		t.Error("no fingerprint is in any record: the test tests nothing")
	}
}

// sortPseudo puts pseudo fields first, in which HTTP/2 has them.
func sortPseudo(fields []string) []string {
	var first, rest []string
	for i := 0; i < len(fields); i += 2 {
		if fields[i][0] == ':' {
			first = append(first, fields[i:i+2]...)
		} else {
			rest = append(rest, fields[i:i+2]...)
		}
	}
	return append(first, rest...)
}
