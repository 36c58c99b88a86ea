package export

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	keystore "github.com/pavlo-v-chernykh/keystore-go/v4"
	"github.com/smallstep/pkcs7"
	"software.sslmate.com/src/go-pkcs12"
)

// A Format is one in which roots can be written; see the package comment.
type Format string

// The formats.
const (
	PEM Format = "pem"
	DER Format = "der"
	P7B Format = "p7b"
	JKS Format = "jks"
	P12 Format = "p12"
)

// DefaultPassword is what readers of JKS and PKCS #12 try first: it is the one of Java's own store.
const DefaultPassword = "changeit"

// Formats lists all of them.
func Formats() []Format { return []Format{PEM, DER, P7B, JKS, P12} }

// Parse returns the format of that name, which is also the ending of its files.
func Parse(name string) (Format, error) {
	var names []string
	for _, f := range Formats() {
		if string(f) == name {
			return f, nil
		}
		names = append(names, string(f))
	}
	return "", fmt.Errorf("%.20q is none of %s", name, strings.Join(names, ", "))
}

// ContentType returns the media type by which browsers and installers know the format (RFC 2585, RFC 8555, RFC 7292).
func (f Format) ContentType() string {
	switch f {
	case PEM:
		return "application/x-pem-file"
	case DER:
		return "application/pkix-cert"
	case P7B:
		return "application/x-pkcs7-certificates"
	case JKS:
		return "application/x-java-keystore"
	case P12:
		return "application/x-pkcs12"
	}
	return "application/octet-stream"
}

// Holds returns how many certificates the format can hold: 1, or 0 for any number.
func (f Format) Holds() int {
	if f == DER {
		return 1
	}
	return 0
}

// Encode writes roots, at least one, in the format. The password is that of JKS and PKCS #12, where "" is
// DefaultPassword; Java takes none that is shorter than six characters.
func (f Format) Encode(roots []*x509.Certificate, password string) ([]byte, error) {
	if len(roots) == 0 {
		return nil, errors.New("there is no root to write")
	}
	if password == "" {
		password = DefaultPassword
	}
	if (f == JKS || f == P12) && len(password) < 6 {
		return nil, fmt.Errorf("write the roots as %s: the password has fewer than the six characters that Java takes", f)
	}
	var b []byte
	var err error
	switch f {
	case PEM:
		b = encodePEM(roots)
	case DER:
		b = bytes.Clone(roots[0].Raw)
	case P7B:
		b, err = encodeP7B(roots)
	case JKS:
		b, err = encodeJKS(roots, password)
	case P12:
		b, err = encodeP12(roots, password)
	default:
		_, err = Parse(string(f))
	}
	if err != nil {
		return nil, fmt.Errorf("write the roots as %s: %w", f, err)
	}
	return b, nil
}

// Alias is the name under which a store keeps root.
func Alias(root *x509.Certificate) string {
	sum := sha256.Sum256(root.Raw)
	return "exitgate-" + hex.EncodeToString(sum[:8])
}

func encodePEM(roots []*x509.Certificate) (b []byte) {
	for _, c := range roots {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return b
}

func encodeP7B(roots []*x509.Certificate) ([]byte, error) {
	var all []byte
	for _, c := range roots {
		all = append(all, c.Raw...)
	}
	return pkcs7.DegenerateCertificate(all)
}

func encodeJKS(roots []*x509.Certificate, password string) ([]byte, error) {
	ks := keystore.New(keystore.WithOrderedAliases())
	for _, c := range roots {
		err := ks.SetTrustedCertificateEntry(Alias(c), keystore.TrustedCertificateEntry{
			CreationTime: c.NotBefore, // so that one root is always written alike
			Certificate:  keystore.Certificate{Type: "X509", Content: c.Raw},
		})
		if err != nil {
			return nil, err
		}
	}
	var b bytes.Buffer
	err := ks.Store(&b, []byte(password))
	return b.Bytes(), err
}

func encodeP12(roots []*x509.Certificate, password string) ([]byte, error) {
	var entries []pkcs12.TrustStoreEntry
	for _, c := range roots {
		entries = append(entries, pkcs12.TrustStoreEntry{Cert: c, FriendlyName: Alias(c)})
	}
	return pkcs12.Modern2023.EncodeTrustStoreEntries(entries, password)
}
