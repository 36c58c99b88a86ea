package mitm

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/exitgate/exitgate"
)

// Hosts is the Identifier made of a list: which addresses and which token belong to which host. It is swapped
// whole by Set; the zero value knows nobody.
type Hosts struct {
	// Certificate verifies the chain that a host showed and returns the host and the class that it names, or an
	// *exitgate.Refusal that says what is wrong with it. What it names must be on the list. What it found good is good
	// until a certificate of the chain ends, or Changed is called. It is set before use; nil: no certificate is known.
	Certificate func(chain []*x509.Certificate) (name string, class exitgate.Class, err error)
	Now         func() time.Time // nil: time.Now

	table  atomic.Pointer[hostTable]
	epoch  atomic.Uint64
	proven proven
}

// A RegisteredHost is one entry of the list.
type RegisteredHost struct {
	Name      string
	Class     exitgate.Class
	Addresses []netip.Prefix // the most specific prefix of all hosts wins
	Token     [32]byte       // SHA-256 of the host's token; zero: none
	// Refused says, as the end of a sentence, why the host may not pass ("it was disabled by ...: ..."); "": it may.
	Refused string
}

type hostTable struct {
	exact  map[netip.Addr]*RegisteredHost
	ranges [129][]rangeEntry // by prefix length, longest first when searched
	tokens map[[32]byte]*RegisteredHost
	names  map[string]*RegisteredHost
}

type rangeEntry struct {
	prefix netip.Prefix
	host   *RegisteredHost
}

// Set replaces the list. Two hosts with the same prefix, name or token are an error, and the old list stays.
func (h *Hosts) Set(list []RegisteredHost) error {
	t := &hostTable{exact: map[netip.Addr]*RegisteredHost{}, tokens: map[[32]byte]*RegisteredHost{}, names: map[string]*RegisteredHost{}}
	seen := map[netip.Prefix]string{}
	for i := range list {
		r := &list[i]
		if t.names[r.Name] != nil {
			return fmt.Errorf("register host %q: the name is taken by another host", r.Name)
		}
		t.names[r.Name] = r
		if r.Token != ([32]byte{}) {
			if o := t.tokens[r.Token]; o != nil {
				return fmt.Errorf("register host %q: it has the token of host %q", r.Name, o.Name)
			}
			t.tokens[r.Token] = r
		}
		for _, p := range r.Addresses {
			p = p.Masked()
			if o, ok := seen[p]; ok {
				return fmt.Errorf("register host %q: %s belongs to host %q already", r.Name, p, o)
			}
			seen[p] = r.Name
			if p.IsSingleIP() {
				t.exact[p.Addr()] = r
			} else {
				t.ranges[p.Bits()] = append(t.ranges[p.Bits()], rangeEntry{p, r})
			}
		}
	}
	h.table.Store(t)
	h.epoch.Add(1)
	return nil
}

// Changed says that something besides the list changed which decides who a host is: a revoked certificate, another
// identity root.
func (h *Hosts) Changed() {
	h.proven.forget()
	h.epoch.Add(1)
}

// Epoch implements Identifier.
func (h *Hosts) Epoch() uint64 { return h.epoch.Load() }

// as returns r as the host that it is at address a, known by what by says, or why it may not pass.
func (r *RegisteredHost) as(a netip.Addr, by string) (exitgate.Host, error) {
	h := exitgate.Host{Name: r.Name, Class: r.Class, Addr: a, By: by}
	if r.Refused != "" {
		return h, exitgate.NewRefusal(0, exitgate.RuleHost, "host %s may not pass: %s", r.Name, r.Refused)
	}
	return h, nil
}

// ByAddress implements Identifier.
func (h *Hosts) ByAddress(a netip.Addr) (exitgate.Host, error) {
	if t := h.table.Load(); t != nil {
		if r := t.byAddress(a); r != nil {
			return r.as(a, exitgate.ByAddress)
		}
	}
	return nobody(a), nil
}

func (t *hostTable) byAddress(a netip.Addr) *RegisteredHost {
	if r := t.exact[a]; r != nil {
		return r
	}
	for bits := len(t.ranges) - 1; bits >= 0; bits-- {
		for _, e := range t.ranges[bits] {
			if e.prefix.Contains(a) {
				return e.host
			}
		}
	}
	return nil
}

