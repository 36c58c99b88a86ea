package exitgate

import "fmt"

// Three things can go wrong with a flow, they are three types, and they never look alike to a client or an
// analyst: policy or a law of the gateway said no ([Refusal]); the network, the upstream or the client failed
// ([Fault]); the gateway itself failed ([Bug]).

// A Refusal is the error that a verdict to refuse becomes on its way to the client.
type Refusal struct {
	Verdict Verdict
	// Status is the HTTP status that renders it: 403 by default (0), 400 malformed, 413 and 429 over a limit,
	// 421 for an authority of another connection on HTTP/2, 431 header too large, 508 a loop.
	Status int
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("refused by %s: %s", r.Verdict.Rule, r.Verdict.Reason)
}

// Refusals that do not come from a policy but from the gateway's own laws carry one of these rules.
const (
	RuleMalformed = "exitgate:malformed"     // ambiguous, illegal or oversized syntax
	RuleAuthority = "exitgate:authority"     // the names of the destination do not agree
	RuleAddress   = "exitgate:address"       // every address of the name is one that may not be dialled
	RuleLimit     = "exitgate:limit"         // over a limit
	RuleLoop      = "exitgate:loop"          // the request has passed this gateway before
	RuleHost      = "exitgate:host"          // the host presented credentials that are not valid
	RuleProtocol  = "exitgate:protocol"      // a protocol that cannot be read, without an exemption
	RulePolicy    = "exitgate:policy-failed" // the policy did not answer: error, timeout, panic, undefined
	RuleRecord    = "exitgate:record-failed" // the record could not be begun, so nothing may leave
	RuleOverload  = "exitgate:overload"      // a bound of the gateway is reached

	// RuleNeverIntercept refuses to read a destination that the interception issuer excludes.
	RuleNeverIntercept = "exitgate:never-intercept"
)

// NewRefusal returns a refusal by one of the gateway's own rules. Status 0 is 403.
func NewRefusal(status int, rule, format string, args ...any) *Refusal {
	return &Refusal{Status: status, Verdict: Verdict{Rule: rule, Reason: fmt.Sprintf(format, args...)}}
}

// A Fault is a failure that policy has nothing to do with, at a named step.
type Fault struct {
	Step string `json:"step"` // resolve, connect, tls, send, wait, receive, client
	// Type is the error type of RFC 9209, section 2.3 (dns_error, connection_refused, connection_timeout,
	// tls_certificate_error, ...), or client_gone, client_tls for failures on the host's side.
	Type   string `json:"type"`
	Reason string `json:"reason"` // what failed, on what, why
	Err    error  `json:"-"`
}

func (f *Fault) Error() string { return f.Step + ": " + f.Reason }

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Err }

// A Bug is a failure of the gateway itself: a panic in a step, or an error that no step should return. It is
// answered with 500 and recorded as a fault of type proxy_internal_error.
type Bug struct {
	Step  string
	Err   error
	Stack []byte // nil unless it was a panic
}

func (b *Bug) Error() string { return "internal error in " + b.Step + ": " + b.Err.Error() }

// Unwrap returns the cause.
func (b *Bug) Unwrap() error { return b.Err }
