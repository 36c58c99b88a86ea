package ca

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
)

// greeting is what the test server answers, so that a client shows that it read it.
const greeting = "read through the gateway"

// A site answers over TLS on loopback for every name with a leaf, also for one that is never intercepted. A
// client may send CONNECT first.
type site struct {
	issuer   *Issuer
	stranger *Issuer // whose root no client trusts; it serves strangeName
	ln       net.Listener
	port     string
	serve    sync.WaitGroup
	trusted  string // file of the roots that clients have; "": the issuer's own
}

func newSite(t *testing.T, never ...string) *site {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{issuer: mustOpen(t, testOptions(t, never...)), stranger: mustOpen(t, testOptions(t)), ln: ln}
	_, s.port, _ = net.SplitHostPort(ln.Addr().String())
	s.serve.Go(s.accept)
	t.Cleanup(func() {
		ln.Close()
		s.serve.Wait()
	})
	return s
}

func (s *site) roots() string {
	if s.trusted != "" {
		return s.trusted
	}
	return s.issuer.RootFile()
}

func (s *site) accept() {
	for {
		c, err := s.ln.Accept()
		if err != nil {
			return
		}
		s.serve.Go(func() { s.answer(c) })
	}
}

func (s *site) answer(c net.Conn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	br := bufio.NewReader(c)
	if b, err := br.Peek(1); err == nil && b[0] == 'C' {
		if _, err := http.ReadRequest(br); err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
	}
	tc := tls.Server(buffered{c, br}, &tls.Config{GetCertificate: s.certificate, MinVersion: tls.VersionTLS12})
	if _, err := http.ReadRequest(bufio.NewReader(tc)); err != nil {
		return
	}
	fmt.Fprintf(tc, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(greeting), greeting)
	tc.Close()
}

type buffered struct {
	net.Conn
	r io.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// certificate forces a leaf past the refusal of a name that is never intercepted, as someone would who stole the
// issuer's key.
func (s *site) certificate(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := h.ServerName
	if name == "" {
		name = "127.0.0.1"
	}
	if name == strangeName {
		return s.stranger.Leaf(h.Context(), name)
	}
	c, err := s.issuer.Leaf(h.Context(), name)
	var r *exitgate.Refusal
	if errors.As(err, &r) && r.Verdict.Rule == exitgate.RuleNeverIntercept {
		return s.issuer.current.Load().sign(name, net.ParseIP(name).To4(), time.Now(), s.issuer.lifetimes)
	}
	return c, err
}

// strangeName has a leaf under another root, so that a client which does not look at all is found out.
const strangeName = "stranger.example.com"

// The names that each client is asked to open.
var (
	longName    = strings.Repeat("a-name-of-many-labels.", 4) + "example.com" // more than a common name can hold
	acceptNames = []string{"www.example.com", longName, "127.0.0.1"}
	refuseNames = []string{"bank.example", "login.bank.example"}
)

// fullList returns as many domains as an issuer may exclude, of which the last is bank.example.
func fullList() []string {
	var list []string
	for size := len("bank.example"); ; {
		d := fmt.Sprintf("domain-%03d.test", len(list))
		if size += len(d); size > maxExcluded {
			return append(list, "bank.example")
		}
		list = append(list, d)
	}
}

// A client is a real TLS client. open tries a name and returns what the client printed, and an error when it did
// not accept the certificate. refusal matches what it prints about a violated name constraint.
type client struct {
	name    string
	open    func(t *testing.T, s *site) func(name string) (string, error)
	refusal string
}

var clients = []client{
	{"go", openGo, `not permitted by any constraint|excluded by constraint`},
	{"curl", openCurl, `excluded subtree violation`},
	{"openssl", openOpenSSL, `excluded subtree violation`},
	{"gnutls-cli", openGnuTLS, `(?i)constraint`},
	{"wget", openWget, `(?i)not trusted|constraint`},
	{"python3", openPython, `excluded subtree violation`},
	{"node", openNode, `excluded subtree violation`},
	{"java", openJava, `(?i)constraint|excluded`},
	{"chromium", openChromium, `ERR_CERT_INVALID`},
}

// TestClients asks real clients that trust the root to accept our leaves, and to refuse them for domains that are
// never intercepted.
func TestClients(t *testing.T) {
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, fullList()...)
			open := c.open(t, s)
			for _, name := range acceptNames {
				if out, err := open(name); err != nil {
					t.Errorf("%s was not accepted: %v\n%s", name, err, out)
				}
			}
			for _, name := range refuseNames {
				out, err := open(name)
				if err == nil {
					t.Errorf("%s was accepted:\n%s", name, out)
				} else if !regexp.MustCompile(c.refusal).MatchString(out) {
					t.Errorf("%s was refused, but not for its name constraint: %v\n%s", name, err, out)
				}
			}
			if out, err := open(strangeName); err == nil {
				t.Errorf("a leaf under another root was accepted:\n%s", out)
			}
		})
	}
}

