package inspect

import (
	"net/http"
	"strings"

	"github.com/exitgate/exitgate"
)

// Authority refuses a request whose names disagree: the target of CONNECT, the TLS server name, Host or :authority,
// and the destination that was judged at connect (law 4). On HTTP/2 it answers 421, on which honest clients that put
// two origins on one connection open another one; on HTTP/1 it answers 403. It stands after [Canonical]. It fills
// Authority.Host as sent, and leaves the canonical form in req.Host.
type Authority struct{}

// ModifyRequest implements martian's RequestModifier.
func (Authority) ModifyRequest(req *http.Request) error {
	x, q, err := exchange("Authority", req)
	if err != nil {
		return err
	}
	names := &x.Flow.Authority
	names.Host = asSent(req.Host)
	disagree := func(format string, args ...any) error {
		status := http.StatusForbidden
		if req.ProtoMajor >= 2 {
			status = http.StatusMisdirectedRequest
		}
		return exitgate.NewRefusal(status, exitgate.RuleAuthority, format, args...)
	}
	for _, h := range req.Header["Host"] { // HTTP/2 only: net/http takes it out of HTTP/1 requests
		if !strings.EqualFold(h, req.Host) {
			return disagree("the request is for %.200q, and its Host field says %.200q", names.Host, asSent(h))
		}
	}
	delete(req.Header, "Host")
	host, port, err := splitAuthority(req.URL.Host)
	if err != nil {
		return &exitgate.Bug{Step: "inspect.Authority", Err: err}
	}
	if port == 0 {
		port = defaultPort(q.Scheme)
	}
	dest := x.Flow.Question.Dest
	if !sameHost(dest.Host, host) || dest.Port != port {
		return disagree("the request is for %s, and its connection is for %s", joinAuthority(q.Scheme, host, port), dest)
	}
	if names.Connect != "" {
		chost, cport, err := splitAuthority(names.Connect)
		if err != nil || !sameHost(chost, host) || cport != port {
			return disagree("the request is for %s, and CONNECT named %.200q", dest, names.Connect)
		}
	}
	for _, sni := range [...]string{names.SNI, helloName(x.Flow.Question.TLS)} {
		if sni != "" && !sameHost(sni, host) {
			return disagree("the request is for %s, and the TLS server name is %.200q", dest, sni)
		}
	}
	req.Host = req.URL.Host
	return nil
}

// asSent is a name as a record may hold it: text, and without user information, which may be a password.
func asSent(host string) string {
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		host = "..." + host[i:]
	}
	return strings.ToValidUTF8(host, "\uFFFD")
}

func helloName(t *exitgate.TLS) string {
	if t == nil {
		return ""
	}
	return t.SNI
}

// sameHost compares a name as sent with a canonical one.
func sameHost(sent, canonical string) bool {
	return sent == canonical || canonicalHost(sent) == canonical
}
