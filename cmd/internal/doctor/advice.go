package doctor

import (
	"cmp"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// An Advice is one thing that is off, on which side, and what to do about it.
type Advice struct {
	Side Side   `json:"side"`
	What string `json:"what"`
	Do   string `json:"do"`
	Note bool   `json:"note"` // it may be right as it is
}

// A Side is who has to do something.
type Side string

// The sides.
const (
	SideHost        Side = "host"
	SideGateway     Side = "gateway"
	SidePolicy      Side = "policy" // whoever grants access
	SideNetwork     Side = "network"
	SideDestination Side = "destination"
	SideRun         Side = "this run" // the doctor saw too little
)

// A consultation gathers advice.
type consultation struct {
	v    Views
	list []Advice
}

func (c *consultation) wrong(s Side, do, what string, args ...any) {
	c.list = append(c.list, Advice{Side: s, What: fmt.Sprintf(what, args...), Do: do})
}

func (c *consultation) note(s Side, do, what string, args ...any) {
	c.list = append(c.list, Advice{Side: s, What: fmt.Sprintf(what, args...), Do: do, Note: true})
}

// advise lists what is off, first what may be the cause of what follows: the clock before certificates, who the host is
// before what it may, the way before what is found at its end. Notes come last.
func advise(v Views) []Advice {
	c := &consultation{v: v}
	for _, look := range []func(*consultation){adviseClock, adviseEnrolment, adviseView, adviseProxy, adviseNames, adviseRoute,
		adviseConnection, adviseProbed, adviseChain, adviseDecision, adviseUpstream} {
		look(c)
	}
	var list, notes []Advice
	for _, a := range c.list {
		if a.Note {
			notes = append(notes, a)
		} else {
			list = append(list, a)
		}
	}
	return append(list, notes...)
}

func adviseClock(c *consultation) {
	if c.v.Clock == nil {
		return
	}
	off := c.v.Clock.Offset
	if off.Abs() < clockNote && !c.v.Clock.Skewed {
		return
	}
	word := "behind"
	if off < 0 {
		word = "ahead of"
	}
	const do = "set it, and let NTP keep it (timedatectl set-ntp true); then see that the gateway's own is right: exitgate doctor there"
	if off.Abs() >= clockWrong || c.v.Clock.Skewed {
		c.wrong(SideHost, do, "the host's clock is %v %s the gateway's, so certificates look expired or not valid yet", off.Abs().Round(time.Second), word)
		return
	}
	c.note(SideHost, do, "the host's clock is %v %s the gateway's", off.Abs().Round(time.Second), word)
}

func adviseEnrolment(c *consultation) {
	e := c.v.Host.Enrolment
	switch p := e.Problem; {
	case p != nil && p.Kind == KindMissing:
		c.note(SideHost, "enrol it (exitgate host token on the gateway prints the command), or ask who runs the gateway what it decides",
			"this host is not enrolled, so the gateway does not tell it what it sees and decides")
		return
	case p != nil:
		c.wrong(SideHost, "enrol again: exitgate unenroll, then exitgate enroll with a new token", "%s", p.Text)
		return
	}
	again := "see why it was not renewed (systemctl status exitgate-host.service), and enrol again with a new token: exitgate enroll --token-file FILE"
	i, now := e.Identity, c.v.Host.Now
	switch {
	case i.Problem != nil && i.Problem.Kind == KindPermission:
		c.note(SideRun, "run it with sudo", "the identity of this host is for root only, and without it the gateway tells nothing")
	case i.Problem != nil:
		c.wrong(SideHost, "enrol again: exitgate unenroll, then exitgate enroll with a new token", "the identity cannot be used: %s", i.Problem.Text)
	case !now.Before(i.NotAfter):
		c.wrong(SideHost, again, "the identity of %s ended at %s", i.Name, stamp(i.NotAfter))
	case now.Before(i.NotBefore):
		c.wrong(SideHost, "set the host's clock", "the identity of %s begins at %s only, by this host's clock", i.Name, stamp(i.NotBefore))
	case i.NotAfter.Sub(now) < i.NotAfter.Sub(i.NotBefore)/4:
		c.note(SideHost, "see that the timer runs: systemctl list-timers exitgate-host.timer; renew now with: exitgate enroll --renew",
			"the identity ends in %v and should have been renewed by now", i.NotAfter.Sub(now).Round(time.Minute))
	}
}

// adviseView says why the gateway told nothing, where that is not for want of an enrolment.
func adviseView(c *consultation) {
	p, e := c.v.NoView, c.v.Host.Enrolment
	if p == nil || e.Problem != nil || e.Identity.Problem != nil {
		if g := c.v.Gateway; g != nil && (g.Host != e.Name || string(g.Class) != e.Class) && e.Problem == nil {
			c.wrong(SideHost, "enrol again: exitgate unenroll, then exitgate enroll with a new token",
				"the host takes itself for %s of class %s, and the gateway for %s of class %s", e.Name, e.Class, g.Host, g.Class)
		}
		return
	}
	switch p.Kind {
	case KindAnswered:
		c.wrong(SideGateway, "look there who it knows: exitgate host list; a host that is disabled or was removed is enabled again or enrols again",
			"the gateway does not take this host for one of its own: %s", p.Text)
	case KindResolver:
		c.wrong(SideHost, "see that the host's resolver runs and knows that name: "+cmp.Or(strings.Join(c.v.Host.Names.Resolvers, ", "), "none is set in /etc/resolv.conf"),
			"the gateway %s gave no view: %s", e.Gateway, p.Text)
	case KindImpostor:
		c.wrong(SideNetwork, "see who answers there; if the gateway has a new identity root, enrol again with its fingerprint", "%s", p.Text)
	case KindRefused, KindTimeout, KindNoRoute, KindNotTLS:
		c.wrong(SideNetwork, "see that the gateway runs (exitgate doctor there) and that no firewall stands before its enrolment port",
			"the enrolment listener %s cannot be reached: %s", e.Gateway, p.Text)
	default:
		c.wrong(SideNetwork, "see that the name and the port of the gateway are right, and that it runs", "the gateway %s gave no view: %s", e.Gateway, p.Text)
	}
}

func adviseProxy(c *consultation) {
	p, e := c.v.Host.Proxy, c.v.Host.Enrolment
	switch {
	case p.Problem != nil:
		c.wrong(SideHost, "correct it, or begin a new session", "%s: %s", p.From, p.Problem.Text)
	case p.Differs != "" && sameGateway(c.v):
		c.note(SideHost, "nothing, if somebody meant it", "this session uses the proxy %s, and the enrolment names %s", redacted(p.URL), redacted(p.Differs))
	case p.Differs != "":
		c.wrong(SideHost, "remove the setting of "+p.From+", or begin a new session", "this session uses the proxy %s, and the gateway's is %s", redacted(c.v.Host.Proxy.URL), redacted(p.Differs))
	case p.Bypass == "(loopback)":
	case p.Bypass != "":
		c.note(SideHost, "take it out of no_proxy, if it should go through the gateway", "no_proxy has %s, so programs go around the gateway for this URL", p.Bypass)
	case p.Unset:
		c.note(SideHost, "begin a new session, or: . /etc/profile.d/exitgate.sh",
			"the proxy variables are not set in this session, so its programs do not use the gateway")
	case p.URL != "" && e.Problem == nil && e.Mode == "transparent":
		c.note(SideHost, "remove "+p.From, "%s names a proxy, and this gateway needs none", p.From)
	}
}

// sameGateway reports whether the proxy of the session is another way into the gateway that the host is enrolled with: it
// knows this host by its name and class.
func sameGateway(v Views) bool {
	p, e := v.Host.Probed, v.Host.Enrolment
	return p != nil && p.Problem == nil && e.Problem == nil && p.Host == e.Name && p.Class == e.Class
}

func adviseNames(c *consultation) {
	n, g := c.v.Host.Names, c.v.Gateway
	name := c.v.URL.Hostname()
	proxied := c.v.Host.Proxy.URL != ""
	if proxied && g != nil && g.Own {
		return // a name that only the gateway knows
	}
	say, after := c.wrong, ""
	if proxied {
		say, after = c.note, "; programs that use the proxy leave the name to the gateway, others fail"
	}
	switch {
	case n.Problem != nil && n.Problem.Kind == KindNoName:
		do := "correct the name, or the host's resolver (" + cmp.Or(strings.Join(n.Resolvers, ", "), "none is set") + ")"
		if g == nil || !g.Looked || g.Own || g.Step == "resolve" {
			say(SideHost, do, "the host's resolver does not know %s%s", name, after)
			return
		}
		say(SideHost, do, "the host's resolver does not know %s, and the gateway's does%s", name, after)
	case n.Problem != nil:
		say(SideNetwork, "see that the resolver runs and can be reached: "+cmp.Or(strings.Join(n.Resolvers, ", "), "none is set in /etc/resolv.conf"),
			"%s%s", n.Problem.Text, after)
	case !differ(c.v):
	case len(n.File) > 0:
		say(SideHost, "remove the entry, if nothing else needs it", "%s sends %s to %s, and for the gateway it is at %s%s",
			n.File[0], name, addresses(n.Addresses), strings.Join(g.Addresses, " "), after)
	case private(n.Addresses) && !privateText(g.Addresses):
		say(SideHost, "see why the host's resolver ("+strings.Join(n.Resolvers, ", ")+") answers so: it may have a zone of its own, or be blocking the name",
			"the host's resolver answers %s with an address that is not public, %s, and the gateway's with %s%s", name, addresses(n.Addresses), strings.Join(g.Addresses, " "), after)
	default:
		c.note(SideHost, "nothing, if the site answers each resolver differently; else compare the resolvers", "host and gateway have different addresses for %s: %s, and %s",
			name, addresses(n.Addresses), strings.Join(g.Addresses, " "))
	}
}

// private reports whether none of the addresses is public.
func private(list []netip.Addr) bool {
	for _, a := range list {
		if a.IsGlobalUnicast() && !a.IsPrivate() {
			return false
		}
	}
	return len(list) > 0
}

func privateText(list []string) bool {
	var all []netip.Addr
	for _, s := range list {
		if a, err := netip.ParseAddr(hostOf(s)); err == nil {
			all = append(all, a)
		}
	}
	return private(all)
}

func adviseRoute(c *consultation) {
	if p := c.v.Host.Route.Problem; p != nil {
		c.wrong(SideHost, "see that the interface is up and has its routes: ip route", "%s", p.Text)
	}
}

// aimText is whom the host's connection goes to, for people.
func (c *consultation) aimText() string {
	if p := c.v.Host.Proxy.URL; p != "" {
		return "the proxy " + redacted(p)
	}
	return hostPort(c.v.URL)
}

func adviseConnection(c *consultation) {
	r, aim := c.v.Host.Reached, c.aimText()
	p := r.Problem
	if p == nil || c.v.Host.Route.Problem != nil && r.Step == "connect" {
		return // a missing route says it
	}
	proxied := c.v.Host.Proxy.URL != ""
	switch r.Step {
	case "resolve":
		if proxied {
			c.wrong(SideHost, "correct the host's resolver, or name the proxy by its address", "the name of %s cannot be looked up: %s", aim, p.Text)
		}
	case "connect":
		switch {
		case p.Kind == KindRefused && proxied:
			c.wrong(SideGateway, "see that it runs and listens there (listen.proxy), and not on loopback only: exitgate doctor on it", "nobody listens at %s", aim)
		case p.Kind == KindRefused:
			c.wrong(SideNetwork, "see whether it is the destination or the way to it that refuses", "%s refuses the connection", aim)
		case proxied:
			c.wrong(SideNetwork, "see that no firewall stands between this host and the gateway", "%s cannot be reached: %s", aim, p.Text)
		default:
			c.wrong(SideNetwork, "see whether the way out leads through the gateway, and what it decides", "%s cannot be reached: %s", aim, p.Text)
		}
	case "proxy-tls":
		c.wrong(SideHost, "see whether the proxy speaks TLS on that port, or is named http://", "TLS with %s failed: %s", aim, p.Text)
	case "proxy":
		c.adviseProxySaid(r, aim)
	case "tls":
		c.wrong(SideGateway, "look at its log for this connection: exitgate flows -n 5", "TLS behind %s failed: %s", aim, p.Text)
	}
}

// adviseProxySaid is about a CONNECT that got no tunnel.
func (c *consultation) adviseProxySaid(r Reached, aim string) {
	switch {
	case r.Status == 0:
		c.wrong(SideNetwork, "see whether it is an HTTP proxy", "%s gave no answer to CONNECT: %s", aim, r.Problem.Text)
	case r.Status == 403 && (c.v.Host.Probed != nil && c.v.Host.Probed.Class == "unknown" || c.v.NoView != nil && c.v.NoView.Kind == KindAnswered):
		return // who the host is taken for says it
	case r.Status == 407:
		c.wrong(SideHost, "enrol it, or put its host token into the proxy setting", "%s does not know this host: %s", aim, r.Said)
	case r.Status == 403:
		c.wrong(SidePolicy, "if this host should be known, register the address that it comes from (exitgate host) or enrol it; if it is, ask for access: "+c.requestCommand(),
			"%s refused: %s", aim, r.Said)
	case r.Status >= 500:
		c.wrong(SideGateway, "look at its log: exitgate flows -n 5", "%s could not: %d, %s", aim, r.Status, r.Said)
	default:
		c.wrong(SideNetwork, "see whether it is the gateway that answers there", "%s answered CONNECT with %d: %s", aim, r.Status, r.Said)
	}
}

func adviseProbed(c *consultation) {
	p, e := c.v.Host.Probed, c.v.Host.Enrolment
	switch {
	case p == nil || p.Problem != nil:
	case p.Class == "unknown" && e.Problem == nil:
		c.wrong(SideGateway, "register the address (exitgate host, or exitgate enroll --renew on this host), or let the host use the https proxy with its certificate",
			"the proxy does not know who comes from %s, and takes this host for nobody", p.Source)
	case p.Class == "unknown":
		c.wrong(SideHost, "enrol it (exitgate host token on the gateway prints the command), or register its address there", "the proxy does not know who comes from %s, and lets nobody out whom it does not know", p.Source)
	case e.Problem == nil && (p.Host != e.Name || p.Class != e.Class):
		c.wrong(SideGateway, "see which host has that address: exitgate host list", "the proxy takes what comes from %s for %s of class %s (by %s), and this host is %s of class %s",
			p.Source, p.Host, p.Class, p.By, e.Name, e.Class)
	}
}

func adviseChain(c *consultation) {
	t, r, g := c.v.Host.Trust, c.v.Host.Reached, c.v.Gateway
	if len(r.Chain) == 0 {
		return
	}
	decided := g != nil && g.Action == "allow"
	origin := g != nil && len(g.Chain) > 0 && g.Chain[0].SHA256 == fingerprint(r.Chain[0])
	switch {
	case t.Known && !t.Intercepted && decided && origin:
		c.wrong(SideNetwork, "see how its packets get out: they should pass the gateway (proxy settings, routes, firewall)",
			"the host meets the destination itself: nothing is intercepted, although the gateway would intercept it")
	case t.Known && !t.Intercepted && decided:
		c.wrong(SideNetwork, "see who else intercepts on the way from this host, and how its packets get out", "the host is shown a certificate that neither the gateway nor the destination made, signed by %s", t.Signer)
	case t.Known && !t.Intercepted && (g == nil || g.Action != "splice") && c.v.Host.Proxy.URL == "":
		c.note(SideNetwork, "nothing, if this host is not meant to be behind a gateway; else see how its packets get out", "what the host is shown was not made by the gateway, but by %s", t.Signer)
	case t.Intercepted && g != nil && g.Action == "splice":
		c.note(SideGateway, "look again: a change of the exemption takes a second", "the gateway says that it does not read this destination, and it did")
	}
	if t.Intercepted && t.System != "" {
		c.adviseDistrust(t)
	}
}

func (c *consultation) adviseDistrust(t Trust) {
	switch {
	case t.System == "it is not valid at this time" && c.v.Clock != nil && c.v.Clock.Offset.Abs() >= clockNote:
		return // the clock says it
	case t.Roots == "" && c.v.Host.Enrolment.Problem == nil:
		c.wrong(SideHost, "exitgate enroll --renew puts the gateway's roots there; exitgate trust check tries each program",
			"the system's store of this host does not accept the gateway's certificate: %s", t.System)
	case t.Roots == "":
		c.wrong(SideHost, "enrol it, or install the gateway's root: exitgate trust install --roots FILE",
			"the system's store of this host does not accept the gateway's certificate: %s", t.System)
	default:
		c.wrong(SideGateway, "exitgate ca status there says how its roots stand", "neither the system's store nor the gateway's roots accept what the gateway shows: %s", t.Roots)
	}
}

// requestCommand is the command that asks for the URL.
func (c *consultation) requestCommand() string {
	return "exitgate request --reason WHY " + shellQuote(withoutSecrets(c.v.URL))
}

// withoutSecrets is the URL without a query, which may hold some.
func withoutSecrets(u *url.URL) string {
	bare := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	return bare.String()
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func adviseDecision(c *consultation) {
	g := c.v.Gateway
	if g == nil || g.Action == "allow" || g.Action == "splice" {
		return
	}
	why := cmp.Or(g.Reason, "no reason was given")
	switch {
	case g.Rule == "exitgate:policy-failed":
		c.wrong(SideGateway, "exitgate doctor there says what is wrong with the policy", "the policy did not answer: %s", why)
	case strings.HasPrefix(g.Rule, "exitgate:"):
		c.wrong(SideGateway, "no grant changes this: it is a law of the gateway", "the gateway refuses %s (%s): %s", c.v.URL.Host, g.Rule, why)
	default:
		c.wrong(SidePolicy, "ask for it: "+c.requestCommand(), "class %s may not GET this URL (%s, revision %s): %s", g.Class, cmp.Or(g.Rule, "no rule"), g.Revision, why)
	}
}

func adviseUpstream(c *consultation) {
	g := c.v.Gateway
	if g == nil || !g.Looked {
		return
	}
	switch g.Step {
	case "":
	case "resolve":
		c.wrong(SideGateway, "correct the name, or the gateway's resolver: exitgate doctor there tries it", "%s", g.Error)
	case "guard":
		c.wrong(SideGateway, "if it should be reached, add the range to upstream.allow there; if not, somebody's DNS leads to the inside", "%s", g.Error)
	case "connect":
		side := SideDestination
		if g.Type == "destination_ip_unroutable" {
			side = SideGateway
		}
		c.wrong(side, "see whether the destination is up and lets the gateway in; no grant changes this", "%s", g.Error)
	case "tls":
		do := "it is for the destination to correct; no grant changes this"
		if g.Type == "tls_certificate_error" {
			do = "if its CA is one of yours, add it to upstream.roots on the gateway; else it is for the destination to correct"
		}
		c.wrong(SideDestination, do, "%s", g.Error)
	case "request":
		c.wrong(SideHost, "correct the URL: no program could fetch it through the gateway", "the gateway does not take this URL: %s", g.Error)
	default:
		c.wrong(SideGateway, "look at its log", "%s: %s", g.Step, g.Error)
	}
}
