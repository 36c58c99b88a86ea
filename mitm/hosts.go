package mitm

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"

	"github.com/exitgate/exitgate"
)

// Hosts is the Identifier made of a list: which addresses and which token belong to which host. It is swapped
// whole by Set; the zero value knows nobody.
type Hosts struct{ table atomic.Pointer[hostTable] }

// A RegisteredHost is one entry of the list.
type RegisteredHost struct {
	Name      string
	Class     exitgate.Class
	Addresses []netip.Prefix // the most specific prefix of all hosts wins
	Token     [32]byte       // SHA-256 of the host's token; zero: none
}

type hostTable struct {
	exact  map[netip.Addr]*RegisteredHost
	ranges [129][]rangeEntry // by prefix length, longest first when searched
	tokens map[[32]byte]*RegisteredHost
}

type rangeEntry struct {
	prefix netip.Prefix
	host   *RegisteredHost
}

// Set replaces the list. Two hosts with the same prefix, name or token are an error, and the old list stays.
func (h *Hosts) Set(list []RegisteredHost) error {
	t := &hostTable{exact: map[netip.Addr]*RegisteredHost{}, tokens: map[[32]byte]*RegisteredHost{}}
	names, seen := map[string]bool{}, map[netip.Prefix]string{}
	for i := range list {
		r := &list[i]
		if names[r.Name] {
			return fmt.Errorf("register host %q: the name is taken by another host", r.Name)
		}
		names[r.Name] = true
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
	return nil
}

// ByAddress implements Identifier.
func (h *Hosts) ByAddress(a netip.Addr) exitgate.Host {
	if t := h.table.Load(); t != nil {
		if r := t.byAddress(a); r != nil {
			return exitgate.Host{Name: r.Name, Class: r.Class, Addr: a, By: exitgate.ByAddress}
		}
	}
	return exitgate.Host{Class: exitgate.ClassUnknown, Addr: a}
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
func (h *Hosts) ByToken(a netip.Addr, credentials string) (exitgate.Host, bool) {
	t := h.table.Load()
	name, token, ok := readCredentials(credentials)
	if t == nil || !ok {
		return exitgate.Host{}, false
	}
	// The look-up is by digest, so its timing tells nothing about a token that is not known already.
	r := t.tokens[sha256.Sum256([]byte(token))]
	if r == nil || name != "" && name != r.Name {
		return exitgate.Host{}, false
	}
	return exitgate.Host{Name: r.Name, Class: r.Class, Addr: a, By: exitgate.ByToken}, true
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
