package web

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// errUnauthorized is a Problem that says that a token is needed, and that the one that came is not valid.
func unauthorized(err error) *Problem { return problem(http.StatusUnauthorized, err) }

// maxFailures is how many requests with a token that is not valid an address can make in a row; one more is added
// every six seconds.
const (
	maxFailures  = 10
	failureEvery = 6 * time.Second
)

// bearer returns who presents an API token. A token is found by its digest, so that the time this takes tells
// nothing about the tokens that there are; and what is said of a token that is known and no longer valid is said
// only to who has it. Who presents a valid token is never kept out because others at the same address do not.
func (a *Admin) bearer(r *http.Request) (Principal, error) {
	p, err := a.presented(r)
	if err == nil {
		return p, nil
	}
	if wait := a.failures.Take(Source(r), a.now(), maxFailures, failureEvery); wait > 0 {
		return p, TooMany(wait)
	}
	a.log().Warn("a request to the API was refused: its token is not valid", "from", Source(r), "err", err)
	return p, err
}

func (a *Admin) presented(r *http.Request) (p Principal, err error) {
	for key := range r.URL.Query() {
		if k := strings.ToLower(key); k == "token" || k == "access_token" {
			return p, unauthorized(errors.New("a token does not belong into a URL, where logs keep it; it is known now to whoever reads them: remove it, make another, and send it as Authorization: Bearer"))
		}
	}
	scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "bearer") || len(r.Header.Values("Authorization")) != 1 {
		return p, unauthorized(errors.New("this needs an API token: send Authorization: Bearer TOKEN; exitgate token add makes one"))
	}
	t := a.apiToken(Digest(strings.TrimSpace(secret)))
	switch {
	case t == nil:
		return p, unauthorized(errors.New("the API token is not known: it was removed, or it is not one of this gateway"))
	case !a.now().Before(t.Until):
		return p, unauthorized(fmt.Errorf("the API token %s ended %s", t.Name, t.Until.Format(time.RFC3339)))
	}
	a.Uses.Seen(KindAPIToken, t.ID, a.now())
	return Principal{Who: "token:" + t.Name, Role: t.Role, Classes: t.Classes}, nil
}

// apiToken returns the token of that digest. It looks at every token, whichever it is.
func (a *Admin) apiToken(hash string) (found *StoredAPIToken) {
	list := a.Mirror.APITokens.List()
	for i := range list {
		if subtle.ConstantTimeCompare([]byte(list[i].Hash), []byte(hash)) == 1 {
			found = &list[i]
		}
	}
	return found
}

// Source returns the address that a request comes from. What a proxy says of others is not asked.
func Source(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr, _ := netip.ParseAddr(host)
	return addr.Unmap().WithZone("")
}

// TooMany says that an address has to wait: 429.
func TooMany(wait time.Duration) *Problem {
	n := int((wait + time.Second - 1) / time.Second)
	p := problem(http.StatusTooManyRequests, fmt.Errorf("too many requests from this address: try again in %d seconds", n))
	p.retry = n
	return p
}

// refuse answers a request that nobody answers for.
func refuse(w http.ResponseWriter, r *http.Request, a *Admin, err error) {
	if hasStatus(err, http.StatusUnauthorized) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="exitgate"`)
	}
	fail(w, r, a.log(), err)
}
