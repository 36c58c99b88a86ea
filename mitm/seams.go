package mitm

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/netip"

	"github.com/exitgate/exitgate"
)

// A Decider answers questions. An error, a panic or a deadline that passed counts as a refusal. It must be safe
// for concurrent use and must not keep or change q.
type Decider interface {
	Decide(ctx context.Context, q *exitgate.Question) (exitgate.Verdict, error)
}

// An Issuer makes the leaf that stands in for an upstream's certificate. Name is a lower-case DNS name or an IP
// address. The certificate is shared and must not be changed. A name that must never be intercepted is an
// *exitgate.Refusal; any other error is a Bug.
type Issuer interface {
	Leaf(ctx context.Context, name string) (*tls.Certificate, error)
}

// A Recorder keeps flows. Begin returns before the first byte of the flow leaves, and only after the flow would
// survive the death of the process; an error means that nothing may leave. End is called exactly once for each
// Begin that returned nil, with the same flow, completed. The recorder does not keep f itself, but it may keep what
// f points at after End: the engine changes none of it from then on.
type Recorder interface {
	Begin(ctx context.Context, f *exitgate.Flow) error
	End(ctx context.Context, f *exitgate.Flow) error
}

// An Identifier says who a source is: by its address, by the value of a Proxy-Authorization header, or by the
// certificate, its own first, whose key it proved to hold and of which nothing else was verified. An address that
// nobody registered is a host of exitgate.ClassUnknown, and no error. An error is an *exitgate.Refusal that says why the
// host may not pass (disabled, expired, revoked, foreign), with status 407 where another token would help and else 0;
// the Host beside it is what is known for the record. Any other error is a Bug.
//
// NeedsToken reports whether a source that ByAddress does not know could be known by token, so that it is worth asking
// for one. Epoch moves on whenever an answer may have changed: then the hosts of open connections are asked for again
// before their next request, and within a second what they have under way is cut if they may no longer pass. It is
// read for each request, so it costs no more than an atomic load.
type Identifier interface {
	ByAddress(addr netip.Addr) (exitgate.Host, error)
	ByToken(addr netip.Addr, proxyAuthorization string) (exitgate.Host, error)
	ByCertificate(addr netip.Addr, chain []*x509.Certificate) (exitgate.Host, error)
	NeedsToken() bool
	Epoch() uint64
}

// A Screen checks the bytes that a host sends as HTTP/1.x before the server's parser sees them. Scan gets each
// piece as it was read and returns how many of its bytes may be handed on; with an *exitgate.Refusal (status 400,
// 413, 431 or 501) the rest may never be. After a CONNECT or Upgrade was accepted, Pass ends the screening.
type Screen interface {
	Scan(p []byte) (n int, err error)
	Pass()
}

// A Resolver finds the addresses of a destination. Each comes with the port to dial. Errors are *net.DNSError
// where the answer came from DNS.
type Resolver interface {
	Resolve(ctx context.Context, host string, port uint16) ([]netip.AddrPort, error)
}
