package exitgate

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// A Class is a kind of host (app, build, ...): the unit to which access is granted, set at provisioning.
type Class string

// ClassUnknown is the class of a source that no configuration, enrolment or token names. The base policy
// refuses it.
const ClassUnknown Class = "unknown"

// How a host was identified; the value of [Host.By].
const (
	ByAddress     = "address"     // its source address is registered
	ByToken       = "token"       // it presented a host token in Proxy-Authorization
	ByCertificate = "certificate" // it presented an identity certificate
	ByNothing     = ""            // it was not identified: class unknown
)

// A Host is a source machine as the gateway, not the machine, identified it.
type Host struct {
	Name  string     `json:"name"`  // "" when unknown
	Class Class      `json:"class"` // ClassUnknown when unknown
	Addr  netip.Addr `json:"addr"`  // the source address of the connection
	By    string     `json:"by"`    // how it was identified
}

// A Destination is where a host wants to go. Host and Port are what was asked for; Aim is the address that the
// host itself dialled (transparent ways in only), which is never dialled just because a name was allowed; Addr
// is the address that the gateway dialled, after it was checked.
type Destination struct {
	// Host is a name in lower case ASCII without a trailing dot, or an IP address without brackets or zone.
	Host string         `json:"host"`
	Port uint16         `json:"port"` // 1 to 65535
	Aim  netip.AddrPort `json:"aim,omitzero"`
	Addr netip.AddrPort `json:"addr,omitzero"`
}

// String returns host:port, with brackets around an IPv6 address.
func (d Destination) String() string {
	p := strconv.Itoa(int(d.Port))
	if strings.IndexByte(d.Host, ':') >= 0 {
		return "[" + d.Host + "]:" + p
	}
	return d.Host + ":" + p
}

// IP returns the address when Host is one.
func (d Destination) IP() (netip.Addr, bool) {
	if d.Host == "" || (d.Host[0] > '9' && strings.IndexByte(d.Host, ':') < 0) {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(d.Host)
	return a, err == nil
}

// A Grant lets one class, or one host, reach one resource.
type Grant struct {
	ID    string `json:"id" yaml:"id"`       // unique; letters, digits, dot, dash, underscore; at most 64
	Class Class  `json:"class" yaml:"class"` // exactly one of Class and Host is set
	Host  string `json:"host" yaml:"host"`   // a host's name

	// To is a name ("api.example.com"), every name below one ("*.example.com", which does not mean
	// example.com itself and is refused over a public suffix), an address ("192.0.2.7") or a range of
	// addresses ("192.0.2.0/24"), which matches destinations that were asked for by address.
	To     string   `json:"to" yaml:"to"`
	Scheme string   `json:"scheme" yaml:"scheme"` // "https" (the meaning of ""), "http", or "any"
	Ports  []uint16 `json:"ports" yaml:"ports"`   // none: 443 for https, 80 for http, both for any

	Methods []string `json:"methods" yaml:"methods"` // in capitals; none: GET and HEAD; "*" any
	// Paths are matched against the path as it is on the wire, in whole segments: "/a" is /a and all below
	// it, never /ab; "/a/" only what is below /a; "/a$" only /a itself; a segment "*" stands for any one
	// segment. None: every path.
	Paths   []string          `json:"paths" yaml:"paths"`
	Headers map[string]string `json:"headers" yaml:"headers"` // lower-case name to a glob that one value must match

	MaxRequest   int64 `json:"max_request" yaml:"max_request"`     // bytes of request body; 0: the gateway's default
	MaxResponse  int64 `json:"max_response" yaml:"max_response"`   // bytes of response body; 0: the gateway's default
	EncodedSlash bool  `json:"encoded_slash" yaml:"encoded_slash"` // this server takes %2F inside a path segment
	Audit        bool  `json:"audit" yaml:"audit"`                 // carry and record; say that it would be refused

	Reason string    `json:"reason" yaml:"reason"`        // why; never empty
	By     string    `json:"by" yaml:"by"`                // who
	At     time.Time `json:"at,omitzero" yaml:"at"`       // when it was made
	Until  time.Time `json:"until,omitzero" yaml:"until"` // when it ends; zero: does not
	Lease  string    `json:"lease,omitempty" yaml:"-"`    // "30d": it ends when it was not used or renewed for so long
	Source string    `json:"source,omitempty" yaml:"-"`   // file:line, or "store"
}

// An Exemption lets one class splice to one destination: bytes are carried unread.
type Exemption struct {
	ID    string   `json:"id" yaml:"id"`
	Class Class    `json:"class" yaml:"class"` // exactly one of Class and Host is set
	Host  string   `json:"host" yaml:"host"`
	To    string   `json:"to" yaml:"to"`       // as in Grant
	Ports []uint16 `json:"ports" yaml:"ports"` // none: 443
	// Raw says that the protocol is not TLS, so that there is no name to compare: ssh, a database.
	Raw      bool  `json:"raw" yaml:"raw"`
	MaxBytes int64 `json:"max_bytes" yaml:"max_bytes"` // both directions of one flow together; 0: the gateway's default

	Reason string    `json:"reason" yaml:"reason"`        // why; never empty
	By     string    `json:"by" yaml:"by"`                // who
	At     time.Time `json:"at,omitzero" yaml:"at"`       // when it was made
	Until  time.Time `json:"until,omitzero" yaml:"until"` // when it ends; never zero
	Source string    `json:"source,omitempty" yaml:"-"`   // file:line, or "store"
}
