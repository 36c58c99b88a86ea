package gatetest

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/exitgate/exitgate"
)

// A wireOrigin is an upstream that keeps every byte it gets. It answers each request with 200 and "ok", unless
// serve is given.
type wireOrigin struct {
	l net.Listener

	mu    sync.Mutex
	conns int
	got   bytes.Buffer
	reqs  []string // request lines, as they came
}

// wire starts a wireOrigin known as name, on port 443 with TLS or on port 80 without.
func wire(g *Gate, name string, secure bool, serve func(o *wireOrigin, c net.Conn, br *bufio.Reader)) *wireOrigin {
	g.T.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		g.T.Fatal(err)
	}
	o := &wireOrigin{l: l}
	port := uint16(80)
	if secure {
		port = 443
	}
	g.Resolver.Add(name, port, l.Addr().String())
	if serve == nil {
		serve = serveOK
	}
	var open sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	open.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			o.mu.Lock()
			o.conns++
			o.mu.Unlock()
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			open.Go(func() {
				defer c.Close()
				if secure {
					c = tls.Server(c, &tls.Config{GetCertificate: g.Origins.forHello, NextProtos: []string{"http/1.1"}})
				}
				serve(o, c, bufio.NewReader(io.TeeReader(c, o)))
			})
		}
	})
	g.T.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		open.Wait()
	})
	return o
}

func (o *wireOrigin) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.got.Write(b)
}

// seen returns how many connections were accepted, what came on them, and the requests.
func (o *wireOrigin) seen() (conns int, got string, reqs []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.conns, o.got.String(), append([]string(nil), o.reqs...)
}

func serveOK(o *wireOrigin, c net.Conn, br *bufio.Reader) {
	for {
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		o.mu.Lock()
		o.reqs = append(o.reqs, req.Method+" "+req.RequestURI)
		o.mu.Unlock()
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
}

// untouched fails the test when o got a connection.
func (o *wireOrigin) untouched(t testing.TB) {
	t.Helper()
	if n, got, _ := o.seen(); n != 0 {
		t.Errorf("the origin got %d connections and the bytes %q", n, got)
	}
}

// send writes raw bytes to the gate.
func send(t testing.TB, c io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatalf("send to the gate: %v", err)
	}
}

// An answered is one answer of HTTP/1.x, read whole.
type answered struct {
	status int
	header http.Header
	body   string
	close  bool
}

// receive reads one answer. Method is that of the request.
func receive(t testing.TB, br *bufio.Reader, method string) answered {
	t.Helper()
	a, err := tryReceive(br, method)
	if err != nil {
		t.Fatalf("read the gate's answer: %v", err)
	}
	return a
}

func tryReceive(br *bufio.Reader, method string) (answered, error) {
	res, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		return answered{}, err
	}
	a := answered{status: res.StatusCode, header: res.Header, close: res.Close}
	if method == http.MethodConnect && res.StatusCode == 200 {
		return a, nil
	}
	b, err := io.ReadAll(res.Body)
	a.body = string(b)
	return a, err
}

// opened returns a CONNECT tunnel over HTTP/1.1.
func (g *Gate) opened(target string) net.Conn {
	g.T.Helper()
	c := g.Dial()
	send(g.T, c, "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n\r\n")
	if a := receive(g.T, oneByOne(c), http.MethodConnect); a.status != 200 {
		g.T.Fatalf("CONNECT %s: %d %s", target, a.status, a.body)
	}
	return c
}

// oneByOne returns a reader that takes no byte too many.
func oneByOne(c io.Reader) *bufio.Reader { return bufio.NewReaderSize(single{c}, 16) }

type single struct{ r io.Reader }

func (s single) Read(b []byte) (int, error) { return s.r.Read(b[:1]) }

// insideAs opens a tunnel and speaks TLS in it.
func (g *Gate) insideAs(target, sni string, alpn ...string) *tls.Conn {
	g.T.Helper()
	c := tls.Client(g.opened(target), &tls.Config{RootCAs: g.CA.Pool(), ServerName: sni, NextProtos: alpn, InsecureSkipVerify: sni == ""})
	if err := c.Handshake(); err != nil {
		g.T.Fatalf("handshake in the tunnel to %s: %v", target, err)
	}
	return c
}

// A rawH2 speaks HTTP/2 frame by frame.
type rawH2 struct {
	t    testing.TB
	conn net.Conn
	fr   *http2.Framer
	buf  bytes.Buffer
	enc  *hpack.Encoder
	next uint32
}

