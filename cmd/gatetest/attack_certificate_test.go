package gatetest

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/mitm"
)

// TestHugeChains: a host is not kept that shows more than an identity is made of, and one that shows what TLS itself does
// not take does not get that far; either way the record says who it was and why.
func TestHugeChains(t *testing.T) {
	g := New(t)
	g.Register(laptop)
	addr := g.Listen("127.0.0.1:0", exitgate.WayTLSProxy)
	id := g.Identity.Host(t, "laptop", "build", nil)
	padded := func(n int) []byte { // a certificate of about n bytes
		c := must[*tls.Certificate](t)(g.Identity.Issue(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Value: make([]byte, n)}}
		}))
		return c.Certificate[0]
	}
	before := heap()
	for i, tc := range []struct {
		name  string
		extra [][]byte
		rule  string // "": TLS fails
	}{
		{"a few too many", repeated(padded(100), 10), exitgate.RuleHost},
		{"too large", repeated(padded(60_000), 2), exitgate.RuleHost},
		{"a megabyte", repeated(padded(100_000), 10), ""},
		{"five thousand", repeated(padded(10), 5000), ""},
		{"nonsense", [][]byte{bytes.Repeat([]byte{0x30}, 1000)}, ""},
		{"one with a megabyte in it", [][]byte{padded(1 << 20)}, ""},
	} {
		shown := *id
		shown.Certificate = append(append([][]byte{}, id.Certificate...), tc.extra...)
		c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: g.CA.Pool(), ServerName: "127.0.0.1", Certificates: []tls.Certificate{shown}})
		if err == nil {
			io.WriteString(c, "GET http://"+www+"/ HTTP/1.1\r\nHost: "+www+"\r\n\r\n")
			if b, _ := io.ReadAll(c); len(b) > 0 {
				t.Errorf("%s: answered %q", tc.name, b)
			}
			c.Close()
		}
		f := g.Recorder.Last(i + 1)
		if tc.rule != "" && f.Verdict.Rule != tc.rule || tc.rule == "" && (f.Fault == nil || f.Fault.Type != "client_tls") {
			t.Errorf("%s: %s", tc.name, describe(f))
		}
	}
	g.waitFor(0)
	if grown := heap() - before; grown > 8<<20 {
		t.Errorf("%d bytes are still held", grown)
	}
}

func repeated(b []byte, n int) [][]byte {
	var out [][]byte
	for range n {
		out = append(out, b)
	}
	return out
}

// TestHostileNames: what a certificate has for names reaches no page, no field and no terminal as anything but text, and
// names nobody by accident.
func TestHostileNames(t *testing.T) {
	g := New(t)
	g.Register(laptop, mitm.RegisteredHost{Name: "admin", Class: "app"})
	inner := g.Hosts.Certificate
	g.Hosts.Certificate = func(chain []*x509.Certificate) (string, exitgate.Class, error) { // a seam that says what it saw
		name, class, err := inner(chain)
		if err != nil {
			err = exitgate.NewRefusal(0, exitgate.RuleHost, "%s %v: %v", chain[0].Subject.CommonName, chain[0].DNSNames, err)
		}
		return name, class, err
	}
	addr := g.Listen("127.0.0.1:0", exitgate.WayTLSProxy)
	san := func(uri string) pkix.Extension {
		v, err := asn1.Marshal([]asn1.RawValue{{Class: 2, Tag: 6, Bytes: []byte(uri)}})
		if err != nil {
			t.Fatal(err)
		}
		return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: v}
	}
	told := 0
	for _, tc := range []struct{ cn, uri string }{
		{"admin\x00.example.com", "spiffe://gate.test/class/app/host/admin\x00x"},
		{"admin\r\nX-Injected: yes", "spiffe://gate.test/class/app/host/admin\r\nX-Injected:yes"},
		{"\x1b[2J\x1b]0;owned\x07", "spiffe://gate.test/class/app/host/%1b[2J"},
		{"<script>alert(1)</script>", "spiffe://gate.test/class/app/host/<script>"},
		{`"; details="admin`, "spiffe://gate.test/class/app/host/a%22%3b"},
		{"admin\u202egnp", "spiffe://gate.test/class/app/host/x"},
		{strings.Repeat("a", 60_000), "spiffe://gate.test/class/app/host/x"},
		{"x", "spiffe://gate.test/class/app/host/laptop/host/admin"},
		{"x", "spiffe://gate.test/class/app%2fhost%2fadmin"},
		{"x", "spiffe://gate.test/class/app/host/" + strings.Repeat("b", 20_000)},
		{"x", "spiffe://gate.test/class/app/host/ADMIN"},
		{"x", "spiffe://gate.test/class/app/host/admin "},
	} {
		id := must[*tls.Certificate](t)(g.Identity.Issue(func(c *x509.Certificate) {
			c.Subject.CommonName = tc.cn
			c.ExtraExtensions = []pkix.Extension{san(tc.uri)}
		}))
		for _, accept := range []string{"*/*", "text/html", "application/json"} {
			c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: g.CA.Pool(), ServerName: "127.0.0.1", Certificates: []tls.Certificate{*id}})
			if err != nil {
				continue
			}
			io.WriteString(c, "GET http://"+www+"/ HTTP/1.1\r\nHost: "+www+"\r\nAccept: "+accept+"\r\n\r\n")
			got, err := tryReceive(bufio.NewReader(c), "GET")
			c.Close()
			if err != nil { // TLS itself refused the certificate
				continue
			}
			told++
			a := h2Answer{status: fmt.Sprint(got.status), header: got.header, body: got.body}
			if a.status != "403" || a.header.Get("X-Injected") != "" {
				t.Errorf("%.80q: %v %v", tc.uri, a, a.header)
			}
			safely(t, tc.cn, accept, a)
		}
	}
	if told < 10 {
		t.Errorf("only %d answers came: the test tests nothing", told)
	}
}

