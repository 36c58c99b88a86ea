package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"sync"
	"syscall"
	"time"
)

// stepTime bounds each step.
const stepTime = 5 * time.Second

// A Host is the machine whose view is taken. The zero Host is this one.
type Host struct {
	Config string   // file of the enrolment; "": /etc/exitgate/host.json
	State  string   // directory of the identity; "": /var/lib/exitgate-host
	Env    []string // of the session; nil: ours
	Probes Probes   // those that are nil look at this machine
	Now    func() time.Time
}

// Probes are the ways in which a host looks. Each may take as long as its context, and returns what it found beside the
// reason why it found no more.
type Probes struct {
	Enrolment func(ctx context.Context) (Enrolment, error)
	Lookup    func(ctx context.Context, name string) (Names, error)
	Route     func(ctx context.Context, to netip.Addr) (Route, error)
	Reach     func(ctx context.Context, way Way) (Reached, error)
	Probe     func(ctx context.Context, way Way) (Probed, error)
	Ask       func(ctx context.Context, e Enrolment, url string) (GatewayView, error)
	// Accepts says why the system's store does not accept what Reach was shown; nil: it does.
	Accepts func(name string, r Reached) error
}

// A Way is how a connection is opened.
type Way struct {
	To        *url.URL
	Proxy     *url.URL     // nil: none
	Addresses []netip.Addr // of the proxy, or of the destination; tried in order
	Enrolment Enrolment    // whose identity an https proxy is shown, and whose roots it is checked by
}

// Examine looks at u from this host and asks the gateway what it sees.
func (h Host) Examine(ctx context.Context, u *url.URL) Report {
	h = h.complete()
	v := Views{URL: u}
	v.Host.Now = h.Now().UTC()
	e, err := bounded(ctx, h.Probes.Enrolment)
	e.Problem = problem(err)
	v.Host.Enrolment = e
	v.Host.Proxy = chooseProxy(h.Env, e, h.Config, u)
	proxy, err := parseProxy(v.Host.Proxy.URL)
	v.Host.Proxy.Problem = problem(err)

	var way Way
	var first sync.WaitGroup
	first.Go(func() { v.Host.Names = h.lookup(ctx, u.Hostname()) })
	first.Go(func() { v.Gateway, v.Clock, v.NoView = h.ask(ctx, e, u) })
	var proxyNames Names
	if proxy != nil {
		first.Go(func() { proxyNames = h.lookup(ctx, proxy.Hostname()) })
	}
	first.Wait()

	way = Way{To: u, Proxy: proxy, Addresses: v.Host.Names.Addresses, Enrolment: e}
	aim, lost := hostPort(u), v.Host.Names.Problem
	if proxy != nil {
		aim, lost, way.Addresses = hostPort(proxy), proxyNames.Problem, proxyNames.Addresses
	}
	if v.Host.Proxy.Problem == nil {
		h.connect(ctx, way, aim, lost, &v.Host)
	}
	if p := v.Host.Probed; v.Clock == nil && p != nil && !p.Heard.IsZero() {
		v.Clock = &Clock{At: p.Heard, Offset: p.Time.Add(time.Second / 2).Sub(p.Heard).Round(time.Second)}
	}
	v.Host.Trust = h.trust(v)
	return Report{Views: v, Rows: rows(v), Advice: advise(v)}
}

// connect fills in what depends on the address that is aimed at.
func (h Host) connect(ctx context.Context, way Way, aim string, lost *Problem, v *HostView) {
	if len(way.Addresses) == 0 {
		v.Reached = Reached{Problem: lost, Step: "resolve"}
		if lost == nil {
			v.Reached.Problem = &Problem{KindNoName, "there is no address"}
		}
		return
	}
	v.Aim = netip.AddrPortFrom(way.Addresses[0], portOf(aim))
	var wg sync.WaitGroup
	wg.Go(func() {
		r, err := bounded(ctx, func(ctx context.Context) (Route, error) { return h.Probes.Route(ctx, way.Addresses[0]) })
		r.Problem, r.To = problem(err), way.Addresses[0]
		v.Route = r
	})
	wg.Go(func() {
		r, err := bounded(ctx, func(ctx context.Context) (Reached, error) { return h.Probes.Reach(ctx, way) })
		r.Problem = problem(err)
		v.Reached = r
	})
	if way.Proxy != nil {
		wg.Go(func() {
			r, err := bounded(ctx, func(ctx context.Context) (Probed, error) { return h.Probes.Probe(ctx, way) })
			r.Problem = problem(err)
			v.Probed = &r
		})
	}
	wg.Wait()
}

