package exitgate

import (
	"net/netip"
	"time"
)

// A Kind says what crossing a flow accounts for.
type Kind string

// The kinds of flow.
const (
	KindRequest    Kind = "request"    // one HTTP request and its response, an upgraded connection included
	KindTunnel     Kind = "tunnel"     // bytes carried unread, or a CONNECT that was refused
	KindConnection Kind = "connection" // a connection that sent bytes but never a request
	KindDNS        Kind = "dns"
)

// An Outcome says in one word how a flow stands; it is derived, see [Flow.Outcome].
type Outcome string

// The outcomes.
const (
	OutcomeOpen        Outcome = "open"        // begun, not ended
	OutcomeAllowed     Outcome = "allowed"     // carried to its end
	OutcomeRefused     Outcome = "refused"     // policy, a limit or the gateway's own laws said no
	OutcomeFault       Outcome = "fault"       // the network, the upstream, the client, or the gateway failed
	OutcomeInterrupted Outcome = "interrupted" // the gateway died while the flow was open
)

// A BodyState says how much of a body was seen.
type BodyState string

// The states of a body.
const (
	BodyNone        BodyState = ""            // there was none
	BodyComplete    BodyState = "complete"    // seen to its end
	BodyCut         BodyState = "cut"         // the sender or the receiver stopped before its end
	BodyOverLimit   BodyState = "over-limit"  // stopped by a limit
	BodyUndecodable BodyState = "undecodable" // its content encoding could not be undone
)

// Bytes counts one direction of a flow. For HTTP, Header counts the start line and header fields (and
// trailers) as HTTP/1.1 would write them, whichever version carried them, and Body the body's bytes without
// framing. For a tunnel Header is 0 and Body counts every byte.
type Bytes struct {
	Header int64 `json:"header"`
	Body   int64 `json:"body"`
}

// A Side describes the protocol between the gateway and one of its two peers.
type Side struct {
	Proto string `json:"proto"` // HTTP/1.0, HTTP/1.1, HTTP/2.0, tls, tcp; "" nothing was spoken
	ALPN  string `json:"alpn"`
	TLS   string `json:"tls"` // "1.3", "1.2"; "" plain text
}

// Authority holds each name under which the destination was named, to be compared and searched.
type Authority struct {
	Connect string         `json:"connect"` // target of CONNECT, as sent
	SNI     string         `json:"sni"`     // as sent
	Host    string         `json:"host"`    // Host or :authority, as sent
	Dialled netip.AddrPort `json:"dialled,omitzero"`
}

// Phases holds how long each step took; 0 means that the step did not happen (a reused connection).
type Phases struct {
	Resolve time.Duration `json:"resolve"` // nanoseconds in JSON, as all durations
	Connect time.Duration `json:"connect"`
	TLS     time.Duration `json:"tls"`
	Wait    time.Duration `json:"wait"` // from the request sent to the first byte of the response
}

// A Flow is one accounted crossing. It begins before its first byte leaves, and it has exactly one end.
type Flow struct {
	ID      ID     `json:"id"`
	Conn    ID     `json:"conn"` // the accepted connection; shared by the requests on it
	Gateway string `json:"gateway"`
	Kind    Kind   `json:"kind"`

	Begin  time.Time `json:"begin"`        // UTC
	End    time.Time `json:"end,omitzero"` // UTC; zero while the flow is open
	Phases Phases    `json:"phases"`

	Question  Question  `json:"question"` // as it was judged last
	Verdict   Verdict   `json:"verdict"`
	Forwarded *Request  `json:"forwarded,omitempty"` // the request as it went upstream, where the verdict rewrote it
	Authority Authority `json:"authority"`
	Client    Side      `json:"client"`   // between host and gateway
	Upstream  Side      `json:"upstream"` // between gateway and destination
	// UpstreamCert is the lower-case hex SHA-256 of the DER of the upstream's leaf certificate.
	UpstreamCert string `json:"upstream_cert"`

	Status   int   `json:"status"`   // of the answer that the host got; 0 none
	Sent     Bytes `json:"sent"`     // what left: to the destination
	Received Bytes `json:"received"` // what came back from the destination

	RequestBody   BodyState `json:"request_body"`
	ResponseBody  BodyState `json:"response_body"`
	RequestSHA256 string    `json:"request_sha256"` // lower-case hex, of the request body's bytes as sent

	Findings    []Finding `json:"findings,omitempty"`
	Fault       *Fault    `json:"fault,omitempty"`
	Interrupted bool      `json:"interrupted,omitempty"` // the end was written by recovery
}

// Outcome derives how the flow stands.
func (f *Flow) Outcome() Outcome {
	switch {
	case f.Interrupted:
		return OutcomeInterrupted
	case f.End.IsZero():
		return OutcomeOpen
	case f.Fault != nil:
		return OutcomeFault
	case f.Verdict.Action == Refuse:
		return OutcomeRefused
	}
	return OutcomeAllowed
}

// A Finding is something that an inspector noticed in a body, header or URL.
type Finding struct {
	Inspector string `json:"inspector"`
	Where     string `json:"where"` // url, header:NAME, request-body, response-body
	What      string `json:"what"`
}
