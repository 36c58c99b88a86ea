package mitm

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// A Guard says which addresses may be dialled. Its zero value prohibits every address that is not of the public
// Internet, in whatever form it is written, and the gateway's own.
type Guard struct {
	Allow []netip.Prefix // may be dialled although the zero Guard prohibits them

	mu        sync.Mutex
	listeners []netip.AddrPort // never dialled, whatever Allow says
	own       map[netip.Addr]bool
	ownAt     time.Time
}

// prohibited lists what is not of the public Internet (IANA special-purpose registries, RFC 6890), and why.
var prohibited = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "carrier-grade NAT"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local, where clouds serve metadata"},
	{netip.MustParsePrefix("192.0.0.0/24"), "protocol assignments"},
	{netip.MustParsePrefix("192.0.2.0/24"), "for documentation"},
	{netip.MustParsePrefix("198.51.100.0/24"), "for documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "for documentation"},
	{netip.MustParsePrefix("192.88.99.0/24"), "the former 6to4 relays"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved or broadcast"},
	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("fc00::/7"), "unique local, where clouds serve metadata"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "site-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
	{netip.MustParsePrefix("100::/64"), "discard-only"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "local NAT64"},
	{netip.MustParsePrefix("2001:2::/48"), "benchmarking"},
	{netip.MustParsePrefix("2001:db8::/32"), "for documentation"},
	{netip.MustParsePrefix("3fff::/20"), "for documentation"},
	{netip.MustParsePrefix("5f00::/16"), "segment routing"},
}

// embeddings are the IPv6 forms that hold an IPv4 address, with the offset of its first byte.
var embeddings = []struct {
	prefix netip.Prefix
	at     int
	invert bool // Teredo holds the client's address with its bits inverted
	what   string
}{
	{netip.MustParsePrefix("::ffff:0:0/96"), 12, false, "IPv4-mapped"},
	{netip.MustParsePrefix("::/96"), 12, false, "IPv4-compatible"},
	{netip.MustParsePrefix("64:ff9b::/96"), 12, false, "NAT64"},
	{netip.MustParsePrefix("2002::/16"), 2, false, "6to4"},
	{netip.MustParsePrefix("2001::/32"), 12, true, "Teredo"},
	{netip.MustParsePrefix("2001::/32"), 4, false, "Teredo server"},
}

// Check says why ap may not be dialled, or nil.
func (g *Guard) Check(ap netip.AddrPort) error {
	a := ap.Addr().Unmap().WithZone("")
	if !a.IsValid() || ap.Port() == 0 {
		return fmt.Errorf("%s is not an address with a port", ap)
	}
	if err := g.checkSelf(a, ap.Port()); err != nil {
		return err
	}
	for _, p := range g.Allow {
		if p.Contains(a) {
			return nil
		}
	}
	if what := special(a); what != "" {
		return fmt.Errorf("%s is %s", a, what)
	}
	if g.isOwn(a) {
		return fmt.Errorf("%s is an address of the gateway itself", a)
	}
	return nil
}

// special names the reason why a is not of the public Internet; "" if it is.
func special(a netip.Addr) string {
	for _, p := range prohibited {
		if p.prefix.Contains(a) {
			return p.what
		}
	}
	if a.Is4() {
		return ""
	}
	for _, e := range embeddings {
		if !e.prefix.Contains(a) {
			continue
		}
		b := a.As16()
		v4 := [4]byte(b[e.at : e.at+4])
		if e.invert {
			for i := range v4 {
				v4[i] = ^v4[i]
			}
		}
		if what := special(netip.AddrFrom4(v4)); what != "" {
			return e.what + " of " + netip.AddrFrom4(v4).String() + ", " + what
		}
	}
	// ISATAP (RFC 5214) holds the address behind 0:5efe in the interface identifier.
	if b := a.As16(); (b[8] == 0 || b[8] == 2) && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe {
		if what := special(netip.AddrFrom4([4]byte(b[12:16]))); what != "" {
			return "ISATAP of a " + what + " address"
		}
	}
	return ""
}

// addListener notes an address that the gateway listens on, so that it never dials itself.
func (g *Guard) addListener(a net.Addr) {
	if ap := addrOf(a); ap.IsValid() {
		g.mu.Lock()
		g.listeners = append(g.listeners, ap)
		g.mu.Unlock()
	}
}

// checkSelf refuses the gateway's own listeners: a proxy that dials itself does so until it is out of
// descriptors.
func (g *Guard) checkSelf(a netip.Addr, port uint16) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range g.listeners {
		if l.Port() != port {
			continue
		}
		if l.Addr() == a || l.Addr().IsUnspecified() && (a.IsLoopback() || g.ownLocked(a)) {
			return fmt.Errorf("%s:%d is the gateway's own listener", a, port)
		}
	}
	return nil
}

func (g *Guard) isOwn(a netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ownLocked(a)
}

// ownLocked looks at the machine's addresses, read again when they are older than a minute. g.mu is held.
func (g *Guard) ownLocked(a netip.Addr) bool {
	if now := time.Now(); g.own == nil || now.Sub(g.ownAt) > time.Minute {
		g.own, g.ownAt = map[netip.Addr]bool{}, now
		addrs, _ := net.InterfaceAddrs() // no interfaces that can be read, none that are own
		for _, i := range addrs {
			if n, ok := i.(*net.IPNet); ok {
				if ip, ok := netip.AddrFromSlice(n.IP); ok {
					g.own[ip.Unmap()] = true
				}
			}
		}
	}
	return g.own[a]
}
