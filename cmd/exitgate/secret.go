package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// checkKeyURI says what is wrong with s as the URI of a key. Whether the key is there is seen when it is used.
func checkKeyURI(s string) error {
	if s == "offline" {
		return nil
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme == "" || u.Opaque == "":
		return errors.New("it is neither offline nor the URI of a key such as pkcs11:token=exitgate;object=root?pin-source=/etc/exitgate/pin")
	case strings.Contains(strings.ToLower(s), "pin-value"):
		return errors.New("it holds a PIN, which others would see: put it into a file, and name that as pin-source")
	}
	return nil
}

// checkSecret says what is wrong with s as a place that holds a secret. Whether it is there is seen when it is read: a
// file may be checked on another machine.
func checkSecret(s string) error {
	kind, name, _ := strings.Cut(s, ":")
	switch {
	case kind != "file" && kind != "env" && kind != "credential":
		return errors.New("it is none of file:PATH, env:NAME, credential:NAME: a secret itself does not belong here")
	case name == "" || kind == "credential" && strings.ContainsRune(name, '/'):
		return fmt.Errorf("%s: is not followed by a name", kind)
	}
	return nil
}

// value reads the secret; nil when s is empty. The end of a line behind it is left out.
func (s Secret) value() ([]byte, error) {
	kind, name, _ := strings.Cut(string(s), ":")
	var b []byte
	var err error
	switch kind {
	case "":
		return nil, nil
	case "env":
		b = []byte(os.Getenv(name))
	case "credential":
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return nil, fmt.Errorf("%s: systemd gave this process no credentials: LoadCredential=%s:PATH in the unit does", s, name)
		}
		b, err = os.ReadFile(filepath.Join(dir, name))
	default:
		b, err = readPrivate(name)
	}
	if err != nil {
		return nil, err
	}
	if b = bytes.TrimRight(b, "\r\n"); len(b) == 0 {
		return nil, fmt.Errorf("%s is empty", s)
	}
	return b, nil
}

// readPrivate reads a file that everybody on the machine could not.
func readPrivate(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Mode().IsRegular() && st.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("%s may be read by everybody on this machine (mode %04o): run chmod 600 %s", name, st.Mode().Perm(), shellQuote(name))
	}
	b := make([]byte, 4<<10)
	n, err := f.Read(b)
	if n == len(b) {
		return nil, fmt.Errorf("%s is longer than a secret is", name)
	}
	if n == 0 && err != nil {
		return nil, nil
	}
	return b[:n], nil
}

// relativeTo makes the path in s relative to the configuration file's directory.
func (s Secret) relativeTo(dir string) Secret {
	if name, ok := strings.CutPrefix(string(s), "file:"); ok {
		return Secret("file:" + relativeTo(dir, name))
	}
	return s
}