// h2 opens an HTTP/2 connection for raw frames on c.
func newRawH2(t testing.TB, c net.Conn, settings ...http2.Setting) *rawH2 {
	t.Helper()
	send(t, c, http2.ClientPreface)
	h := &rawH2{t: t, conn: c, fr: http2.NewFramer(c, c), next: 1}
	h.fr.AllowIllegalWrites = true
	h.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	h.fr.SetMaxReadFrameSize(1 << 20)
	h.enc = hpack.NewEncoder(&h.buf)
	if err := h.fr.WriteSettings(settings...); err != nil {
		t.Fatal(err)
	}
	return h
}

// block encodes fields, given as name, value, name, value.
func (h *rawH2) block(fields ...string) []byte {
	h.buf.Reset()
	for i := 0; i+1 < len(fields); i += 2 {
		h.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return append([]byte(nil), h.buf.Bytes()...)
}

// headers opens a stream with the fields and returns its id.
func (h *rawH2) headers(end bool, fields ...string) uint32 {
	h.t.Helper()
	id := h.next
	h.next += 2
	if err := h.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: h.block(fields...), EndStream: end, EndHeaders: true}); err != nil {
		h.t.Fatal(err)
	}
	return id
}

// An h2Answer is how a stream ended.
type h2Answer struct {
	status string
	header http.Header
	body   string
	reset  *http2.ErrCode // by RST_STREAM or GOAWAY; nil: it ended well
	err    error          // the connection broke
}

func (a h2Answer) String() string {
	s := "status " + a.status
	if a.reset != nil {
		s += " reset " + a.reset.String()
	}
	if a.err != nil {
		s += " error " + a.err.Error()
	}
	return s + " " + a.body
}

// answer reads frames until stream id ended.
func (h *rawH2) answer(id uint32) (a h2Answer) {
	for {
		f, err := h.fr.ReadFrame()
		if err != nil {
			a.err = err
			return a
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				h.fr.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				h.fr.WritePing(true, f.Data)
			}
		case *http2.GoAwayFrame:
			code := f.ErrCode
			if f.LastStreamID < id || code != http2.ErrCodeNo {
				a.reset = &code
				return a
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == id {
				code := f.ErrCode
				a.reset = &code
				return a
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID != id {
				continue
			}
			if v := f.PseudoValue("status"); v != "" {
				a.status, a.header = v, http.Header{}
			}
			for _, hf := range f.RegularFields() {
				a.header.Add(hf.Name, hf.Value)
			}
			if f.StreamEnded() {
				return a
			}
		case *http2.DataFrame:
			if f.StreamID == id {
				a.body += string(f.Data())
				if n := len(f.Data()); n > 0 {
					h.fr.WriteWindowUpdate(0, uint32(n))
				}
				if f.StreamEnded() {
					return a
				}
			}
		}
	}
}

// refused is the verdict that says no.
func refused(*exitgate.Question) exitgate.Verdict {
	return exitgate.Verdict{Rule: "no-grant", Reason: "nothing grants it", Revision: "r1"}
}

func allowed(*exitgate.Question) exitgate.Verdict {
	return exitgate.Verdict{Action: exitgate.Allow, Rule: "grant:all", Revision: "r1"}
}

// spliceAll exempts every tunnel.
func spliceAll(q *exitgate.Question) exitgate.Verdict {
	return exitgate.Verdict{Action: exitgate.Splice, Rule: "exemption:x", Exemption: "x", Raw: q.TLS == nil}
}

// mustEnd waits until the gate closes c, and returns what came before.
func mustEnd(t testing.TB, c net.Conn) string {
	t.Helper()
	b, err := io.ReadAll(c)
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		t.Errorf("the gate did not close the connection; it said %q", b)
	}
	return string(b)
}

// allFlows returns every flow as JSON, for a search for what must not be in it.
func allFlows(t testing.TB, flows []exitgate.Flow) string {
	t.Helper()
	b, err := json.MarshalIndent(flows, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func describe(f exitgate.Flow) string {
	s := fmt.Sprintf("%s %s: status %d rule %q reason %q", f.Kind, f.Outcome(), f.Status, f.Verdict.Rule, f.Verdict.Reason)
	if f.Fault != nil {
		s += fmt.Sprintf(" fault %s/%s %q", f.Fault.Step, f.Fault.Type, f.Fault.Reason)
	}
	return s
}

// logged collects what the gate logs.
type logged struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

const soon = 300 * time.Millisecond // a timeout of the engine that a test waits for

func tokenSum(token string) [32]byte { return sha256.Sum256([]byte(token)) }

func basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

// A testClock goes when it is moved.
type testClock struct {
	mu sync.Mutex
	at time.Time
}

func (c *testClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *testClock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}
