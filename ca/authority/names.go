package authority

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/exitgate/exitgate"
)

// maxCommonName is the bound of a subject's common name (RFC 5280, appendix A.1, ub-common-name), where a host's name
// stands.
const maxCommonName = 64

// checkHost returns an error when s cannot be the name of a host: a DNS name in lower case that fits a common name.
func checkHost(s string) error {
	if len(s) > maxCommonName {
		return fmt.Errorf("it is longer than %d characters", maxCommonName)
	}
	return checkName(s)
}

// checkName returns an error when s is not a DNS name in lower case: labels of letters, digits and hyphens, the last of
// which is no number (a client may take such a name for an IPv4 address).
func checkName(s string) error {
	if s == "" || len(s) > 253 {
		return errors.New("it is empty or longer than 253 characters")
	}
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return errors.New("write labels of lower-case letters, digits and hyphens, with dots between them")
		}
	}
	if strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		return errors.New("its last label is a number")
	}
	return nil
}

// checkServerName returns an error when s is neither a DNS name nor an IP address.
func checkServerName(s string) error {
	if net.ParseIP(s) != nil {
		return nil
	}
	return checkName(s)
}

// checkClass returns an error when c cannot be the class of a certificate.
func checkClass(c exitgate.Class) error {
	const legal = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	switch {
	case c == "":
		return errors.New("there is none")
	case c == exitgate.ClassUnknown:
		return errors.New("it is the class of hosts without an identity")
	case len(c) > 64 || strings.Trim(string(c), legal) != "" || strings.Trim(string(c), ".") == "":
		return errors.New("write at most 64 letters, digits, dots, dashes and underscores")
	}
	return nil
}

// spiffe returns the identifier of a host (SPIFFE-ID, section 2).
func (a *Authority) spiffe(name string, class exitgate.Class) string {
	u := url.URL{Scheme: "spiffe", Host: a.o.TrustDomain, Path: "/class/" + string(class) + "/host/" + name}
	return u.String()
}