// TestStolenCertificate: a certificate is worth nothing without its key.
func TestStolenCertificate(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		g := New(t)
		g.Register(laptop)
		addr := g.Listen("127.0.0.1:0", exitgate.WayTLSProxy)
		stolen := g.Identity.Host(t, "laptop", "build", nil)
		stolen.PrivateKey = must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
		c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: g.CA.Pool(), ServerName: "127.0.0.1", MaxVersion: version, Certificates: []tls.Certificate{*stolen}})
		if err == nil {
			io.WriteString(c, "GET http://"+www+"/ HTTP/1.1\r\nHost: "+www+"\r\n\r\n")
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if err == nil {
			t.Errorf("%s: a stolen certificate was served", tls.VersionName(version))
		}
		if f := g.Recorder.Last(1); f.Fault == nil || f.Fault.Type != "client_tls" || f.Question.Host.By == exitgate.ByCertificate {
			t.Errorf("flow: %s", describe(f))
		}
	}
}

// A stalling connection sends its first bytes and then nothing, and says nothing of it.
type stalling struct {
	net.Conn
	left int
}

func (s *stalling) Write(b []byte) (int, error) {
	n := min(len(b), s.left)
	s.left -= n
	if n > 0 {
		if _, err := s.Conn.Write(b[:n]); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// TestStalledHandshakes: wherever a host stops in the handshake, it is let go in time and recorded.
func TestStalledHandshakes(t *testing.T) {
	g := New(t, impatient)
	g.Register(laptop)
	addr := g.Listen("127.0.0.1:0", exitgate.WayTLSProxy)
	id := g.Identity.Host(t, "laptop", "build", nil)
	var all sync.WaitGroup
	stops := []int{1, 4, 5, 100, 1500, 1600, 1700, 2000, 2300}
	for _, n := range stops {
		all.Go(func() {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(20 * time.Second))
			c := tls.Client(&stalling{conn, n}, &tls.Config{RootCAs: g.CA.Pool(), ServerName: "127.0.0.1", Certificates: []tls.Certificate{*id}})
			c.Handshake()
			io.Copy(io.Discard, conn)
		})
	}
	silent, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	mustEnd(t, silent)
	silent.Close()
	all.Wait()
	for _, f := range g.Recorder.Wait(len(stops)) {
		fault(t, f, "client", "client_tls")
	}
	g.waitFor(0)
	if n := g.Recorder.Begun(); n != len(stops) {
		t.Errorf("%d flows: a connection that sent nothing has one", n)
	}
}

// TestNoRenegotiation: a client that asks to change who it is in the middle of a connection is not heard.
func TestNoRenegotiation(t *testing.T) {
	g := New(t)
	g.Register(tester, laptop)
	g.PlainOrigin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }), www)
	addr := g.Listen("127.0.0.1:0", exitgate.WayTLSProxy)
	cmd := exec.CommandContext(bounded(t), "openssl", "s_client", "-connect", addr, "-tls1_2", "-CAfile", g.caFile(), "-legacy_renegotiation")
	in := must[io.WriteCloser](t)(cmd.StdinPipe())
	out := must[io.ReadCloser](t)(cmd.StdoutPipe())
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(out)
	for line := ""; !strings.Contains(line, "Extended master secret"); {
		var err error
		if line, err = br.ReadString('\n'); err != nil {
			t.Fatalf("openssl: %v %s", err, errs.String())
		}
	}
	io.WriteString(in, "R\n")
	rest, _ := io.ReadAll(br)
	in.Close()
	cmd.Wait()
	if got := string(rest) + errs.String(); !strings.Contains(got, "RENEGOTIATING") || !strings.Contains(got, "no renegotiation") && !strings.Contains(got, "error") {
		t.Errorf("openssl: %s", got)
	}
}

// TestRealClientsShowCertificates: curl, as people use it, over HTTP/1.1, and with a certificate that is not valid.
func TestRealClientsShowCertificates(t *testing.T) {
	g := New(t)
	g.Register(laptop)
	g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "carried") }), www)
	addr := g.Listen("127.0.0.1:0", exitgate.WayTLSProxy)
	curl := func(id *tls.Certificate, url string) (string, error) {
		dir := t.TempDir()
		cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
		der := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(id.PrivateKey))
		os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.Certificate[0]}), 0o600)
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
		cmd := exec.CommandContext(bounded(t), "curl", "-sS", "-v", "--proxy", "https://"+addr, "--proxy-cacert", g.caFile(), "--cacert", g.caFile(), "--proxy-cert", cert, "--proxy-key", key, url)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
		b, err := cmd.CombinedOutput()
		return string(b), err
	}
	if out, err := curl(g.Identity.Host(t, "laptop", "build", nil), "https://"+www+"/"); err != nil || !strings.Contains(out, "carried") {
		t.Errorf("%v\n%s", err, out)
	}
	expired := g.Identity.Host(t, "laptop", "build", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	out, err := curl(expired, "https://"+www+"/")
	if err == nil || !strings.Contains(out, "HTTP/1.1 403") || !strings.Contains(out, "has expired") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err = curl(expired, "http://"+www+"/"); err != nil || !strings.Contains(out, "has expired") {
		t.Errorf("%v\n%s", err, out)
	}
	for i, f := range g.Recorder.Wait(3) {
		if want := fmt.Sprint(i > 0); fmt.Sprint(f.Verdict.Rule == exitgate.RuleHost) != want {
			t.Errorf("flow %d: %s", i, describe(f))
		}
	}
}
