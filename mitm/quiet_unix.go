//go:build unix

package mitm

import "syscall"

// isQuiet reports whether a connection is open and has nothing to read.
func isQuiet(raw syscall.RawConn) (quiet bool) {
	err := raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, e := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		quiet = e == syscall.EAGAIN
		return true
	})
	return err == nil && quiet
}
