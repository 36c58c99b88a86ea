// Package gate runs a real gateway for tests: the program built from this repository, with a data directory and a
// certificate of its own, its API on a loopback port, and a token for it. It promises that the gateway is ready when it
// is handed over and has ended when the test has, and that its log, which the test sees when it fails, holds no secret
// of a token.
package gate

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A Gate is a gateway that runs.
type Gate struct {
	Program   string // exitgate
	Dir       string // of all its files
	Endpoint  string // URL of its API
	CAFile    string
	TokenFile string // of an editor

	t *testing.T
}

// patience bounds how long the gateway may take to start and to end.
const patience = time.Minute

// New builds and starts a gateway, whose configuration has the lines more, if any.
func New(t *testing.T, more string) *Gate {
	t.Helper()
	g := &Gate{Dir: t.TempDir(), Program: Program(t), t: t}
	g.CAFile, g.TokenFile = filepath.Join(g.Dir, "ca.crt"), filepath.Join(g.Dir, "token")
	if err := certificate(g.Dir); err != nil {
		t.Fatal(err)
	}
	config := "data_dir: data\nlisten: {proxy: 127.0.0.1:0, admin: off, api: 127.0.0.1:0}\napi: {certificate: gate.crt, key: gate.key}\n" + more
	if err := os.WriteFile(filepath.Join(g.Dir, "exitgate.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	g.start()
	g.Run("token", "add", "terraform", "--role", "editor", "--reason", "tests", "--secret-file", g.TokenFile)
	return g
}

var build = sync.OnceValues(func() (string, error) {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "exitgate-gate")
	if err != nil {
		return "", err
	}
	c := exec.Command("go", "build", "-o", dir, "./cmd/exitgate")
	c.Dir = filepath.Join(strings.TrimSpace(string(root)), "../..")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build exitgate: %w\n%s", err, out)
	}
	return filepath.Join(dir, "exitgate"), nil
})

// Program builds exitgate, once for all tests of a package. Clean removes it.
func Program(t *testing.T) string {
	t.Helper()
	program, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// Clean removes what Program built; for TestMain.
func Clean() {
	if program, err := build(); err == nil {
		os.RemoveAll(filepath.Dir(program))
	}
}

func (g *Gate) start() {
	var log bytes.Buffer
	c := exec.Command(g.Program, "run", "-c", "exitgate.yaml")
	c.Dir, c.Stdout, c.Stderr = g.Dir, &log, &log
	if err := c.Start(); err != nil {
		g.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	g.t.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(patience):
			c.Process.Kill()
			<-ended
		}
		if secret, err := os.ReadFile(g.TokenFile); err == nil && bytes.Contains(log.Bytes(), bytes.TrimSpace(secret)) {
			g.t.Error("the gateway's log holds the secret of the token")
		}
		if g.t.Failed() {
			g.t.Logf("the gateway said:\n%s", log.String())
		}
	})
	deadline, tick := time.After(patience), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for !g.ready() {
		select {
		case err := <-ended:
			ended <- err
			g.t.Fatalf("the gateway ended: %v", err)
		case <-tick.C:
		case <-deadline:
			g.t.Fatal("the gateway does not answer")
		}
	}
}

// ready asks the gateway where its API is.
func (g *Gate) ready() bool {
	out, err := g.command("status", "-o", "json").Output()
	var s struct {
		Listen []string `json:"listen"`
	}
	if err != nil || json.Unmarshal(out, &s) != nil {
		return false
	}
	for _, l := range s.Listen {
		if addr, ok := strings.CutPrefix(l, "api "); ok {
			g.Endpoint = "https://" + addr
		}
	}
	return g.Endpoint != ""
}

func (g *Gate) command(args ...string) *exec.Cmd {
	c := exec.Command(g.Program, append([]string{"--data", filepath.Join(g.Dir, "data")}, args...)...)
	c.Dir = g.Dir
	return c
}

// Run runs exitgate on the gateway's machine, as its administrator does, and returns what it printed.
func (g *Gate) Run(args ...string) string {
	g.t.Helper()
	out, err := g.command(args...).CombinedOutput()
	if err != nil {
		g.t.Fatalf("exitgate %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// certificate writes ca.crt, and gate.crt and gate.key under it for 127.0.0.1.
func certificate(dir string) error {
	at := time.Now()
	sign := func(serial int64, parent *x509.Certificate, by *ecdsa.PrivateKey, change func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, nil, err
		}
		c := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "gate test"}, NotBefore: at.Add(-time.Hour), NotAfter: at.Add(time.Hour), BasicConstraintsValid: true}
		change(c)
		if parent == nil {
			parent, by = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
		if err != nil {
			return nil, nil, err
		}
		c, err = x509.ParseCertificate(der)
		return c, key, err
	}
	ca, caKey, err := sign(1, nil, nil, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign })
	if err != nil {
		return err
	}
	leaf, key, err := sign(2, ca, caKey, func(c *x509.Certificate) {
		c.IPAddresses, c.ExtKeyUsage = []net.IP{net.IPv4(127, 0, 0, 1)}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	for name, b := range map[string]*pem.Block{"ca.crt": {Type: "CERTIFICATE", Bytes: ca.Raw}, "gate.crt": {Type: "CERTIFICATE", Bytes: leaf.Raw}, "gate.key": {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(b), 0o600); err != nil {
			return err
		}
	}
	return nil
}
