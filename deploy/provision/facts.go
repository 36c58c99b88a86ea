package provision

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Facts are what is told to whoever is provisioned.
type Facts struct {
	Class       string // of what is provisioned; the token, not this, decides it
	Gateway     string // https URL that hosts enrol at; "" where there is no enrolment
	Fingerprint string // SHA-256 of the identity root in hex, by which the gateway is known; "" where there is no enrolment
	Name        string // that the host enrols under; "" its hostname
	Token       string // to be put into cloud-init; "" it comes some other way

	Roots   string // the interception roots, PEM
	HTTP    string // URL of the proxy for http destinations
	HTTPS   string // URL of the proxy for https destinations; "" in transparent mode
	NoProxy []string
	PAC     string // URL of the PAC file; "" none

	Bundle    string // the system's file of roots, ours among them; "" Debian's
	Namespace string // of Kubernetes; "" default
	Container string // that a patch is for; "" app
	Image     string // of an init container; "" Debian's
}

// DefaultBundle is where Debian has all roots that it trusts.
const DefaultBundle = "/etc/ssl/certs/ca-certificates.crt"

// bounds of what is rendered.
const (
	maxText  = 2000 // bytes of a value
	maxRoots = 16
	maxNo    = 1000 // entries of no_proxy
)

// Check brings f into its one form, or says what in it cannot be meant.
func (f *Facts) Check() error {
	if f.Bundle == "" {
		f.Bundle = DefaultBundle
	}
	if f.Namespace == "" {
		f.Namespace = "default"
	}
	if f.Container == "" {
		f.Container = "app"
	}
	if f.Image == "" {
		f.Image = "debian:stable-slim"
	}
	f.NoProxy = distinct(f.NoProxy)
	f.Fingerprint = strings.ToLower(strings.ReplaceAll(f.Fingerprint, ":", ""))
	for _, c := range []struct {
		what string
		err  error
	}{
		{"the class", checkName(f.Class)},
		{"the gateway", checkURL(f.Gateway, "https")},
		{"the fingerprint", checkFingerprint(f.Fingerprint, f.Gateway)},
		{"the name", optional(f.Name, checkName)},
		{"the token", optional(f.Token, checkToken)},
		{"the proxy for http", checkURL(f.HTTP, "http", "https")},
		{"the proxy for https", checkURL(f.HTTPS, "http", "https")},
		{"the PAC file", checkURL(f.PAC, "http", "https")},
		{"no_proxy", checkNoProxy(f.NoProxy)},
		{"the bundle", checkPath(f.Bundle)},
		{"the namespace", checkLabel(f.Namespace)},
		{"the container", checkLabel(f.Container)},
		{"the image", checkText(f.Image, "")},
	} {
		if c.err != nil {
			return fmt.Errorf("%s: %w", c.what, c.err)
		}
	}
	roots, err := certificates(f.Roots)
	if err != nil {
		return fmt.Errorf("the roots: %w", err)
	}
	f.Roots = ""
	for _, c := range roots {
		f.Roots += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return nil
}

// distinct returns a list without what is in it before.
func distinct(list []string) (out []string) {
	seen := map[string]bool{}
	for _, s := range list {
		if !seen[s] {
			out = append(out, s)
		}
		seen[s] = true
	}
	return out
}

func optional(s string, check func(string) error) error {
	if s == "" {
		return nil
	}
	return check(s)
}

const (
	lower  = "abcdefghijklmnopqrstuvwxyz"
	letter = lower + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digit  = "0123456789"
)

// checkName holds a name to what the gateway takes for one.
func checkName(s string) error {
	if s == "" || len(s) > 64 || strings.Trim(s, letter+digit+".-_") != "" || !strings.Contains(letter+digit, s[:1]) {
		return fmt.Errorf("%.80q: a name is 1 to 64 letters, digits, dots, dashes and underscores, and begins with a letter or a digit", s)
	}
	return nil
}

// checkLabel holds a name of Kubernetes to RFC 1123.
func checkLabel(s string) error {
	if len(s) > 63 || strings.Trim(s, lower+digit+"-") != "" || strings.Trim(s, "-") != s {
		return fmt.Errorf("%.80q: it has lower-case letters, digits and dashes", s)
	}
	return nil
}

// checkToken never shows the token.
func checkToken(s string) error {
	if !strings.HasPrefix(s, "xgh_") || len(s) > 200 || strings.Trim(s, letter+digit+"_") != "" {
		return errors.New("it is none that hosts enrol with (xgh_..., from exitgate host token)")
	}
	return nil
}

func checkURL(s string, schemes ...string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	switch {
	case err != nil, len(s) > maxText, u.Opaque != "", u.Hostname() == "", !strings.Contains(" "+strings.Join(schemes, " ")+" ", " "+u.Scheme+" "):
		return fmt.Errorf("%.200q is no URL such as %s://gate.example.com:3130", s, schemes[0])
	case u.User != nil:
		return errors.New("a URL that everybody on a host can read holds no credentials")
	}
	return checkText(s, "")
}

func checkFingerprint(s, gateway string) error {
	if s == "" && gateway == "" {
		return nil
	}
	if b, err := hex.DecodeString(s); err != nil || len(b) != sha256.Size {
		return fmt.Errorf("%.80q: it is the SHA-256 of the gateway's identity root, 64 hexadecimal digits", s)
	}
	if gateway == "" {
		return errors.New("it is of no use without the gateway's URL")
	}
	return nil
}

func checkNoProxy(list []string) error {
	if len(list) > maxNo {
		return fmt.Errorf("%d entries; at most %d", len(list), maxNo)
	}
	for _, s := range list {
		if s == "" {
			return errors.New("an entry is empty")
		}
		if err := checkText(s, `,;"`); err != nil {
			return err
		}
	}
	return nil
}

func checkPath(s string) error {
	if !strings.HasPrefix(s, "/") {
		return fmt.Errorf("%.80q: it is a path that begins with a slash", s)
	}
	return checkText(s, "")
}

// checkText holds a value to printable ASCII without spaces, and without the bytes that are not.
func checkText(s, not string) error {
	if len(s) > maxText {
		return fmt.Errorf("it is longer than %d bytes", maxText)
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(not, c) >= 0 {
			return fmt.Errorf("%.80q holds a byte (%#02x) that does not belong there", s, c)
		}
	}
	return nil
}

// certificates reads roots: each is the certificate of an authority.
func certificates(roots string) (out []*x509.Certificate, err error) {
	rest := []byte(roots)
	for {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		c, err := x509.ParseCertificate(b.Bytes)
		switch {
		case b.Type != "CERTIFICATE":
			return nil, fmt.Errorf("it holds a %.40q, which is not to be given away", b.Type)
		case err != nil:
			return nil, err
		case !c.IsCA:
			return nil, fmt.Errorf("%.80q is not the certificate of an authority", c.Subject)
		}
		out = append(out, c)
	}
	switch {
	case len(out) == 0:
		return nil, errors.New("there is no certificate in it (PEM, -----BEGIN CERTIFICATE-----)")
	case len(out) > maxRoots:
		return nil, fmt.Errorf("%d certificates; at most %d", len(out), maxRoots)
	}
	return out, nil
}

// A root is one certificate as the templates need it.
type root struct {
	ID   string // the beginning of its SHA-256: a part of file names
	SHA1 string // as Windows names it
	PEM  string
	DER  []byte
}

func (f *Facts) roots() (out []root) {
	list, _ := certificates(f.Roots) // checked
	for _, c := range list {
		long, short := sha256.Sum256(c.Raw), sha1.Sum(c.Raw)
		var b bytes.Buffer
		pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
		out = append(out, root{ID: hex.EncodeToString(long[:8]), SHA1: strings.ToUpper(hex.EncodeToString(short[:])), PEM: b.String(), DER: c.Raw})
	}
	return out
}
