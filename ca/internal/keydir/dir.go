package keydir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// TempPrefix begins the name of a file that is being written.
const TempPrefix = ".new-"

// MaxFile bounds what is read of a file that should hold one key and a few certificates.
const MaxFile = 1 << 20

// A Dir is the path of a folder that holds keys.
type Dir string

// Path returns the path of the file of that name.
func (d Dir) Path(name string) string { return filepath.Join(string(d), name) }

// Has reports whether something is there under name; what cannot be told is there.
func (d Dir) Has(name string) bool {
	_, err := os.Lstat(d.Path(name))
	return !errors.Is(err, fs.ErrNotExist)
}

// Open makes the folder if it is missing, refuses one that others may enter, and locks it against other processes
// until unlock is called. What a process that died left half-written is removed.
func (d Dir) Open() (unlock func(), err error) {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the certificate authority: %w", err)
	}
	f, err := os.Open(string(d))
	if err != nil {
		return nil, fmt.Errorf("open the folder of the certificate authority: %w", err)
	}
	if err = private(f); err == nil {
		err = flock(f)
	}
	if err == nil {
		err = d.clean()
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open the folder of the certificate authority: %w", err)
	}
	return func() { f.Close() }, nil // closing gives the lock back
}

// private returns an error when others than the owner may use f, a folder or a file with a key.
func private(f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	want := "0600"
	if fi.IsDir() {
		want = "0700"
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s has mode %#o, so others than its owner may use the keys: run chmod %s %s, and consider whether they were read",
			f.Name(), fi.Mode().Perm(), want, f.Name())
	}
	return nil
}

// clean removes what a process left that died while it wrote. The folder is locked, so no one is writing.
func (d Dir) clean() error {
	entries, err := os.ReadDir(string(d))
	for _, e := range entries {
		if err == nil && strings.HasPrefix(e.Name(), TempPrefix) {
			err = os.Remove(d.Path(e.Name()))
		}
	}
	return err
}

// Read returns the bytes of a regular file of at most MaxFile bytes, which only its owner may use if it is secret.
func (d Dir) Read(name string, secret bool) ([]byte, error) {
	f, err := os.OpenFile(d.Path(name), os.O_RDONLY|syscall.O_NONBLOCK, 0) // a named pipe must not hang the start
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err == nil && secret {
		err = private(f)
	}
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if len(b) > MaxFile {
		return nil, fmt.Errorf("it is larger than %d bytes", MaxFile)
	}
	return b, err
}

// Write puts data under name: whenever the process or the machine dies, the file is as it was or as it shall be.
func (d Dir) Write(name string, data []byte, perm fs.FileMode) (err error) {
	temp, err := os.CreateTemp(string(d), TempPrefix+name+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			temp.Close()
			os.Remove(temp.Name())
		}
	}()
	if _, err = temp.Write(data); err != nil {
		return err
	}
	if err = temp.Chmod(perm); err != nil {
		return err
	}
	if err = temp.Sync(); err != nil {
		return err
	}
	if err = temp.Close(); err != nil {
		return err
	}
	return d.rename(temp.Name(), d.Path(name))
}

// Rename puts the file from in the place of the file to, durably.
func (d Dir) Rename(from, to string) error { return d.rename(d.Path(from), d.Path(to)) }

func (d Dir) rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return d.sync()
}

// Remove removes the file, durably. One that is not there is no error.
func (d Dir) Remove(name string) error {
	if err := os.Remove(d.Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.sync()
}

// sync makes changes of names in the folder durable.
func (d Dir) sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
