package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// openData makes the data directory where it is missing and takes its lock, which is held until the file is closed
// or the process ends: two gateways never share a directory.
func openData(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	st, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("open the data directory: %w", err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the data directory %s is open to other users (mode %04o): it holds keys; close it with: chmod 700 %s", dir, st.Mode().Perm(), shellQuote(dir))
	}
	// Of sun_path's 108 bytes one ends the name (unix(7)).
	if s := adminSocket(dir); len(s) > 107 {
		return nil, fmt.Errorf("the path of the admin socket %s has %d bytes; the system allows 107: choose a shorter data directory", s, len(s))
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	if err := tryLock(f); err != nil {
		pid := make([]byte, 20)
		n, _ := f.ReadAt(pid, 0)
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("another gateway (process %s) runs on %s: stop it, or choose another directory with --data", strings.TrimSpace(string(pid[:n])), dir)
		}
		return nil, fmt.Errorf("lock the data directory %s: %w", dir, err)
	}
	f.Truncate(0)
	fmt.Fprintln(f, os.Getpid())
	return f, nil
}

// fingerprintKey returns the key of the fingerprints that stand for secrets; it is made once, so that fingerprints can
// be compared for as long as the directory lives.
func fingerprintKey(dir string) ([]byte, error) {
	name := filepath.Join(dir, "fingerprint.key")
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		b = make([]byte, 32)
		rand.Read(b)
		return b, writeWhole(name, b)
	}
	if err != nil {
		return nil, fmt.Errorf("read the key of fingerprints: %w", err)
	}
	if len(b) != 32 {
		return nil, fmt.Errorf("read the key of fingerprints: %s has %d bytes instead of 32; put the right one back, or remove it and lose what older fingerprints compare to", name, len(b))
	}
	return b, nil
}

// writeWhole writes a file of mode 0600 that is either whole or not there.
func writeWhole(name string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