// ByToken implements Identifier: "Basic" with the host's name as user and the token as password, or "Bearer"
// with the token.
func (h *Hosts) ByToken(a netip.Addr, credentials string) (exitgate.Host, error) {
	if t := h.table.Load(); t != nil {
		if name, token, ok := readCredentials(credentials); ok {
			// The look-up is by digest, so its timing tells nothing about a token that is not known already.
			if r := t.tokens[sha256.Sum256([]byte(token))]; r != nil && (name == "" || name == r.Name) {
				return r.as(a, exitgate.ByToken)
			}
		}
	}
	return nobody(a), exitgate.NewRefusal(http.StatusProxyAuthRequired, exitgate.RuleHost, "the host token that %s presented is not valid", a)
}

// ByCertificate implements Identifier. The certificate of a host that left the list, or that moved to another class,
// is refused although it is valid.
func (h *Hosts) ByCertificate(a netip.Addr, chain []*x509.Certificate) (exitgate.Host, error) {
	if h.Certificate == nil {
		return nobody(a), exitgate.NewRefusal(0, exitgate.RuleHost, "%s shows a certificate, and this gateway knows hosts by address or token only", a)
	}
	name, class, err := h.proven.verify(chain, h.now(), h.Certificate)
	known := exitgate.Host{Name: name, Class: class, Addr: a, By: exitgate.ByCertificate}
	if err != nil {
		return known, err
	}
	t := h.table.Load()
	if t == nil || t.names[name] == nil {
		return known, exitgate.NewRefusal(0, exitgate.RuleHost, "the certificate names host %.80q, which is not registered here, or no longer", name)
	}
	r := t.names[name]
	if r.Class != class {
		return known, exitgate.NewRefusal(0, exitgate.RuleHost, "the certificate of host %s says class %.80q and its registration class %s: enrol it again", name, class, r.Class)
	}
	return r.as(a, exitgate.ByCertificate)
}

func (h *Hosts) now() time.Time {
	if h.Now != nil {
		return h.Now()
	}
	return time.Now()
}

// proven remembers certificates that were verified: the list changes often where hosts come and go, and each open
// connection is then asked for again.
type proven struct {
	mu   sync.RWMutex // guards what follows
	good map[[32]byte]proof
	age  uint64 // how often it was forgotten
}

type proof struct {
	name  string
	class exitgate.Class
	until time.Time
}

const maxProven = 1 << 16 // about 8 MB; more are verified anew now and then

func (p *proven) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.good = nil
	p.age++
}

func (p *proven) verify(chain []*x509.Certificate, now time.Time, by func([]*x509.Certificate) (string, exitgate.Class, error)) (string, exitgate.Class, error) {
	key := sha256.Sum256(chain[0].Raw)
	p.mu.RLock()
	found, ok := p.good[key]
	age := p.age
	p.mu.RUnlock()
	if ok && now.Before(found.until) {
		return found.name, found.class, nil
	}
	name, class, err := by(chain)
	if err != nil {
		return name, class, err
	}
	until := chain[0].NotAfter
	for _, c := range chain[1:] {
		if c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.age == age { // else it may have been verified by what was forgotten
		if p.good == nil || len(p.good) >= maxProven {
			p.good = map[[32]byte]proof{}
		}
		p.good[key] = proof{name, class, until}
	}
	return name, class, nil
}

// NeedsToken implements Identifier.
func (h *Hosts) NeedsToken() bool {
	t := h.table.Load()
	return t != nil && len(t.tokens) > 0
}

func readCredentials(s string) (name, token string, ok bool) {
	scheme, rest, _ := strings.Cut(s, " ")
	rest = strings.TrimSpace(rest)
	switch {
	case strings.EqualFold(scheme, "bearer"):
		return "", rest, rest != ""
	case strings.EqualFold(scheme, "basic"):
		b, err := base64.StdEncoding.DecodeString(rest)
		if err != nil {
			return "", "", false
		}
		name, token, ok = strings.Cut(string(b), ":")
		return name, token, ok && token != ""
	}
	return "", "", false
}
