package policy

import (
	"cmp"
	"context"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/exitgate/exitgate"
)

// A Reach is what hosts of one class, or one host, can get at under one revision. Rules of the policy directory are not
// worked out: those that grant may add to it, and those that deny take away.
type Reach struct {
	Revision string         `json:"revision"`
	Class    exitgate.Class `json:"class"`
	Host     string         `json:"host,omitempty"`
	At       time.Time      `json:"at"`
	// Audit says that the class is in audit mode: everything is carried, whatever is granted.
	Audit  bool        `json:"audit"`
	Access []Access    `json:"access"`
	Rules  []ReachRule `json:"rules"`
}

// An Access is one grant or exemption that has not ended, written out in full.
type Access struct {
	Kind    string   `json:"kind"` // grant or exemption
	ID      string   `json:"id"`
	For     string   `json:"for"` // class or host
	To      string   `json:"to"`
	Width   Width    `json:"width"`
	Schemes []string `json:"schemes,omitempty"`
	Ports   []uint16 `json:"ports"`
	Methods []string `json:"methods,omitempty"` // "*" any
	Paths   []string `json:"paths,omitempty"`   // as in the grant; none: every path

	Headers      map[string]string `json:"headers,omitempty"`
	EncodedSlash bool              `json:"encoded_slash,omitempty"`
	MaxRequest   int64             `json:"max_request"` // bytes; 0 the gateway's default
	MaxResponse  int64             `json:"max_response"`
	MaxBytes     int64             `json:"max_bytes,omitempty"` // of an exemption
	Raw          bool              `json:"raw,omitempty"`
	Audit        bool              `json:"audit,omitempty"`
	Until        time.Time         `json:"until,omitzero"`
	Source       string            `json:"source"`
	Reason       string            `json:"reason"`

	entry *entry
}

// A Width says how many destinations one entry covers.
type Width struct {
	Kind string `json:"kind"` // name, address, range, subdomain (all below a part of a domain), domain (all below a registered one)
	Text string `json:"text"`
	// Addresses is how many a range has, in decimal; "" for names.
	Addresses string `json:"addresses,omitempty"`
}

// A ReachRule is a rule of the policy directory that decides.
type ReachRule struct {
	Set   string `json:"set"` // deny, grants or exemptions
	Place string `json:"place"`
	Title string `json:"title"`
	Text  string `json:"text"`
}

// Reach enumerates what class, and host where it is not "", can get at when it is at.
func (e *Engine) Reach(_ context.Context, class exitgate.Class, host string, at time.Time) Reach {
	s := e.current.Load()
	r := Reach{Revision: s.revision, Class: class, Host: host, At: at.UTC(), Audit: slices.Contains(s.audit, class), Access: []Access{}}
	for _, who := range []subject{{kindClass, string(class)}, {kindHost, host}} {
		if who.name == "" {
			continue
		}
		for _, list := range s.table.found[who] {
			for _, x := range list {
				if at.Before(x.until) {
					r.Access = append(r.Access, accessOf(x))
				}
			}
		}
	}
	slices.SortFunc(r.Access, func(a, b Access) int {
		return cmp.Or(cmp.Compare(b.Width.rank(), a.Width.rank()), cmp.Compare(a.To, b.To), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID))
	})
	r.Rules = s.deciding()
	return r
}

func accessOf(e *entry) Access {
	a := Access{ID: e.id(), For: e.subject.kind + " " + e.subject.name, To: e.key, Width: widthOf(e.key), Ports: e.ports, entry: e}
	if e.until != endOfTime {
		a.Until = e.until
	}
	if x := e.exempt; x != nil {
		a.Kind, a.MaxBytes, a.Raw, a.Source, a.Reason = "exemption", x.MaxBytes, x.Raw, source(x.Source), x.Reason
		return a
	}
	g := e.grant
	a.Kind, a.Schemes, a.Methods, a.Paths, a.Headers, a.EncodedSlash = "grant", grantSchemes(g), grantMethods(g), g.Paths, g.Headers, g.EncodedSlash
	a.MaxRequest, a.MaxResponse, a.Audit, a.Source, a.Reason = g.MaxRequest, g.MaxResponse, g.Audit, source(g.Source), g.Reason
	return a
}

func widthOf(key string) Width {
	if parent, ok := strings.CutPrefix(key, "*."); ok {
		if registered, err := publicsuffix.EffectiveTLDPlusOne(parent); err == nil && registered == parent {
			return Width{Kind: "domain", Text: "every name below the domain " + parent}
		}
		return Width{Kind: "subdomain", Text: "every name below " + parent}
	}
	if p, err := netip.ParsePrefix(key); err == nil {
		n := new(big.Int).Lsh(big.NewInt(1), uint(p.Addr().BitLen()-p.Bits()))
		return Width{Kind: "range", Text: n.String() + " addresses", Addresses: n.String()}
	}
	if _, err := netip.ParseAddr(key); err == nil {
		return Width{Kind: "address", Text: "one address", Addresses: "1"}
	}
	return Width{Kind: "name", Text: "one name"}
}

// rank orders widths, the widest highest.
func (w Width) rank() int {
	return slices.Index([]string{"address", "name", "range", "subdomain", "domain"}, w.Kind)
}

// deciding lists the rules of the policy directory that deny, grant or exempt, in the order of their places.
func (s *snapshot) deciding() []ReachRule {
	out := []ReachRule{}
	for name, m := range s.compiler.Modules {
		if strings.HasPrefix(name, baseDir) || m.Package.Path.String() != ownPackage {
			continue
		}
		for _, r := range m.Rules {
			set := r.Head.Ref()[0].Value.String()
			if set != "rewrite" && slices.Contains(deciding, set) && r.Location != nil {
				rule := ReachRule{Set: set, Place: fmt.Sprintf("%s:%d", name, r.Location.Row), Text: string(r.Location.Text)}
				for _, a := range r.Annotations {
					rule.Title = cmp.Or(rule.Title, a.Title)
				}
				out = append(out, rule)
			}
		}
	}
	slices.SortFunc(out, func(a, b ReachRule) int { return cmp.Or(cmp.Compare(a.Set, b.Set), cmp.Compare(a.Place, b.Place)) })
	return out
}
