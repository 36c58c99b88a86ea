package doctor

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A machine looks at the host that it runs on.
type machine struct{ Host }

// The bounds on what is read.
const (
	maxFile      = 1 << 20
	maxAddresses = 64
	maxRoots     = 16
)

// anchors lists where the system's trust stores keep the roots that enrolment gives them.
func anchors() []string {
	return []string{"/usr/local/share/ca-certificates", "/etc/pki/ca-trust/source/anchors", "/etc/pki/trust/anchors",
		"/etc/ca-certificates/trust-source/anchors", "/etc/exitgate/roots"}
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = failed(KindDamaged, "%s is larger than %d bytes", name, maxFile)
	}
	return b, err
}

// enrolment reads what the host was given. What cannot be read of it is a Problem of that part.
func (m machine) enrolment(context.Context) (e Enrolment, err error) {
	e.Roots = ownRoots()
	b, err := readFile(m.Config)
	if errors.Is(err, os.ErrNotExist) {
		return e, failed(KindMissing, "there is no %s", m.Config)
	}
	if err != nil {
		return e, err
	}
	var s struct {
		Gateway     string `json:"gateway"`
		Fingerprint string `json:"fingerprint"`
		Name        string `json:"name"`
		Class       string `json:"class"`
		Mode        string `json:"mode"`
		Proxy       struct {
			HTTP    string   `json:"http"`
			HTTPS   string   `json:"https"`
			NoProxy []string `json:"no_proxy"`
		} `json:"proxy"`
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return e, failed(KindDamaged, "%s is damaged: %v", m.Config, err)
	}
	e.Gateway, e.Fingerprint, e.Name, e.Class, e.Mode = s.Gateway, strings.ToLower(s.Fingerprint), s.Name, s.Class, s.Mode
	e.HTTP, e.HTTPS, e.NoProxy = s.Proxy.HTTP, s.Proxy.HTTPS, s.Proxy.NoProxy
	if !strings.HasPrefix(e.Gateway, "https://") {
		return e, failed(KindDamaged, "%s is damaged: it names no gateway", m.Config)
	}
	e.Identity.Problem = problem(m.identity(&e))
	return e, nil
}

// identity reads the certificate with its key, and the root that the gateway is known by.
func (m machine) identity(e *Enrolment) error {
	cert, err := readFile(filepath.Join(m.State, "identity.crt"))
	if err != nil {
		return err
	}
	list, err := parseCertificates(cert)
	if err != nil || len(list) == 0 {
		return failed(KindDamaged, "%s holds no certificate that can be read", filepath.Join(m.State, "identity.crt"))
	}
	leaf := list[0]
	e.Identity = IdentityState{Name: leaf.Subject.CommonName, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}
	root, err := readFile(filepath.Join(m.State, "root.crt"))
	if err != nil {
		return err
	}
	if list, err = parseCertificates(root); err != nil || len(list) == 0 {
		return failed(KindDamaged, "%s holds no certificate that can be read", filepath.Join(m.State, "root.crt"))
	}
	e.root = list[0]
	if e.Fingerprint != "" && fingerprint(e.root) != e.Fingerprint {
		return failed(KindDamaged, "%s is not the root that %s names", filepath.Join(m.State, "root.crt"), m.Config)
	}
	key, err := readFile(filepath.Join(m.State, "identity.key"))
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return failed(KindDamaged, "the identity in %s cannot be used: %v", m.State, err)
	}
	e.pair = &pair
	return nil
}

// ownRoots returns the interception roots that enrolment put into the system's store.
func ownRoots() (list []*x509.Certificate) {
	for _, dir := range anchors() {
		names, _ := filepath.Glob(filepath.Join(dir, "exitgate-*.crt"))
		for _, name := range names[:min(len(names), maxRoots)] {
			b, err := readFile(name)
			if err != nil {
				continue
			}
			certs, _ := parseCertificates(b)
			list = append(list, certs...)
		}
	}
	return list
}

func parseCertificates(b []byte) (list []*x509.Certificate, err error) {
	for block, rest := pem.Decode(b); block != nil && len(list) < maxRoots; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return list, err
		}
		list = append(list, c)
	}
	return list, nil
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// lookup asks as the host's programs do: by the C library's resolver, with all that nsswitch.conf names, where getent
// shows it, and else by Go's.
func (m machine) lookup(ctx context.Context, name string) (n Names, err error) {
	n.Resolvers = resolvers("/etc/resolv.conf")
	if slices.Contains(n.Resolvers, "127.0.0.53") { // the stub of systemd-resolved
		n.Resolvers = append(n.Resolvers, resolvers("/run/systemd/resolve/resolv.conf")...)
	}
	n.File = inHostsFile("/etc/hosts", name)
	libc := make(chan []netip.Addr, 1)
	go func() { libc <- getent(ctx, name) }()
	ips, err := (&net.Resolver{PreferGo: true}).LookupNetIP(ctx, "ip", name)
	if n.Addresses = <-libc; len(n.Addresses) > 0 {
		return n, nil
	}
	for _, ip := range ips[:min(len(ips), maxAddresses)] {
		n.Addresses = append(n.Addresses, ip.Unmap())
	}
	return n, lookupError(name, err)
}

func lookupError(name string, err error) error {
	var dns *net.DNSError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &dns) && dns.IsTimeout:
		return failed(KindTimeout, "no resolver answered for %s in time", name)
	case errors.As(err, &dns) && dns.IsNotFound:
		return failed(KindNoName, "%s does not exist, says the resolver", name)
	case errors.As(err, &dns) && dns.IsTemporary:
		return failed(KindTimeout, "the resolver could not answer for %s: %s", name, dns.Err)
	}
	return fmt.Errorf("look %s up: %w", name, err)
}

// getent returns what the C library answers, in its order; nothing when it cannot be asked.
func getent(ctx context.Context, name string) (list []netip.Addr) {
	if strings.HasPrefix(name, "-") {
		return nil
	}
	out, err := exec.CommandContext(ctx, "getent", "ahosts", name).Output()
	if err != nil {
		return nil
	}
	for line := range bytes.Lines(out) {
		word, _, _ := strings.Cut(string(line), " ")
		a, err := netip.ParseAddr(word)
		if err == nil && !slices.Contains(list, a.Unmap()) && len(list) < maxAddresses {
			list = append(list, a.Unmap())
		}
	}
	return list
}

// resolvers returns the name servers of a resolv.conf.
func resolvers(file string) (list []string) {
	b, err := readFile(file)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "nameserver" && len(list) < 8 {
			list = append(list, f[1])
		}
	}
	return list
}

// inHostsFile returns the entries for name, as file:line.
func inHostsFile(file, name string) (list []string) {
	b, err := readFile(file)
	if err != nil {
		return nil
	}
	s := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; s.Scan() && len(list) < 8; n++ {
		line, _, _ := strings.Cut(s.Text(), "#")
		f := strings.Fields(line)
		if len(f) > 1 && slices.ContainsFunc(f[1:], func(s string) bool {
			return strings.EqualFold(strings.TrimSuffix(s, "."), strings.TrimSuffix(name, "."))
		}) {
			list = append(list, fmt.Sprintf("%s:%d", file, n))
		}
	}
	return list
}

// accepts tries the chain against the system's store.
func (m machine) accepts(name string, r Reached) error {
	pool, err := x509.SystemCertPool()
	if err != nil {
		return fmt.Errorf("read the system's store: %w", err)
	}
	_, err = verify(r.Chain, pool, name, m.Now())
	return err
}
