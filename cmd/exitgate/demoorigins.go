package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Origins are the outside of the demo: servers on this machine, under a CA of their own, whose names lead to them
// by upstream.connect_to.
type origins struct {
	root    string            // file of their CA's certificate
	pool    *x509.CertPool    // that holds it
	connect map[string]string // name:port to address
	servers []*http.Server
}

func openOrigins(dir string) (*origins, error) {
	ca, err := newDemoCA()
	if err != nil {
		return nil, fmt.Errorf("make the origins' CA: %w", err)
	}
	o := &origins{root: filepath.Join(dir, "origins.crt"), pool: x509.NewCertPool(), connect: map[string]string{}}
	o.pool.AddCert(ca.cert)
	if err := os.WriteFile(o.root, ca.pem(), 0o600); err != nil {
		return nil, fmt.Errorf("write the origins' CA: %w", err)
	}
	for _, s := range []struct {
		name, certified string // under which name it is reached, and for which it has a certificate ("" plain HTTP)
		answer          http.HandlerFunc
	}{
		{"packages.example.com", "packages.example.com", answerPackages},
		{"api.example.com", "api.example.com", answerAPI},
		{"git.example.org", "git.example.org", answerText("# service=git-upload-pack\n")},
		{"updates.example.net", "updates.example.net", answerText("nothing new\n")},
		{"mirror.example.org", "", answerText(strings.Repeat("Package: sample\n", 500))},
		{"other.partners.example.net", "wrong.example.net", answerText("")},
		{"slow.partners.example.net", "slow.partners.example.net", answerNever},
	} {
		if err := o.open(ca, s.name, s.certified, s.answer); err != nil {
			o.close()
			return nil, fmt.Errorf("open the sample origin %s: %w", s.name, err)
		}
	}
	o.connect["down.partners.example.net:443"] = "127.0.0.1:1" // where nothing listens
	return o, nil
}

func (o *origins) open(ca *demoCA, name, certified string, answer http.HandlerFunc) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{Handler: answer, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	o.servers = append(o.servers, s)
	if certified == "" {
		o.connect[name+":80"] = l.Addr().String()
		go s.Serve(l) // ends with o.close
		return nil
	}
	o.connect[name+":443"] = l.Addr().String()
	leaf, err := ca.leaf(certified)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{leaf}}
	go s.ServeTLS(l, "", "") // ends with o.close
	return nil
}

func (o *origins) close() {
	for _, s := range o.servers {
		s.Close()
	}
}

func answerText(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, text)
	}
}

// answerPackages serves small pages, and one file that is larger than the demo's grant allows.
func answerPackages(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, ".tar.gz") {
		answerText("<a href=\"sample-1.0.tar.gz\">sample</a>\n")(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/gzip")
	piece := bytes.Repeat([]byte{0x1f}, 64<<10)
	for range 40 { // 2.5 MiB, of no declared length
		if _, err := w.Write(piece); err != nil {
			return
		}
	}
}

func answerAPI(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if r.Method == http.MethodPost {
		w.WriteHeader(http.StatusCreated)
	}
	io.WriteString(w, `{"status":"ok"}`+"\n")
}

func answerNever(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// A demoCA certifies the sample origins. Its key lives in memory only.
type demoCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newDemoCA() (*demoCA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "exitgate demo origins"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 0, 7),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &demoCA{cert, key}, err
}

func (c *demoCA) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw})
}

func (c *demoCA) leaf(name string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: c.cert.NotBefore, NotAfter: c.cert.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(name); ip != nil {
		t.DNSNames, t.IPAddresses = nil, []net.IP{ip}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, c.cert, &key.PublicKey, c.key)
	return tls.Certificate{Certificate: [][]byte{der, c.cert.Raw}, PrivateKey: key}, err
}

// config is the demo's exitgate.yaml.
func (d *demo) config(o *origins) string {
	var b strings.Builder
	patience := "2s"
	if d.fast {
		patience = "300ms"
	}
	fmt.Fprintf(&b, `# The configuration of exitgate demo.
data_dir: data
gateway: demo
listen: {proxy: 127.0.0.1:0, admin: 127.0.0.1:0}
hosts:
  - {name: web-1, class: app, addresses: [127.0.0.11]}
  - {name: build-7, class: build, addresses: [127.0.0.12]}
  - {name: ci-3, class: ci, addresses: [127.0.0.13]}
upstream:
  roots: [origins.crt]
  allow: [127.0.0.0/8]
  connect_to:
`)
	for _, name := range slices.Sorted(mapKeys(o.connect)) {
		fmt.Fprintf(&b, "    %q: %q\n", name, o.connect[name])
	}
	fmt.Fprintf(&b, "timeouts: {response_header: %s}\nlog: {level: error}\n", patience)
	return b.String()
}

// pause waits for d and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
