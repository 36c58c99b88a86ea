package doctor

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

// trust says who signed what the host was shown, and who accepts it.
func (h Host) trust(v Views) (t Trust) {
	r := v.Host.Reached
	if len(r.Chain) == 0 {
		return t
	}
	top := r.Chain[len(r.Chain)-1]
	t.Signer = nameOf(top.RawIssuer, top.Issuer.String())
	known := knownRoots(v)
	t.Known = len(known) > 0
	name := v.URL.Hostname()
	if root := signerOf(r.Chain, known); root != nil {
		t.Intercepted, t.Signer = true, nameOf(root.RawSubject, root.Subject.String())
	}
	t.System = why(h.Probes.Accepts(name, r))
	pool := x509.NewCertPool()
	for _, c := range known {
		pool.AddCert(c)
	}
	_, err := verify(r.Chain, pool, name, h.Now())
	t.Roots = why(err)
	return t
}

// knownRoots are those that sign what this gateway intercepts: as enrolment put them here, as the gateway says now, and
// where neither is known, who signs for the gateway's own name.
func knownRoots(v Views) []*x509.Certificate {
	list := v.Host.Enrolment.Roots
	if v.Gateway != nil {
		list = append(list[:len(list):len(list)], v.Gateway.Roots...)
	}
	if p := v.Host.Probed; len(list) == 0 && p != nil && len(p.Chain) > 1 {
		list = p.Chain[1:]
	}
	return list
}

// signerOf returns which of roots the chain leads to, whatever the time and the name.
func signerOf(chain, roots []*x509.Certificate) *x509.Certificate {
	leaf := chain[0]
	at := leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)
	for _, root := range roots {
		pool := x509.NewCertPool()
		pool.AddCert(root)
		if _, err := verify(chain, pool, "", at); err == nil {
			return root
		}
	}
	return nil
}

// nameOf is the name of a certificate for people: short, and never nothing.
func nameOf(raw []byte, name string) string {
	if name == "" {
		return fmt.Sprintf("a name of %d bytes", len(raw))
	}
	return clip(name)
}

// why says in short why a chain is not accepted; "" it is.
func why(err error) string {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &unknown):
		return "its root is not there"
	case errors.As(err, &name):
		return "it is for another name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "it is not valid at this time"
	case errors.As(err, &invalid) && invalid.Reason == x509.CANotAuthorizedForThisName:
		return "its issuer may not sign for this name"
	}
	return clip(strings.TrimPrefix(err.Error(), "x509: "))
}
