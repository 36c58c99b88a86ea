package web

import (
	"context"
	"net"
	"os/user"
	"strconv"
	"syscall"
)

type peerKey struct{}

// withPeer remembers in ctx which user opened c.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *syscall.Ucred
	if raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}) != nil || err != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, userName(strconv.Itoa(int(cred.Uid))))
}

// userName returns the name of uid, or "uid:N" when the system does not know one.
func userName(uid string) string {
	if u, err := user.LookupId(uid); err == nil && u.Username != "" {
		return u.Username
	}
	return "uid:" + uid
}

// peer returns who opened the connection of ctx, or "" when the kernel did not say.
func peer(ctx context.Context) string {
	s, _ := ctx.Value(peerKey{}).(string)
	return s
}
