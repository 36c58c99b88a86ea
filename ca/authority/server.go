package authority

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"go.step.sm/crypto/keyutil"
	"go.step.sm/crypto/x509util"
)

// A serverCertificate is the certificate of one of the gateway's own listeners. It is replaced when half of its life
// has gone and when the root or the issuer is replaced, during the handshake that finds so.
type serverCertificate struct {
	a     *Authority
	names []string

	mu      sync.Mutex // guards what follows; held while a certificate is signed, for less than a millisecond
	cert    *tls.Certificate
	from    *generation
	renewAt time.Time
}

// ServerCertificate returns what a tls.Config wants as GetCertificate: a certificate for the names (DNS names and IP
// addresses; none: those of Options.URL and Options.Names), for servers only, that renews itself. During a rotation it
// can be verified by the old root and by the new one.
func (a *Authority) ServerCertificate(names ...string) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	if len(names) == 0 {
		names = a.o.Names
	}
	for _, n := range names {
		if err := checkServerName(n); err != nil {
			return nil, fmt.Errorf("make a server certificate: %.80q is not a name: %w", n, err)
		}
	}
	s := &serverCertificate{a: a, names: names}
	if _, err := s.get(nil); err != nil {
		return nil, err
	}
	return s.get, nil
}

func (s *serverCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	now := s.a.o.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.a.current.Load()
	if s.cert != nil && s.from == g && now.Before(s.renewAt) {
		return s.cert, nil
	}
	cert, err := s.a.signServer(g, s.names, now)
	if err != nil && (s.cert == nil || !now.Before(s.cert.Leaf.NotAfter)) {
		return nil, err
	}
	if err != nil {
		s.renewAt = now.Add(retryRenewal)
		s.a.o.Logger.Error("a server certificate could not be renewed", "names", s.names, "error", err, "ends", s.cert.Leaf.NotAfter)
		return s.cert, nil
	}
	s.cert, s.from, s.renewAt = cert, g, now.Add(cert.Leaf.NotAfter.Sub(now)/2)
	return cert, nil
}

// signServer signs a certificate for one of the gateway's own listeners.
func (a *Authority) signServer(g *generation, names []string, now time.Time) (*tls.Certificate, error) {
	if err := g.valid(now); err != nil {
		return nil, fmt.Errorf("make a server certificate for %s: %w", names[0], err)
	}
	key, err := keyutil.GenerateSigner("EC", "P-256", 0)
	if err != nil {
		return nil, fmt.Errorf("make a server certificate for %s: %w", names[0], err)
	}
	t := &x509.Certificate{
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if len(names[0]) <= maxCommonName {
		t.Subject = pkix.Name{CommonName: names[0]}
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	m := g.material
	t.NotBefore, t.NotAfter = within(m.issuer.Cert, now.Add(-a.o.Lifetimes.Backdate), now.Add(a.o.Lifetimes.Server))
	leaf, err := x509util.CreateCertificate(t, m.issuer.Cert, key.Public(), m.issuer.Key)
	if err != nil {
		return nil, fmt.Errorf("make a server certificate for %s: %w", names[0], err)
	}
	cert := &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	for _, c := range m.chain() {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, nil
}

// TLSConfig returns the configuration of the enrolment listener: the server certificate for the names, as of
// ServerCertificate, and client certificates that are asked for, taken whatever they are, and left to Identify, so that
// one which is expired or revoked is refused with a reason and not by an alert.
func (a *Authority) TLSConfig(names ...string) (*tls.Config, error) {
	get, err := a.ServerCertificate(names...)
	if err != nil {
		return nil, err
	}
	return &tls.Config{GetCertificate: get, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}, nil
}

// Server returns a server for h with bounds that slow and hostile clients run into: ten seconds for the header, thirty
// for the request, five minutes for the answer (a program is fetched from this listener), 32 KiB of header.
func (a *Authority) Server(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      5 * time.Minute,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(a.o.Logger.Handler(), slog.LevelDebug),
	}
}
