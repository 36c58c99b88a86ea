package doctor

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/exitgate/exitgate/web/hostapi"
)

// A Report is both views, and what follows from them.
type Report struct {
	Views  Views
	Rows   []Row
	Advice []Advice
}

// A Row is one thing as both sides see it.
type Row struct {
	What    string `json:"what"`
	Host    string `json:"host"`
	Gateway string `json:"gateway"`
	Mark    Mark   `json:"mark"`
}

// A Mark says how a row is to be read.
type Mark string

// The marks.
const (
	Good    Mark = ""
	Note    Mark = "note"    // unusual, and may be right
	Differs Mark = "differs" // the sides do not agree
	Wrong   Mark = "wrong"   // something has to be done, on whichever side
)

// How far the clocks may be apart: short-lived certificates are backdated by an hour, one-time tokens by less.
const (
	clockNote  = 30 * time.Second
	clockWrong = 5 * time.Minute
)

func rows(v Views) []Row {
	var list []Row
	for _, row := range []func(Views) Row{enrolmentRow, identityRow, clockRow, resolverRow, answersRow, addressRow, proxyRow, routeRow, connectionRow, takenRow,
		certificateRow, signerRow, trustRow, tlsRow, alpnRow, decisionRow, upstreamRow} {
		if r := row(v); r.Host != "" || r.Gateway != "" {
			r.Host, r.Gateway = cmp.Or(r.Host, "-"), cmp.Or(r.Gateway, "-")
			list = append(list, r)
		}
	}
	return list
}

func enrolmentRow(v Views) Row {
	e := v.Host.Enrolment
	r := Row{What: "who"}
	switch {
	case e.Problem != nil && e.Problem.Kind == KindMissing:
		r.Host, r.Mark = "not enrolled", Note
	case e.Problem != nil:
		r.Host, r.Mark = e.Problem.Text, Wrong
	default:
		r.Host = fmt.Sprintf("%s, class %s", e.Name, e.Class)
	}
	switch {
	case v.Gateway != nil:
		r.Gateway = fmt.Sprintf("%s, class %s", v.Gateway.Host, v.Gateway.Class)
		if e.Problem == nil && r.Gateway != r.Host {
			r.Mark = Differs
		}
	case v.NoView.Kind == KindAnswered:
		r.Gateway, r.Mark = "refused", Wrong
	case v.NoView.Kind != KindMissing:
		r.Gateway = "not asked"
	}
	return r
}

func identityRow(v Views) Row {
	i, r := v.Host.Enrolment.Identity, Row{What: "identity"}
	if v.Host.Enrolment.Problem != nil {
		return r
	}
	switch now := v.Host.Now; {
	case i.Problem != nil && i.Problem.Kind == KindPermission:
		r.Host, r.Mark = "root's: run this with sudo", Note
	case i.Problem != nil:
		r.Host, r.Mark = i.Problem.Text, Wrong
	case !now.Before(i.NotAfter):
		r.Host, r.Mark = "ended "+stamp(i.NotAfter), Wrong
	case now.Before(i.NotBefore):
		r.Host, r.Mark = "begins "+stamp(i.NotBefore), Wrong
	default:
		r.Host = "until " + stamp(i.NotAfter)
	}
	if v.Gateway != nil {
		r.Gateway = "accepted"
	}
	return r
}

func clockRow(v Views) Row {
	r := Row{What: "clock", Host: stamp(v.Host.Now)}
	if v.Clock == nil {
		return r
	}
	r.Host, r.Gateway = stamp(v.Clock.At), stamp(v.Clock.At.Add(v.Clock.Offset))
	switch off := v.Clock.Offset.Abs(); {
	case off >= clockWrong || v.Clock.Skewed:
		r.Mark = Wrong
	case off >= clockNote:
		r.Mark = Note
	}
	return r
}

func resolverRow(v Views) Row {
	r := Row{What: "resolver", Host: strings.Join(v.Host.Names.Resolvers, " ")}
	if len(v.Host.Names.File) > 0 {
		r.Host = strings.TrimSpace(r.Host + " and " + strings.Join(v.Host.Names.File, " "))
	}
	if v.Gateway != nil && v.Gateway.Parent != "" {
		r.Gateway = "its parent proxy " + v.Gateway.Parent
	}
	return r
}

