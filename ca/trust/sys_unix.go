//go:build unix

package trust

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
)

// keepOwner gives f the owner of old.
func keepOwner(f *os.File, old fs.FileInfo) error {
	st, ok := old.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) == os.Geteuid() && int(st.Gid) == os.Getegid() {
		return nil
	}
	return f.Chown(int(st.Uid), int(st.Gid))
}

// owner returns who owns a file.
func owner(fi fs.FileInfo) (uid, gid int) {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid), int(st.Gid)
	}
	return os.Geteuid(), os.Getegid()
}

// confine makes a command run inside root, as another user when uid is not the caller's.
func confine(cmd *exec.Cmd, root string, uid, gid int) {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if root != "/" {
		attr.Chroot = root
	}
	if uid != os.Geteuid() {
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	cmd.SysProcAttr = attr
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

// lock holds other runs off until unlock is called. It does not wait.
func lock(name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.New("another exitgate is changing this host; try again when it is done")
		}
		return nil, os.NewSyscallError("flock", err)
	}
	return func() {
		syscall.Flock(int(f.Fd()), syscall.LOCK_UN) // closing does not: a child that is being started may hold it for a moment
		f.Close()
	}, nil
}

// self returns who we are.
func self() (uid, gid int) { return os.Geteuid(), os.Getegid() }
