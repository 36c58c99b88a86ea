package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxRoots bounds the roots of one gateway: one, and two while it is being replaced.
const maxRoots = 8

// A Root is one interception root.
type Root struct {
	Cert        *x509.Certificate
	Fingerprint string // SHA-256 of the certificate, lower-case hexadecimal
}

// PEM returns the certificate alone, in one block.
func (r Root) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Cert.Raw})
}

// Name is what the root is called in every store: it begins with "exitgate-" and names this root only.
func (r Root) Name() string { return "exitgate-" + r.Fingerprint[:16] }

// ParseRoots reads PEM with one to eight certificates of certificate authorities and nothing else, sorted by
// fingerprint, each once.
func ParseRoots(b []byte) ([]Root, error) {
	var roots []Root
	for rest := b; ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			if len(bytes.TrimSpace(rest)) > 0 {
				return nil, errors.New("the roots are not PEM certificates alone")
			}
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("the roots hold a PEM block %.40q, and should hold certificates only", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("a root cannot be read: %w", err)
		}
		if !c.BasicConstraintsValid || !c.IsCA {
			return nil, fmt.Errorf("%.80q is not the certificate of a certificate authority", c.Subject.String())
		}
		if len(roots) == maxRoots {
			return nil, fmt.Errorf("there are more than %d roots", maxRoots)
		}
		roots = append(roots, Root{c, digest(c.Raw)})
	}
	if len(roots) == 0 {
		return nil, errors.New("there is no root among the roots")
	}
	slices.SortFunc(roots, func(a, b Root) int { return strings.Compare(a.Fingerprint, b.Fingerprint) })
	return slices.CompactFunc(roots, func(a, b Root) bool { return a.Fingerprint == b.Fingerprint }), nil
}

// allPEM returns the roots as one bundle.
func allPEM(roots []Root) []byte {
	var b bytes.Buffer
	for _, r := range roots {
		b.Write(r.PEM())
	}
	return b.Bytes()
}

// holds reports whether a PEM bundle holds the certificate. What else is in the bundle does not matter.
func holds(bundle []byte, r Root) bool {
	for {
		var block *pem.Block
		if block, bundle = pem.Decode(bundle); block == nil {
			return false
		}
		if bytes.Equal(block.Bytes, r.Cert.Raw) {
			return true
		}
	}
}
