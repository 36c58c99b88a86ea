package mitm

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/exitgate/exitgate"
)

// verifyMore rejects what crypto/x509 accepts and a browser would not, and chains that end in the gateway's own
// root: provisioning puts it into the system's store, and it proves nothing about an upstream.
func (p *Proxy) verifyMore(cs tls.ConnectionState) error {
	err := errors.New("no chain was verified")
	for _, chain := range cs.VerifiedChains {
		if err = p.checkChain(chain); err == nil {
			err = checkStaple(cs)
			break
		}
	}
	if err != nil {
		return &unfitError{err}
	}
	return nil
}

func (p *Proxy) checkChain(chain []*x509.Certificate) error {
	leaf := chain[0]
	switch {
	case leaf.IsCA:
		return errors.New("it is a CA certificate, used as a server's")
	case leaf.KeyUsage != 0 && leaf.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment|x509.KeyUsageKeyAgreement) == 0:
		return errors.New("its key usage does not include TLS")
	}
	for _, name := range leaf.DNSNames {
		if err := checkWildcard(name); err != nil {
			return err
		}
	}
	for _, c := range chain {
		if k, ok := c.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() < 2048 {
			return fmt.Errorf("%q in its chain has an RSA key of %d bits, and 2048 is the least", c.Subject.CommonName, k.N.BitLen())
		}
		if p.Upstream.IsOwn != nil && p.Upstream.IsOwn(c) {
			return errors.New("it is signed by the gateway's own CA, which proves nothing about an upstream")
		}
	}
	return nil
}

// checkWildcard refuses a wildcard directly below a public suffix of the registries (*.co.uk).
func checkWildcard(name string) error {
	base, ok := strings.CutPrefix(name, "*.")
	if !ok {
		return nil
	}
	if suffix, icann := publicsuffix.PublicSuffix(base); icann && suffix == base {
		return fmt.Errorf("its name %s covers a public suffix", name)
	}
	return nil
}

// oidTLSFeature is the extension by which a certificate demands a stapled OCSP answer (RFC 7633).
var oidTLSFeature = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

func checkStaple(cs tls.ConnectionState) error {
	for _, e := range cs.PeerCertificates[0].Extensions {
		var features []int
		if !e.Id.Equal(oidTLSFeature) {
			continue
		}
		if _, err := asn1.Unmarshal(e.Value, &features); err != nil {
			return fmt.Errorf("its TLS feature extension cannot be read: %w", err)
		}
		for _, f := range features {
			if f == 5 && len(cs.OCSPResponse) == 0 { // status_request
				return errors.New("it demands a stapled OCSP answer, and the server gave none")
			}
		}
	}
	return nil
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// tlsFault says why TLS with an upstream failed, in the terms of RFC 9209.
func tlsFault(d exitgate.Destination, at netip.AddrPort, err error) error {
	f := &exitgate.Fault{Step: "tls", Type: "tls_protocol_error", Err: err}
	var cert *tls.CertificateVerificationError
	var op *net.OpError
	var rec tls.RecordHeaderError
	var unfit *unfitError
	var bug *exitgate.Bug
	switch {
	case errors.As(err, &bug):
		return bug
	case errors.As(err, &cert):
		f.Type, f.Reason = "tls_certificate_error", fmt.Sprintf("the certificate of %s is not valid: %v", d, certReason(cert))
	case errors.As(err, &rec):
		f.Reason = fmt.Sprintf("%s does not speak TLS on that port", d)
	case errors.As(err, &op) && op.Op == "remote error":
		f.Type, f.Reason = "tls_alert_received", fmt.Sprintf("%s ended the TLS handshake with an alert: %v", d, op.Err)
	case errors.Is(err, context.Canceled):
		f.Step, f.Type, f.Reason = "client", "client_gone", "the host went before TLS with the destination was done"
	case isTimeout(err):
		f.Type, f.Reason = "connection_timeout", fmt.Sprintf("%s did not finish the TLS handshake in time", d)
	case isGone(err):
		f.Type, f.Reason = "connection_terminated", fmt.Sprintf("%s closed the connection in the TLS handshake", d)
	case errors.As(err, &unfit):
		f.Type, f.Reason = "tls_certificate_error", fmt.Sprintf("the certificate of %s is not acceptable: %v", d, unfit)
	default:
		f.Reason = fmt.Sprintf("TLS with %s at %s failed: %v", d, at, err)
	}
	return f
}

// An unfitError is what verifyMore found.
type unfitError struct{ error }

func certReason(err *tls.CertificateVerificationError) string {
	s := err.Err.Error()
	return strings.TrimPrefix(s, "x509: ")
}