func answersRow(v Views) Row {
	n, r := v.Host.Names, Row{What: "addresses"}
	if r.Host = addresses(n.Addresses); n.Problem != nil {
		r.Host, r.Mark = n.Problem.Text, wrongIf(v.Host.Proxy.URL == "", Note)
	}
	g := v.Gateway
	switch {
	case g == nil:
	case !g.Looked:
		r.Gateway = "not looked up"
	case g.Own:
		r.Gateway = "its own name"
		if r.Mark == Note {
			r.Mark = Good
		}
	default:
		r.Gateway = strings.Join(g.Addresses, " ")
		if g.Step == "resolve" {
			r.Gateway, r.Mark = g.Error, Wrong
		} else if differ(v) && r.Mark == Good {
			r.Mark = Differs
		}
	}
	return r
}

// differ reports whether both sides have answers and share none.
func differ(v Views) bool {
	g := v.Gateway
	if g == nil || len(g.Addresses) == 0 || len(v.Host.Names.Addresses) == 0 {
		return false
	}
	return !slices.ContainsFunc(v.Host.Names.Addresses, func(a netip.Addr) bool {
		return slices.ContainsFunc(g.Addresses, func(s string) bool { return hostOf(s) == a.WithZone("").String() })
	})
}

// hostOf takes the port off an address, where it has one.
func hostOf(s string) string {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().String()
	}
	return s
}

func addressRow(v Views) Row {
	r := Row{What: "address chosen"}
	if v.Host.Aim.IsValid() {
		r.Host = v.Host.Aim.String()
		if v.Host.Proxy.URL != "" {
			r.Host += " (the proxy)"
		}
	}
	g := v.Gateway
	if g == nil {
		return r
	}
	if r.Gateway = g.Dialled; g.Parent != "" && g.Dialled != "" {
		r.Gateway += " (its parent proxy)"
	}
	for _, b := range g.Barred {
		r.Gateway = strings.TrimSpace(r.Gateway + " not " + hostOf(b.Address))
		if g.Step == "guard" {
			r.Mark = Wrong
		}
	}
	if v.Host.Proxy.URL == "" && differ(v) {
		r.Mark = Differs
	}
	return r
}

func proxyRow(v Views) Row {
	p, r := v.Host.Proxy, Row{What: "proxy"}
	switch {
	case p.Problem != nil:
		r.Host, r.Mark = p.Problem.Text+" ("+p.From+")", Wrong
	case p.Bypass != "":
		r.Host, r.Mark = "none: "+p.Bypass+" goes around it", Note
	case p.URL == "":
		r.Host = "none"
		if v.Host.Enrolment.Mode == "transparent" {
			r.Host = "none, and none is needed"
		}
	case p.Unset:
		r.Host, r.Mark = redacted(p.URL)+" (enrolment; not in this session)", Note
	default:
		r.Host = redacted(p.URL) + " (" + from(p) + ")"
	}
	if p.Differs != "" {
		if r.Gateway = redacted(p.Differs) + " (enrolment)"; r.Mark != Wrong {
			r.Mark = Differs
			if sameGateway(v) {
				r.Mark = Note
			}
		}
	}
	return r
}

// from says where a proxy is named.
func from(p ProxyChoice) string {
	if strings.HasPrefix(p.From, "/") {
		return "enrolment"
	}
	return p.From
}

// redacted returns the URL of a proxy without its password.
func redacted(s string) string {
	u, err := parseProxy(s)
	if err != nil || u == nil {
		return "..."
	}
	return u.Redacted()
}

func routeRow(v Views) Row {
	t, r := v.Host.Route, Row{What: "route"}
	switch {
	case !t.To.IsValid():
	case t.Problem != nil:
		r.Host, r.Mark = t.Problem.Text, Wrong
	default:
		r.Host = t.Interface
		if t.Source.IsValid() {
			r.Host += " from " + t.Source.String()
		}
		if t.Via.IsValid() {
			r.Host += " via " + t.Via.String()
		}
	}
	return r
}

func connectionRow(v Views) Row {
	c, r := v.Host.Reached, Row{What: "connection"}
	switch {
	case c.Problem != nil && c.Step != "tls":
		r.Host, r.Mark = c.Problem.Text, Wrong
	case c.Status != 0:
		r.Host = "CONNECT answered " + strconv.Itoa(c.Status)
	case c.Peer.IsValid():
		r.Host = "open"
	}
	return r
}

func takenRow(v Views) Row {
	p, r := v.Host.Probed, Row{What: "the proxy's probe"}
	switch {
	case p == nil || v.Host.Reached.Problem != nil && p.Problem != nil:
		return Row{}
	case p.Problem != nil:
		r.Gateway, r.Mark = p.Problem.Text, Note
		return r
	}
	r.Host = "comes from " + p.Source
	r.Gateway = fmt.Sprintf("%s, class %s, known by %s", cmp.Or(p.Host, "unknown"), p.Class, cmp.Or(p.By, "nothing"))
	if e := v.Host.Enrolment; p.Class == "unknown" || e.Problem == nil && (p.Host != e.Name || p.Class != e.Class) {
		r.Mark = Wrong
	}
	return r
}

