package exitgate

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// A Stage is the point in a flow's life at which a question is asked.
type Stage string

// The stages, in the order in which a flow meets them.
const (
	StageResolve  Stage = "resolve"  // may this host resolve this name?
	StageConnect  Stage = "connect"  // may this host reach this destination at all, and is it spliced or read?
	StageRequest  Stage = "request"  // may this request go out?
	StageResponse Stage = "response" // may this response come in?
	StageBody     Stage = "body"     // may this body, which was held, go on?
)

// A Way is a way into the gateway.
type Way string

// The ways in.
const (
	WayProxy       Way = "proxy"       // explicit proxy: CONNECT and absolute-form
	WayTLSProxy    Way = "tls-proxy"   // explicit proxy over TLS
	WayTransparent Way = "transparent" // routed, intercepted by TPROXY
	WayDNS         Way = "dns"         // a query to the resolver
)

// A Question is all that a policy may look at, and it is stored with its flow, so that any later policy can be
// asked again. Values of secret headers and query keys are in it only as "scheme fp:hex" fingerprints.
type Question struct {
	Stage    Stage       `json:"stage"`
	At       time.Time   `json:"at"` // the only clock that a policy has; UTC
	Way      Way         `json:"way"`
	Host     Host        `json:"host"`
	Dest     Destination `json:"dest"`
	TLS      *TLS        `json:"tls,omitempty"`      // what the host's ClientHello says; nil before it, or in plain text
	HTTP     *Request    `json:"http,omitempty"`     // nil before a request was read
	Response *Response   `json:"response,omitempty"` // nil before the answer's header was read
}

// TLS is what a ClientHello says, before anything in it is believed.
type TLS struct {
	SNI      string   `json:"sni"`      // lower case; "" if absent
	ALPN     []string `json:"alpn"`     // as offered, in order
	Versions []string `json:"versions"` // "1.3", "1.2", ... as offered, without GREASE
	ECH      bool     `json:"ech"`      // an encrypted ClientHello extension (0xfe0d) is present
	JA4      string   `json:"ja4"`      // the JA4 fingerprint of the hello
}

// Request is the header of an HTTP request in the one form that is judged, stored and sent.
type Request struct {
	Method  string              `json:"method"`
	Scheme  string              `json:"scheme"`  // http or https
	URL     string              `json:"url"`     // absolute; default port left out; secret query values fingerprinted
	Path    string              `json:"path"`    // as on the wire, percent-encoding kept; starts with "/", or is "*"
	Query   string              `json:"query"`   // as on the wire but for secret values; without "?"
	Headers map[string][]string `json:"headers"` // lower-case names; without host and hop-by-hop; secrets fingerprinted
	Length  int64               `json:"length"`  // of the body as declared; -1 unknown
	Proto   string              `json:"proto"`   // HTTP/1.0, HTTP/1.1 or HTTP/2.0, as the host speaks it
	Upgrade string              `json:"upgrade"` // lower-case protocol of an Upgrade request, "websocket"; "" none

	// EncodedSlash says that a path segment holds %2F (or %252F), which only some servers take as it is.
	EncodedSlash bool `json:"encoded_slash"`
}

// Response is the header of an HTTP response.
type Response struct {
	Status  int                 `json:"status"`
	Headers map[string][]string `json:"headers"` // as in Request
	Length  int64               `json:"length"`  // of the body as declared; -1 unknown
}

// An Action is what a verdict says to do. The zero Action refuses.
type Action uint8

// The actions.
const (
	Refuse Action = iota // refuse, quickly and recognisably
	Allow                // carry, and read: at connect this means intercept
	Splice               // carry unread, because an exemption says so; connect only
)

var actionNames = [...]string{"refuse", "allow", "splice"}

// String returns refuse, allow or splice.
func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return "refuse"
}

// MarshalText implements [encoding.TextMarshaler].
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (a *Action) UnmarshalText(b []byte) error {
	for i, n := range actionNames {
		if string(b) == n {
			*a = Action(i)
			return nil
		}
	}
	return fmt.Errorf("read action %.20q: it is one of refuse, allow, splice", b)
}

// A Verdict answers a question. Its zero value refuses.
type Verdict struct {
	Action    Action          `json:"action"`
	Rule      string          `json:"rule"`          // what decided: "grant:ID", "exemption:ID", "deny:FILE:LINE", "no-grant", "exitgate:..."
	Reason    string          `json:"reason"`        // one sentence for the person who was refused
	Revision  string          `json:"revision"`      // of the policy that answered
	Grant     string          `json:"grant"`         // id of the grant that limits come from
	Exemption string          `json:"exemption"`     // id of the exemption, when spliced
	Raw       bool            `json:"raw,omitempty"` // the exemption is for a protocol that is not TLS
	Limits    Limits          `json:"limits"`
	Rewrite   json.RawMessage `json:"rewrite,omitempty"` // martian JSON; the engine refuses what is not valid. Kept without secrets
	// Audit says that policy would refuse this, and that it is carried because the class or grant is in
	// audit mode; Reason then says what the refusal would have said.
	Audit bool `json:"audit"`
}

// Limits bound one flow. Zero means the gateway's default for that limit.
type Limits struct {
	RequestBody  int64         `json:"request_body"`  // bytes
	ResponseBody int64         `json:"response_body"` // bytes
	Duration     time.Duration `json:"duration"`      // from begin to end; nanoseconds in JSON
	Bytes        int64         `json:"bytes"`         // both directions of a spliced flow together
}

// An Opening says what the first bytes of a connection are.
type Opening struct {
	Proto string // OpeningTLS, OpeningHTTP, OpeningH2C, OpeningSSH or OpeningUnknown
	TLS   *TLS   // with OpeningTLS
}

// The protocols that a connection can open with.
const (
	OpeningTLS     = "tls"
	OpeningHTTP    = "http" // a method and a space: HTTP/1.x
	OpeningH2C     = "h2c"  // the preface of HTTP/2 in plain text
	OpeningSSH     = "ssh"
	OpeningUnknown = "unknown"
)

// ErrShort is what a parser of a host's bytes says when it needs more of them to tell.
var ErrShort = errors.New("more bytes are needed")