func (h Host) lookup(ctx context.Context, name string) Names {
	if a, err := netip.ParseAddr(name); err == nil {
		return Names{Addresses: []netip.Addr{a}}
	}
	n, err := bounded(ctx, func(ctx context.Context) (Names, error) { return h.Probes.Lookup(ctx, name) })
	n.Problem = problem(err)
	return n
}

// ask returns the gateway's view, and its clock also when it gave no view.
func (h Host) ask(ctx context.Context, e Enrolment, u *url.URL) (*GatewayView, *Clock, *Problem) {
	switch {
	case e.Problem != nil && e.Problem.Kind == KindMissing:
		return nil, nil, &Problem{KindMissing, "this host is not enrolled"}
	case e.Problem != nil:
		return nil, nil, e.Problem
	}
	if base, err := url.Parse(e.Gateway); err == nil { // without its name it cannot be asked, and its silence would say nothing
		if n := h.lookup(ctx, base.Hostname()); n.Problem != nil {
			return nil, nil, &Problem{KindResolver, fmt.Sprintf("its name %s cannot be looked up: %s", base.Hostname(), n.Problem.Text)}
		}
	}
	g, err := bounded(ctx, func(ctx context.Context) (GatewayView, error) { return h.Probes.Ask(ctx, e, u.String()) })
	if err != nil {
		return nil, g.Clock, problem(err)
	}
	return &g, g.Clock, nil
}

func (h Host) complete() Host {
	if h.Config == "" {
		h.Config = "/etc/exitgate/host.json"
	}
	if h.State == "" {
		h.State = "/var/lib/exitgate-host"
	}
	if h.Env == nil {
		h.Env = os.Environ()
	}
	if h.Now == nil {
		h.Now = time.Now
	}
	m := machine{h}
	p := &h.Probes
	if p.Enrolment == nil {
		p.Enrolment = m.enrolment
	}
	if p.Lookup == nil {
		p.Lookup = m.lookup
	}
	if p.Route == nil {
		p.Route = m.route
	}
	if p.Reach == nil {
		p.Reach = m.reach
	}
	if p.Probe == nil {
		p.Probe = m.probe
	}
	if p.Ask == nil {
		p.Ask = m.ask
	}
	if p.Accepts == nil {
		p.Accepts = m.accepts
	}
	return h
}

// A problemError carries a Problem through an error.
type problemError struct{ Problem }

func (p *problemError) Error() string { return p.Text }

func failed(k Kind, format string, args ...any) error {
	return &problemError{Problem{k, fmt.Sprintf(format, args...)}}
}

// problem says what kind of error err is.
func problem(err error) *Problem {
	if err == nil {
		return nil
	}
	var p *problemError
	if errors.As(err, &p) {
		return &p.Problem
	}
	k := KindOther
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		k = KindTimeout
	case errors.Is(err, syscall.ECONNREFUSED):
		k = KindRefused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL):
		k = KindNoRoute
	case errors.Is(err, os.ErrPermission):
		k = KindPermission
	case errors.Is(err, os.ErrNotExist):
		k = KindMissing
	}
	return &Problem{k, err.Error()}
}

// bounded runs a step for as long as a step may take. It returns in time even when the step does not, and a panic of the
// step is its error.
func bounded[T any](ctx context.Context, step func(context.Context) (T, error)) (T, error) {
	return within(ctx, stepTime, step)
}

func within[T any](ctx context.Context, limit time.Duration, step func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	type outcome struct {
		v   T
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() {
			if p := recover(); p != nil {
				o.err = fmt.Errorf("the step itself failed: %v", p)
			}
			done <- o
		}()
		o.v, o.err = step(ctx)
	}()
	var o outcome
	select {
	case o = <-done:
		return o.v, o.err
	case <-ctx.Done():
	}
	grace := time.NewTimer(200 * time.Millisecond) // for what it knows to say
	defer grace.Stop()
	select {
	case o = <-done:
		return o.v, o.err
	case <-grace.C:
		return o.v, failed(KindTimeout, "it did not end within %v", limit)
	}
}
