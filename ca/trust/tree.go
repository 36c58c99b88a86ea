package trust

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// A tree is the file system of a host below a root directory. Paths in it are absolute and use slashes; symbolic
// links are followed inside the tree, as they would be for a process that has it as its root.
type tree string

// The bounds on what is read of a host.
const (
	maxLinks = 40       // symbolic links in one path, as the kernel has it
	maxRead  = 16 << 20 // of one file; trust stores are below 1 MiB
)

// resolve returns p without symbolic links. The last element need not exist.
func (t tree) resolve(p string) (string, error) {
	done, rest, links := "/", p, 0
	for rest != "" {
		var part string
		part, rest, _ = strings.Cut(strings.TrimLeft(rest, "/"), "/")
		switch part {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, part)
		target, err := os.Readlink(t.join(next))
		if err != nil { // not a link, or not there
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%s: too many symbolic links", p)
		}
		if path.IsAbs(target) {
			done = "/"
		}
		rest = target + "/" + rest
	}
	return done, nil
}

func (t tree) join(p string) string { return filepath.Join(string(t), filepath.FromSlash(p)) }

// real returns where p lies outside the tree, links followed.
func (t tree) real(p string) (string, error) {
	p, err := t.resolve(p)
	return t.join(p), err
}

// lstat is os.Lstat of p, whose parents are followed.
func (t tree) lstat(p string) (fs.FileInfo, error) {
	dir, err := t.real(path.Dir(p))
	if err != nil {
		return nil, err
	}
	return os.Lstat(filepath.Join(dir, path.Base(p)))
}

func (t tree) stat(p string) (fs.FileInfo, error) {
	r, err := t.real(p)
	if err != nil {
		return nil, err
	}
	return os.Lstat(r)
}

func (t tree) isDir(p string) bool {
	fi, err := t.stat(p)
	return err == nil && fi.IsDir()
}

func (t tree) isFile(p string) bool {
	fi, err := t.stat(p)
	return err == nil && fi.Mode().IsRegular()
}

// glob lists what matches pattern in the tree, sorted. Links above the last wildcard are not followed.
func (t tree) glob(pattern string) []string {
	names, _ := filepath.Glob(t.join(pattern)) // the pattern is ours, so it is well formed
	for i, n := range names {
		rel, err := filepath.Rel(t.join("/"), n)
		if err != nil {
			return nil
		}
		names[i] = "/" + filepath.ToSlash(rel)
	}
	return names
}

// read returns the bytes of a regular file; found is false when there is nothing.
func (t tree) read(p string) (b []byte, found bool, err error) {
	r, err := t.real(p)
	if err != nil {
		return nil, false, err
	}
	fi, err := os.Lstat(r)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	if !fi.Mode().IsRegular() {
		return nil, true, fmt.Errorf("%s is not a regular file", p)
	}
	f, err := os.Open(r)
	if err != nil {
		return nil, true, err
	}
	defer f.Close()
	b, err = io.ReadAll(io.LimitReader(f, maxRead+1))
	if len(b) > maxRead {
		return nil, true, fmt.Errorf("%s is larger than %d bytes", p, maxRead)
	}
	return b, true, err
}

// write puts data at p, in a directory that exists: whenever the process dies, the file is as it was or as it shall be.
// A file that was there keeps its owner and, unless mode says otherwise, its mode.
func (t tree) write(p string, data []byte, mode fs.FileMode) (err error) {
	r, err := t.real(p)
	if err != nil {
		return err
	}
	old, statErr := os.Lstat(r)
	if statErr == nil && mode == 0 {
		mode = old.Mode().Perm()
	}
	if mode == 0 {
		mode = 0o644
	}
	temp, err := os.CreateTemp(filepath.Dir(r), ".exitgate-*")
	if err != nil {
		return plainPath(err, r, p)
	}
	defer func() {
		if err != nil {
			temp.Close()
			os.Remove(temp.Name())
			err = plainPath(err, temp.Name(), p)
		}
	}()
	if _, err = temp.Write(data); err != nil {
		return err
	}
	if err = temp.Chmod(mode); err != nil {
		return err
	}
	if statErr == nil {
		if err = keepOwner(temp, old); err != nil {
			return err
		}
	}
	if err = errors.Join(temp.Sync(), temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), r)
}

// plainPath lets an error name the file of the host, rather than a temporary one.
func plainPath(err error, was, is string) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return fmt.Errorf("%s: %w", is, pe.Err)
	}
	return fmt.Errorf("%s: %w", is, err)
}

func (t tree) remove(p string) error {
	r, err := t.real(p)
	if err != nil {
		return err
	}
	if err := os.Remove(r); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return plainPath(err, r, p)
	}
	return nil
}

// look finds a program in the usual places of the tree, and returns its path in it.
func (t tree) look(program string) (string, bool) {
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin"} {
		p := dir + "/" + program
		if fi, err := t.stat(p); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return p, true
		}
	}
	return "", false
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
