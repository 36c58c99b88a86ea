package doctor

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"net/url"
	"time"

	"github.com/exitgate/exitgate/web/hostapi"
)

// Views are what both sides see.
type Views struct {
	URL  *url.URL
	Host HostView
	// Gateway is nil when the gateway told nothing; then NoView says why.
	Gateway *GatewayView
	NoView  *Problem
	Clock   *Clock // the gateway's; nil: not heard
}

// A HostView is what the host sees. A step that failed has a Problem; what was not tried is nil.
type HostView struct {
	Now       time.Time
	Enrolment Enrolment
	Names     Names
	Proxy     ProxyChoice
	Aim       netip.AddrPort // whom the host's connection goes to: the proxy, or the destination; zero: not known
	Route     Route
	Reached   Reached
	Trust     Trust
	Probed    *Probed // what the proxy takes the host for
}

// A Problem is why a step has no result.
type Problem struct {
	Kind Kind   `json:"kind"`
	Text string `json:"text"`
}

// A Kind of problem, as far as it matters for what to do about it.
type Kind string

// The kinds.
const (
	KindOther      Kind = "other"
	KindTimeout    Kind = "timeout"
	KindNoName     Kind = "no-name"     // the name does not exist
	KindResolver   Kind = "resolver"    // a name on the way cannot be looked up
	KindRefused    Kind = "refused"     // nobody listens there
	KindNoRoute    Kind = "no-route"    // no way there
	KindPermission Kind = "permission"  // root rights are needed to look
	KindMissing    Kind = "missing"     // there is nothing
	KindAnswered   Kind = "answered"    // the gateway said no, with a reason
	KindImpostor   Kind = "impostor"    // its certificate is not under the root that the host was given
	KindDamaged    Kind = "damaged"     // a file cannot be read as what it should be
	KindProxySaid  Kind = "proxy-said"  // the proxy answered CONNECT with something else than 200
	KindNotTLS     Kind = "not-tls"     // TLS did not come about
	KindInterrupt  Kind = "interrupted" // the connection ended in the middle
)

// An Enrolment is what the host was given when it enrolled.
type Enrolment struct {
	Problem     *Problem // KindMissing: the host is not enrolled
	Gateway     string   // URL
	Fingerprint string   // of the identity root
	Name, Class string
	Mode        string // proxy or transparent
	HTTP, HTTPS string // proxies
	NoProxy     []string

	Identity IdentityState
	Roots    []*x509.Certificate // interception roots that enrolment put into the system's store

	pair *tls.Certificate // nil: it cannot be read
	root *x509.Certificate
}

// An IdentityState is how the identity certificate stands.
type IdentityState struct {
	Problem   *Problem
	Name      string // as the certificate has it
	NotBefore time.Time
	NotAfter  time.Time
}

// Names are the answers of the host's own resolver.
type Names struct {
	Problem   *Problem
	Resolvers []string     // addresses, from the system's configuration
	Addresses []netip.Addr // in the order in which the host's programs try them
	File      []string     // entries of the hosts file for the name, as file:line
}

// A ProxyChoice is the proxy that programs of this session use for the URL.
type ProxyChoice struct {
	URL     string // "" none
	From    string // the variable that names it, or the file of the enrolment
	Bypass  string // the entry of no_proxy by which the URL goes around the proxy
	Unset   bool   // the enrolment names a proxy, and no variable of this session does, although it would be here
	Differs string // the proxy of the enrolment, when a variable names another
	Problem *Problem
}

// A Route is how packets leave the host.
type Route struct {
	Problem   *Problem
	To        netip.Addr
	Interface string
	Source    netip.Addr
	Via       netip.Addr // next hop; zero: on the link
}

// Reached is how far a connection came.
type Reached struct {
	Problem *Problem
	Step    string         // at which it ended: resolve, connect, proxy-tls, proxy, tls; "" it did not
	Peer    netip.AddrPort // that took the connection
	Status  int            // of the proxy's answer to CONNECT; 0: there was none
	Said    string         // the proxy's reason, when it did not open the tunnel
	TLS     string
	ALPN    string
	Chain   []*x509.Certificate
}

// Trust says who signed what the host was shown, and who on the host accepts it.
type Trust struct {
	Signer      string // name of the last issuer
	Intercepted bool   // it was an interception root of this gateway
	Known       bool   // there are interception roots to compare with
	System      string // why the system's store does not accept it; "" it does
	Roots       string // why the interception roots do not accept it; "" they do
}

// Probed is what the proxy itself says about the host that connects to it.
type Probed struct {
	Problem *Problem  `json:"problem,omitempty"`
	Gateway string    `json:"gateway"`
	Host    string    `json:"host"`
	Class   string    `json:"class"`
	By      string    `json:"by"`
	Source  string    `json:"source"`
	Time    time.Time `json:"time"`

	Heard time.Time           `json:"-"` // by the host's clock
	Chain []*x509.Certificate `json:"-"` // that the proxy showed for the name
}

// A GatewayView is the gateway's view, and what else it said.
type GatewayView struct {
	hostapi.View
	Clock *Clock              // nil: it said nothing
	Roots []*x509.Certificate // interception roots in force, from the gateway; nil: not known
}

// A Clock is the gateway's, as the host heard it.
type Clock struct {
	At     time.Time     // when the host heard it, by the host's clock
	Offset time.Duration // the gateway's clock minus the host's
	// Skewed says that the gateway's certificate is not valid at the host's time, and was checked at its own.
	Skewed bool
}
