//go:build !linux

package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
)

// route tells the source address that the system chooses, and the interface that has it; the next hop it cannot tell.
func (m machine) route(ctx context.Context, to netip.Addr) (r Route, err error) {
	c, err := new(net.Dialer).DialContext(ctx, "udp", netip.AddrPortFrom(to, 9).String()) // sends nothing
	if err != nil {
		return r, failed(KindNoRoute, "there is no route to %s: %v", to, err)
	}
	defer c.Close()
	from, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		return r, fmt.Errorf("read the source address: %w", err)
	}
	r.Source = from.Addr().Unmap()
	list, err := net.Interfaces()
	if err != nil {
		return r, fmt.Errorf("list the interfaces: %w", err)
	}
	for _, i := range list {
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.Equal(net.IP(r.Source.AsSlice())) {
				r.Interface = i.Name
			}
		}
	}
	return r, nil
}
