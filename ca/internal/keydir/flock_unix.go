//go:build unix

package keydir

import (
	"errors"
	"os"
	"syscall"
)

// flock waits for the lock of f, which a process holds for milliseconds.
func flock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("flock", err)
		}
	}
}
