package doctor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// route asks the kernel which way it would send packets to an address (RTM_GETROUTE, rtnetlink(7)).
func (m machine) route(_ context.Context, to netip.Addr) (r Route, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return r, fmt.Errorf("ask the kernel for the route: %w", err)
	}
	defer unix.Close(fd)
	wait := unix.NsecToTimeval(int64(time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return r, fmt.Errorf("ask the kernel for the route: %w", err)
	}
	if err := unix.Sendto(fd, routeQuestion(to), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return r, fmt.Errorf("ask the kernel for the route: %w", err)
	}
	b := make([]byte, 16<<10)
	n, _, err := unix.Recvfrom(fd, b, 0)
	if err != nil {
		return r, fmt.Errorf("ask the kernel for the route: %w", err)
	}
	return readRoute(to, b[:n])
}

// routeQuestion is an rtmsg with the destination as its one attribute.
func routeQuestion(to netip.Addr) []byte {
	family, dst := byte(unix.AF_INET6), to.AsSlice()
	if to.Is4() {
		family = unix.AF_INET
	}
	size := unix.SizeofNlMsghdr + unix.SizeofRtMsg + unix.SizeofRtAttr + len(dst)
	b := make([]byte, size)
	binary.NativeEndian.PutUint32(b, uint32(size))
	binary.NativeEndian.PutUint16(b[4:], unix.RTM_GETROUTE)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(b[8:], 1)
	b[unix.SizeofNlMsghdr] = family
	b[unix.SizeofNlMsghdr+1] = byte(len(dst) * 8)
	a := b[unix.SizeofNlMsghdr+unix.SizeofRtMsg:]
	binary.NativeEndian.PutUint16(a, uint16(unix.SizeofRtAttr+len(dst)))
	binary.NativeEndian.PutUint16(a[2:], unix.RTA_DST)
	copy(a[unix.SizeofRtAttr:], dst)
	return b
}

// readRoute reads the kernel's answer.
func readRoute(to netip.Addr, b []byte) (r Route, err error) {
	list, err := syscall.ParseNetlinkMessage(b)
	if err != nil || len(list) == 0 {
		return r, errors.New("read the kernel's route: its answer is cut off")
	}
	msg := list[0]
	switch {
	case msg.Header.Type == unix.NLMSG_ERROR && len(msg.Data) >= 4:
		return r, routeError(to, syscall.Errno(-int32(binary.NativeEndian.Uint32(msg.Data))))
	case msg.Header.Type != unix.RTM_NEWROUTE || len(msg.Data) < unix.SizeofRtMsg:
		return r, errors.New("read the kernel's route: it answered something else")
	}
	switch msg.Data[7] { // rtm_type
	case unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT, unix.RTN_THROW:
		return r, failed(KindNoRoute, "the routing table forbids the way to %s", to)
	}
	attrs, err := syscall.ParseNetlinkRouteAttr(&msg)
	if err != nil {
		return r, fmt.Errorf("read the kernel's route: %w", err)
	}
	for _, a := range attrs {
		switch addr, _ := netip.AddrFromSlice(a.Value); a.Attr.Type {
		case unix.RTA_GATEWAY:
			r.Via = addr
		case unix.RTA_PREFSRC:
			r.Source = addr
		case unix.RTA_OIF:
			if len(a.Value) >= 4 {
				r.Interface = interfaceName(int(binary.NativeEndian.Uint32(a.Value)))
			}
		}
	}
	return r, nil
}

func routeError(to netip.Addr, e syscall.Errno) error {
	switch e {
	case syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EINVAL, syscall.EACCES:
		return failed(KindNoRoute, "there is no route to %s: %v", to, e)
	}
	return fmt.Errorf("ask the kernel for the route to %s: %w", to, e)
}

func interfaceName(index int) string {
	i, err := net.InterfaceByIndex(index)
	if err != nil {
		return fmt.Sprint(index)
	}
	return i.Name
}