// need returns the path of a program, which make test installs.
func need(t *testing.T, program, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s is missing: install the package %s, or run make test, which does", program, pkg)
	}
	return path
}

// run returns what a program printed, both ways.
func run(t *testing.T, env []string, program string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "LC_ALL=C"}, env...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// read is run for a program that prints the page.
func read(t *testing.T, env []string, program string, args ...string) (string, error) {
	t.Helper()
	out, err := run(t, env, program, args...)
	if err == nil && !strings.Contains(out, greeting) {
		err = errors.New("the page was not read")
	}
	return out, err
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func isIP(name string) bool { return net.ParseIP(name) != nil }

func openGo(t *testing.T, s *site) func(string) (string, error) {
	return func(name string) (string, error) {
		pool := x509.NewCertPool()
		if b, err := os.ReadFile(s.roots()); err != nil || !pool.AppendCertsFromPEM(b) {
			t.Fatalf("no root: %v", err)
		}
		c, err := tls.Dial("tcp", s.ln.Addr().String(), &tls.Config{ServerName: name, RootCAs: pool})
		if err != nil {
			return err.Error(), err
		}
		defer c.Close()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		b, err := io.ReadAll(c)
		return string(b), err
	}
}

func openCurl(t *testing.T, s *site) func(string) (string, error) {
	curl := need(t, "curl", "curl")
	return func(name string) (string, error) {
		return read(t, nil, curl, "-sS", "--max-time", "30", "--cacert", s.roots(), "--noproxy", "*",
			"--connect-to", "::127.0.0.1:"+s.port, "https://"+name+":"+s.port+"/")
	}
}

func openOpenSSL(t *testing.T, s *site) func(string) (string, error) {
	openssl := need(t, "openssl", "openssl")
	return func(name string) (string, error) {
		args := []string{"s_client", "-connect", "127.0.0.1:" + s.port, "-CAfile", s.roots(), "-no-CApath", "-no-CAstore",
			"-verify_return_error", "-x509_strict", "-purpose", "sslserver", "-brief"}
		if isIP(name) {
			args = append(args, "-noservername", "-verify_ip", name)
		} else {
			args = append(args, "-servername", name, "-verify_hostname", name)
		}
		return run(t, nil, openssl, args...)
	}
}

func openGnuTLS(t *testing.T, s *site) func(string) (string, error) {
	gnutls := need(t, "gnutls-cli", "gnutls-bin")
	return func(name string) (string, error) {
		args := []string{"--x509cafile", s.roots(), "--port", s.port, "--verify-hostname", name}
		if !isIP(name) {
			args = append(args, "--sni-hostname", name)
		}
		return run(t, nil, gnutls, append(args, "127.0.0.1")...)
	}
}

func openWget(t *testing.T, s *site) func(string) (string, error) {
	wget := need(t, "wget", "wget")
	return func(name string) (string, error) {
		return read(t, []string{"https_proxy=http://127.0.0.1:" + s.port}, wget, "-nv", "-O-", "--tries=1", "--timeout=30",
			"--ca-certificate="+s.roots(), "https://"+name+"/")
	}
}

const pythonProgram = `
import socket, ssl, sys
port, name = int(sys.argv[1]), sys.argv[2]
context = ssl.create_default_context()
context.verify_flags |= ssl.VERIFY_X509_STRICT
with context.wrap_socket(socket.create_connection(("127.0.0.1", port), 30), server_hostname=name) as s:
    s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    while b := s.recv(4096):
        print(b.decode())
`

func openPython(t *testing.T, s *site) func(string) (string, error) {
	python, program := need(t, "python3", "python3"), write(t, "client.py", pythonProgram)
	return func(name string) (string, error) {
		return read(t, []string{"SSL_CERT_FILE=" + s.roots()}, python, program, s.port, name)
	}
}

const nodeProgram = `
const tls = require('tls'), net = require('net');
const [port, name] = process.argv.slice(2);
const c = tls.connect({host: '127.0.0.1', port, servername: net.isIP(name) ? '' : name,
  checkServerIdentity: (_, cert) => tls.checkServerIdentity(name, cert)},
  () => c.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n'));
c.on('data', b => console.log(b.toString()));
c.on('error', e => { console.log(e.code, e.message); process.exit(1); });
`

func openNode(t *testing.T, s *site) func(string) (string, error) {
	node, program := need(t, "node", "nodejs"), write(t, "client.js", nodeProgram)
	return func(name string) (string, error) {
		return read(t, []string{"NODE_EXTRA_CA_CERTS=" + s.roots()}, node, program, s.port, name)
	}
}

const javaProgram = `
import java.io.*;
import java.net.*;
import javax.net.ssl.*;

public class Client {
  public static void main(String[] args) {
    for (int i = 1; i < args.length; i++) System.out.println(args[i] + "\t" + open(Integer.parseInt(args[0]), args[i]));
  }

  static String open(int port, String name) {
    SSLSocketFactory f = (SSLSocketFactory) SSLSocketFactory.getDefault();
    try (SSLSocket s = (SSLSocket) f.createSocket(new Socket("127.0.0.1", port), name, port, true)) {
      SSLParameters p = s.getSSLParameters();
      p.setEndpointIdentificationAlgorithm("HTTPS");
      s.setSSLParameters(p);
      s.getOutputStream().write("GET / HTTP/1.1\r\nHost: x\r\n\r\n".getBytes());
      return new String(s.getInputStream().readAllBytes()).replaceAll("[\r\n]+", " ");
    } catch (IOException e) {
      return "FAILED " + e;
    }
  }
}
`

// openJava tries all names in one run, since a start of its own for each takes seconds.
func openJava(t *testing.T, s *site) func(string) (string, error) {
	java, keytool := need(t, "java", "openjdk-17-jdk-headless"), need(t, "keytool", "openjdk-17-jdk-headless")
	store := filepath.Join(t.TempDir(), "trust.p12")
	if out, err := run(t, nil, keytool, "-importcert", "-noprompt", "-alias", "exitgate", "-file", s.roots(),
		"-keystore", store, "-storepass", "changeit"); err != nil {
		t.Fatalf("import the root: %v\n%s", err, out)
	}
	args := []string{"-Djavax.net.ssl.trustStore=" + store, "-Djavax.net.ssl.trustStorePassword=changeit", "-XX:TieredStopAtLevel=1",
		write(t, "Client.java", javaProgram), s.port}
	out, err := run(t, nil, java, slices.Concat(args, acceptNames, refuseNames, []string{strangeName})...)
	if err != nil {
		t.Fatalf("run the client (it needs a compiler: package openjdk-17-jdk-headless): %v\n%s", err, out)
	}
	return func(name string) (string, error) {
		for line := range strings.Lines(out) {
			if _, answer, ok := strings.Cut(line, name+"\t"); ok && strings.HasPrefix(line, name) && strings.Contains(answer, greeting) {
				return answer, nil
			} else if ok && strings.HasPrefix(line, name) {
				return answer, errors.New("the page was not read")
			}
		}
		return out, errors.New("the client said nothing about the name")
	}
}

// openChromium trusts the root in the store of NSS, as a managed desktop does.
func openChromium(t *testing.T, s *site) func(string) (string, error) {
	chromium, certutil := need(t, "chromium", "chromium"), need(t, "certutil", "libnss3-tools")
	home := t.TempDir()
	db := filepath.Join(home, ".pki", "nssdb")
	if err := os.MkdirAll(db, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"-N", "--empty-password", "-d", "sql:" + db},
		{"-A", "-d", "sql:" + db, "-t", "C,,", "-n", "exitgate", "-i", s.roots()},
	} {
		if out, err := run(t, nil, certutil, args...); err != nil {
			t.Fatalf("certutil %v: %v\n%s", args, err, out)
		}
	}
	return func(name string) (string, error) {
		return read(t, []string{"HOME=" + home}, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
			"--disable-background-networking", "--disable-component-update", "--no-first-run", "--user-data-dir="+filepath.Join(home, "profile"),
			"--host-resolver-rules=MAP * 127.0.0.1:"+s.port, "--dump-dom", "https://"+name+"/")
	}
}
