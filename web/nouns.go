package web

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/exitgate/exitgate"
)

// What the API changes besides grants and exemptions. The members that the gateway sets are ignored when a client
// sends them, so that what was read can be changed and sent back.

// An Origin says where an entry comes from.
type Origin struct {
	Reason string    `json:"reason"`           // why; never empty
	By     string    `json:"by"`               // who made it or changed it last; set by the gateway
	At     time.Time `json:"at,omitzero"`      // when; set by the gateway
	Source string    `json:"source,omitempty"` // the file, or "store"; set by the gateway
}

// A Class is a class of hosts.
type Class struct {
	Name        exitgate.Class `json:"name"`
	Description string         `json:"description"`
	Audit       bool           `json:"audit"` // carry what policy would refuse, and record that it would
	Origin
}

// A Host is a host that the gateway knows.
type Host struct {
	Name      string         `json:"name"`
	Class     exitgate.Class `json:"class"`
	Addresses []Range        `json:"addresses"` // that its connections come from
	// OwnAddresses says that the host registered them itself, and goes on doing so; set by the gateway. Who writes the
	// host without addresses leaves them alone, and who writes others ends it.
	OwnAddresses bool `json:"own_addresses"`
	// Networks bound the addresses that the host registers itself; none: any single address.
	Networks []Range   `json:"networks,omitempty"`
	Disabled bool      `json:"disabled"`           // refused, whatever is granted, and its identity is not renewed
	Seen     time.Time `json:"seen,omitzero"`      // when it was seen last; set by the gateway
	Identity *Identity `json:"identity,omitempty"` // the certificate that it got last; set by the gateway
	Trust    []string  `json:"trust,omitempty"`    // fingerprints of the interception roots that it trusts; set by the host
	Origin
}

// An Identity is the identity certificate that a host got last; set by the gateway.
type Identity struct {
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"not_after"`
}

// A HostToken lets hosts enrol.
type HostToken struct {
	ID       string         `json:"id"`
	Class    exitgate.Class `json:"class"`    // of the hosts that it enrols
	Host     string         `json:"host"`     // the one name that it enrols; "" any that is free
	Networks []Range        `json:"networks"` // that it must be presented from; none: any
	Uses     int            `json:"uses"`     // how often it can be used; 1 when 0
	Used     int            `json:"used"`     // how often it was; set by the gateway
	Until    time.Time      `json:"until"`    // when it ends; a day from now when zero
	Origin
	Secret string `json:"secret,omitempty"` // only in the answer that made it
}

// An APIToken lets a machine use the API.
type APIToken struct {
	ID      string           `json:"id"`
	Name    string           `json:"name"` // unique; its changes are by "token:NAME"
	Role    Role             `json:"role"`
	Classes []exitgate.Class `json:"classes"`       // all that it may change; none: no bound
	Until   time.Time        `json:"until"`         // when it ends; 90 days from now when zero
	Used    time.Time        `json:"used,omitzero"` // when it was used last; set by the gateway
	Origin
	Secret string `json:"secret,omitempty"` // only in the answer that made it
}

// A StoredHostToken is a host token as the ledger keeps it: with the SHA-256 of its secret in hex.
type StoredHostToken struct {
	HostToken
	Hash string `json:"hash"`
}

// A StoredAPIToken is an API token as the ledger keeps it.
type StoredAPIToken struct {
	APIToken
	Hash string `json:"hash"`
}

// A Request asks for access that was refused.
type Request struct {
	ID     string         `json:"id"`
	Flow   string         `json:"flow"` // that was refused; "" when it was asked without one
	Host   string         `json:"host"` // that was refused, or is asked for
	Class  exitgate.Class `json:"class"`
	Method string         `json:"method"`
	URL    string         `json:"url"`
	Origin
	State     State     `json:"state"`
	DecidedBy string    `json:"decided_by"`
	DecidedAt time.Time `json:"decided_at,omitzero"`
	Decision  string    `json:"decision"` // why it was decided so
	Grant     string    `json:"grant"`    // the ID of the grant that it led to
}

// A State says how a request stands.
type State string

// The states of a request.
const (
	StateOpen     State = "open"
	StateGranted  State = "granted"
	StateRejected State = "rejected"
)

// A Range is one address, written without a length, or a CIDR.
type Range struct{ netip.Prefix }

// ParseRange reads an address or a CIDR.
func ParseRange(s string) (Range, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return Range{}, fmt.Errorf("%.60q is neither an address (192.0.2.1) nor a range (192.0.2.0/24)", s)
		}
		a = a.Unmap()
		return Range{netip.PrefixFrom(a, a.BitLen())}, nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || p.Addr().Is4In6():
		return Range{}, fmt.Errorf("%.60q is neither an address (192.0.2.1) nor a range (192.0.2.0/24)", s)
	case p != p.Masked():
		return Range{}, fmt.Errorf("%s: the range of that length is %s", s, p.Masked())
	}
	return Range{p}, nil
}

// String returns the address, or the CIDR.
func (r Range) String() string {
	if r.IsSingleIP() {
		return r.Addr().String()
	}
	return r.Prefix.String()
}

// MarshalText implements [encoding.TextMarshaler].
func (r Range) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (r *Range) UnmarshalText(b []byte) (err error) {
	*r, err = ParseRange(string(b))
	return err
}

// Secrets of tokens begin with what they are, so that scanners for leaked secrets find them.
const (
	hostTokenPrefix = "xgh_"
	apiTokenPrefix  = "xga_"
)

// newSecret returns a secret of 130 random bits, and what is kept of it.
func newSecret(prefix string) (secret, hash string) {
	secret = prefix + strings.ToLower(rand.Text())
	return secret, Digest(secret)
}

// Digest is what is kept of a secret.
func Digest(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// newName returns a name that is short enough to be typed and that no entry has: 40 random bits after the prefix.
func newName(prefix string) string { return prefix + "-" + strings.ToLower(rand.Text()[:8]) }

// checkName says what is wrong with the id of an entry. It is a segment of paths, a word of command lines, and for
// hosts a name in certificates.
func checkName(s string) error {
	switch {
	case s == "":
		return errors.New("it has no name")
	case len(s) > 64 || strings.Trim(s, letters+digits+".-_") != "":
		return fmt.Errorf("%.80q: a name is 1 to 64 letters, digits, dots, dashes and underscores", s)
	case strings.IndexByte(letters+digits, s[0]) < 0:
		return fmt.Errorf("%q: a name begins with a letter or a digit", s)
	}
	return nil
}

const (
	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits  = "0123456789"
)

// checkText says what is wrong with a text that people write and terminals show.
func checkText(s string, most int) error {
	if len(s) > most {
		return fmt.Errorf("it is longer than %d bytes", most)
	}
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\ufffd' || r >= 0x200b && r <= 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return errors.New("it holds control characters, invisible ones, or bytes that are no text")
		}
	}
	return nil
}

// maxReason bounds a reason, in bytes.
const maxReason = 1000

// checkReason says what is wrong with a reason.
func checkReason(s string) error {
	if strings.TrimSpace(s) == "" {
		return errors.New("it needs a reason, for whoever reads this later")
	}
	if err := checkText(s, maxReason); err != nil {
		return fmt.Errorf("the reason: %w", err)
	}
	return nil
}

// Nearest returns the word that s probably was meant to be, or "".
func Nearest(s string, words []string) string {
	best, at := 3, ""
	for _, w := range words {
		if d := distance(strings.ToLower(s), strings.ToLower(w)); d < best && d < len(w) {
			best, at = d, w
		}
	}
	return at
}

// distance returns how many letters have to be changed, added or taken away to make b of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
