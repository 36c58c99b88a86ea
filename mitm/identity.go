package mitm

import (
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/exitgate/exitgate"
)

// An identity is what a host showed of itself: its address, and a token or a certificate where it had one. Who that
// makes it is its standing, which can change while a connection is open.
type identity struct {
	addr  netip.Addr
	token string              // value of Proxy-Authorization; "" none
	chain []*x509.Certificate // its own first; nil none
	lacks error               // what it did not show and had to; nil nothing
	last  atomic.Pointer[standing]
}

// A standing is who an identity is, as of an epoch of the Identifier.
type standing struct {
	of    *identity
	epoch uint64
	until time.Time // the end of the certificate; zero: none
	host  exitgate.Host
	err   error // why the host may not pass; nil: it may
}

// standing says who id is now. It asks the Identifier again when its epoch moved or the certificate came to its end,
// and else costs a few nanoseconds: it is called for each request.
func (p *Proxy) standing(id *identity, now time.Time) (st *standing) {
	defer func() {
		if v := recover(); v != nil {
			st = &standing{of: id, host: nobody(id.addr), err: bugOf("identify", v)}
		}
	}()
	epoch := p.Identify.Epoch() // before it is asked, so that a change in between is met the next time
	if st = id.last.Load(); st != nil && st.epoch == epoch && (st.until.IsZero() || now.Before(st.until)) {
		return st
	}
	st = &standing{of: id, epoch: epoch}
	st.host, st.err = p.who(id)
	if st.host.Class == "" {
		st.host = nobody(id.addr)
	}
	if len(id.chain) > 0 && st.err == nil {
		st.until = id.chain[0].NotAfter
	}
	if r := new(exitgate.Refusal); st.err == nil || errors.As(st.err, &r) {
		id.last.Store(st)
	}
	return st
}

func (p *Proxy) who(id *identity) (exitgate.Host, error) {
	switch {
	case id.lacks != nil:
		return exitgate.Host{}, id.lacks
	case id.chain != nil:
		return p.Identify.ByCertificate(id.addr, id.chain)
	case id.token != "":
		return p.Identify.ByToken(id.addr, id.token)
	}
	return p.Identify.ByAddress(id.addr)
}

// nobody is the host of an address that is not known.
func nobody(a netip.Addr) exitgate.Host {
	return exitgate.Host{Class: exitgate.ClassUnknown, Addr: a}
}

// identify says who sent the request of x: the host of its certificate, of the token in r, or of its address. The
// error is a refusal, or a Bug.
func (p *Proxy) identify(x *exchange, r *http.Request) error {
	credentials := r.Header.Values("Proxy-Authorization")
	r.Header.Del("Proxy-Authorization")
	switch id := x.s.id; {
	case id.lacks != nil || id.chain != nil: // a certificate says who it is; a token beside it says nothing
	case len(credentials) > 1:
		return exitgate.NewRefusal(http.StatusProxyAuthRequired, exitgate.RuleHost, "%s presented more than one host token", id.addr)
	case len(credentials) == 1:
		p.identifyAs(x, x.s.byToken(credentials[0]))
	case x.who.err == nil && x.who.host.Class == exitgate.ClassUnknown && p.Identify.NeedsToken():
		return &noToken{exitgate.NewRefusal(http.StatusProxyAuthRequired, exitgate.RuleHost,
			"no host is registered for %s, and the request has no host token", id.addr)}
	}
	return x.who.err
}

// identifyAs writes into x who sent it.
func (p *Proxy) identifyAs(x *exchange, id *identity) {
	x.who = p.standing(id, x.flow.Begin)
	x.flow.Question.Host = x.who.host
}

// noToken is the refusal of a host that is not known and could say by a token who it is.
type noToken struct{ *exitgate.Refusal }

func (e *noToken) Unwrap() error { return e.Refusal }

// byToken returns the identity of a token. Most connections show one token with each of their requests.
func (s *session) byToken(credentials string) *identity {
	if credentials == "" {
		credentials = " " // none, which is not valid either
	}
	id := s.shown.Load()
	if id == nil || subtle.ConstantTimeCompare([]byte(id.token), []byte(credentials)) == 0 {
		id = &identity{addr: s.id.addr, token: credentials}
		s.shown.Store(id)
	}
	return id
}

// still returns why the host of a tunnel may not go on, or nil. It was asked for a token, if at all, when it opened
// the tunnel: inside, there is no asking.
func (st *standing) still() error {
	r, ok := st.err.(*exitgate.Refusal)
	if !ok || r.Status != http.StatusProxyAuthRequired {
		return st.err
	}
	return &exitgate.Refusal{Verdict: r.Verdict}
}

// enter notes that a flow of the host st goes on from here; leave undoes it.
func (s *session) enter(st *standing) {
	s.judged.Store(st)
	s.running.Add(1)
}

func (s *session) leave() { s.running.Add(-1) }

// sessions are all sessions that are open.
type sessions struct {
	mu  sync.Mutex
	all map[*session]struct{}
}

func (o *sessions) add(s *session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all == nil {
		o.all = map[*session]struct{}{}
	}
	o.all[s] = struct{}{}
}

func (o *sessions) remove(s *session) {
	o.mu.Lock()
	delete(o.all, s)
	o.mu.Unlock()
}

func (o *sessions) list() []*session {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := make([]*session, 0, len(o.all))
	for s := range o.all {
		list = append(list, s)
	}
	return list
}

// How often the epoch is looked at, and after how many looks certificates that ended are looked for.
const (
	watchEvery   = 250 * time.Millisecond
	watchExpired = 120
)

// watchHosts cuts what hosts that may no longer pass have under way. What they begin anew is refused without it.
func (p *Proxy) watchHosts() {
	epoch, moved := uint64(0), false
	for n := 1; pause(p.base, watchEvery); n++ {
		now := uint64(0)
		if safely("identify", func() error { now = p.Identify.Epoch(); return nil }) != nil {
			continue
		}
		again := moved // for what was judged before the epoch moved and went on after the first look
		if moved = now != epoch; moved || again || n%watchExpired == 0 {
			p.dismiss()
		}
		epoch = now
	}
}

// dismiss cuts the sessions whose host was refused, or became another one, while a request, an upgraded connection or
// a tunnel of theirs goes on. A session on which nothing goes on stays: its next request learns why.
func (p *Proxy) dismiss() {
	now := p.now()
	for _, s := range p.sessions.list() {
		was := s.judged.Load()
		if was == nil || s.running.Load() == 0 {
			continue
		}
		is := p.standing(was.of, now)
		if is.err == nil && is.host == was.host {
			continue
		}
		r := exitgate.NewRefusal(0, exitgate.RuleHost, "%s is no longer who it was when this began", was.host.Addr)
		if is.err != nil && !errors.As(is.still(), &r) {
			continue // the Identifier failed, and will be asked again
		}
		s.dismissed.Store(r)
		s.cut()
	}
}