func certificateRow(v Views) Row {
	r := Row{What: "certificate", Host: leafText(v.Host.Reached.Chain)}
	if c := v.Host.Reached; c.Problem != nil && c.Step == "tls" {
		r.Host, r.Mark = c.Problem.Text, Wrong
	}
	if g := v.Gateway; g != nil && len(g.Chain) > 0 {
		r.Gateway = g.Chain[0].Subject + " " + short(g.Chain[0].SHA256)
		if g.Type == "tls_certificate_error" {
			r.Mark = Wrong
		}
	}
	return r
}

func leafText(chain []*x509.Certificate) string {
	if len(chain) == 0 {
		return ""
	}
	return nameOf(chain[0].RawSubject, chain[0].Subject.String()) + " " + short(fingerprint(chain[0]))
}

func short(sum string) string { return sum[:min(len(sum), 16)] }

func signerRow(v Views) Row {
	t, r := v.Host.Trust, Row{What: "signed by"}
	if len(v.Host.Reached.Chain) == 0 {
		return r
	}
	switch {
	case t.Intercepted:
		r.Host = "this gateway: " + t.Signer
	case t.Known:
		r.Host = "not this gateway: " + t.Signer
		r.Mark = wrongIf(v.Gateway != nil && v.Gateway.Action != "splice", Note)
	default:
		r.Host, r.Mark = t.Signer, Note
	}
	if g := v.Gateway; g != nil && len(g.Chain) > 0 {
		r.Gateway = g.Chain[len(g.Chain)-1].Issuer
		if g.Action == "splice" && t.Intercepted {
			r.Mark = Differs
		}
	}
	return r
}

func wrongIf(b bool, other Mark) Mark {
	if b {
		return Wrong
	}
	return other
}

func trustRow(v Views) Row {
	t, r := v.Host.Trust, Row{What: "trust"}
	if len(v.Host.Reached.Chain) == 0 {
		return r
	}
	r.Host = "system store: yes"
	if t.System != "" {
		r.Host, r.Mark = "system store: no, "+t.System, Wrong
	}
	if t.Intercepted {
		r.Host += "; the gateway's roots: " + cmp.Or(t.Roots, "yes")
	}
	if g := v.Gateway; g != nil && len(g.Chain) > 0 {
		if r.Gateway = "accepted"; g.Step == "tls" {
			r.Gateway, r.Mark = "not accepted", Wrong
		}
	}
	return r
}

func tlsRow(v Views) Row {
	r := Row{What: "TLS", Host: v.Host.Reached.TLS}
	if v.Gateway != nil {
		r.Gateway = v.Gateway.TLS
	}
	return r
}

func alpnRow(v Views) Row {
	r := Row{What: "protocol", Host: v.Host.Reached.ALPN}
	if v.Gateway != nil && v.Gateway.TLS != "" {
		if r.Gateway = cmp.Or(v.Gateway.ALPN, "http/1.1"); r.Host != "" && r.Gateway != r.Host {
			r.Mark = Note
		}
	}
	return r
}

func decisionRow(v Views) Row {
	r, g := Row{What: "decision"}, v.Gateway
	if g == nil {
		return r
	}
	r.Gateway = g.Action + " by " + cmp.Or(g.Rule, "no rule")
	if g.Reason != "" {
		r.Gateway += ": " + g.Reason
	}
	if g.Action == "refuse" || !known(g.View) {
		r.Mark = Wrong
	}
	return r
}

// known reports whether the action is one that this program knows.
func known(g hostapi.View) bool {
	return g.Action == "allow" || g.Action == "splice" || g.Action == "refuse"
}

func upstreamRow(v Views) Row {
	r, g := Row{What: "upstream"}, v.Gateway
	switch {
	case g == nil || !g.Looked:
	case g.Own:
		r.Gateway = "none: it answers itself"
	case g.Step != "":
		r.Gateway, r.Mark = g.Step+": "+g.Error, Wrong
	default:
		r.Gateway = "reached"
	}
	return r
}

func addresses(list []netip.Addr) string {
	words := make([]string, len(list))
	for i, a := range list {
		words[i] = a.String()
	}
	return strings.Join(words, " ")
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }
