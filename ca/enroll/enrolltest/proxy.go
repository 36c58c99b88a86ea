package enrolltest

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/exitgate/exitgate/ca"
)

// Greeting is what the proxy answers for every name.
const Greeting = "read through the gateway"

// A Proxy takes CONNECT for every name and answers itself, over TLS with a leaf of the issuer.
type Proxy struct {
	URL    string // http://127.0.0.1:PORT
	issuer *ca.Issuer
	ln     net.Listener
	serve  sync.WaitGroup

	mu    sync.Mutex
	names []string
}

func newProxy(t testing.TB, issuer *ca.Issuer) *Proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{URL: "http://" + ln.Addr().String(), issuer: issuer, ln: ln}
	p.serve.Go(p.accept)
	t.Cleanup(func() { ln.Close(); p.serve.Wait() })
	return p
}

// Names lists the names that were connected to.
func (p *Proxy) Names() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.names...)
}

func (p *Proxy) accept() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.serve.Go(func() { p.answer(c) })
	}
}

func (p *Proxy) answer(c net.Conn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	if r.Method != http.MethodConnect {
		respond(c, r)
		return
	}
	host, _, _ := strings.Cut(r.Host, ":")
	p.mu.Lock()
	p.names = append(p.names, host)
	p.mu.Unlock()
	io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
	tc := tls.Server(c, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if hello.ServerName != "" {
			return p.issuer.Leaf(hello.Context(), hello.ServerName)
		}
		return p.issuer.Leaf(hello.Context(), host)
	}})
	if r, err = http.ReadRequest(bufio.NewReader(tc)); err == nil {
		respond(tc, r)
	}
	tc.Close()
}

func respond(w io.Writer, r *http.Request) {
	io.Copy(io.Discard, io.LimitReader(r.Body, 1<<20))
	fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", len(Greeting))
	if r.Method != http.MethodHead {
		io.WriteString(w, Greeting)
	}
}
