package ca

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.step.sm/crypto/keyutil"
	"go.step.sm/crypto/pemutil"
	"go.step.sm/crypto/x509util"
)

// files returns what is in the folder, by name.
func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string][]byte{}
	for _, e := range entries {
		if m[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// lay makes a folder that holds the files given.
func lay(t *testing.T, m map[string][]byte) Options {
	t.Helper()
	o := Options{Dir: t.TempDir()}
	if err := os.Chmod(o.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range m {
		put(t, o, name, b)
	}
	return o
}

func put(t *testing.T, o Options, name string, b []byte) {
	t.Helper()
	mode := os.FileMode(0o600)
	if name == rootCertFile {
		mode = 0o644
	}
	if err := os.WriteFile(filepath.Join(o.Dir, name), b, mode); err != nil {
		t.Fatal(err)
	}
}

// refused opens a folder that must not open, and checks that the error is one line that holds each of want, and that
// the folder is as it was.
func refused(t *testing.T, o Options, want ...string) {
	t.Helper()
	before := files(t, o.Dir)
	_, err := Open(o)
	if err == nil {
		t.Fatal("the folder was opened")
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
	after := files(t, o.Dir)
	for name, b := range before {
		if !bytes.Equal(after[name], b) {
			t.Errorf("%s was changed", name)
		}
		delete(after, name)
	}
	for name := range after {
		t.Errorf("%s was made", name)
	}
}

func encode(t *testing.T, p pair) []byte {
	t.Helper()
	block, err := pemutil.Serialize(p.key, pemutil.WithPKCS8(true))
	if err != nil {
		t.Fatal(err)
	}
	return append(pem.EncodeToMemory(block), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw})...)
}

// foreign returns a pair of an issuer that the test made itself, with whatever complete says.
func foreign(t *testing.T, i *Issuer, parent *pair, complete func(*x509.Certificate)) []byte {
	t.Helper()
	p, err := i.newPair("root", 48*time.Hour, i.now(), parent, complete)
	if err != nil {
		t.Fatal(err)
	}
	return encode(t, p)
}

// TestTruncated cuts each file at every byte. The start fails, or the file still says all that it said.
func TestTruncated(t *testing.T) {
	o := testOptions(t)
	print := mustOpen(t, o).Fingerprint()
	whole := files(t, o.Dir)
	for name, b := range whole {
		opened := 0
		for n := range b {
			put(t, o, name, b[:n])
			i, err := Open(o)
			switch {
			case err == nil && i.Fingerprint() != print:
				t.Fatalf("%s cut at %d of %d: another root", name, n, len(b))
			case err == nil:
				opened++
			case !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "\n"):
				t.Fatalf("%s cut at %d: %q", name, n, err)
			}
			if now, _ := os.ReadFile(filepath.Join(o.Dir, name)); !bytes.Equal(now, b[:n]) {
				t.Fatalf("%s cut at %d was changed", name, n)
			}
		}
		if opened != 1 { // without its last newline
			t.Errorf("%s: opened for %d of %d cuts", name, opened, len(b))
		}
		put(t, o, name, b)
	}
	if i := mustOpen(t, o); i.Fingerprint() != print {
		t.Error("another root")
	}
}

// TestDied lays each state that a start can leave that died, and starts again.
func TestDied(t *testing.T) {
	o := testOptions(t)
	print := mustOpen(t, o).Fingerprint()
	whole := files(t, o.Dir)
	half := whole[rootFile][:100]
	for _, c := range []struct {
		name  string
		files map[string][]byte
		same  bool // the root of before is used
	}{
		{"before anything", nil, false},
		{"while the root was written", map[string][]byte{tempPrefix + "root.pem-1": half}, false},
		{"before the root was renamed", map[string][]byte{tempPrefix + "root.pem-1": whole[rootFile]}, false},
		{"after the root", map[string][]byte{rootFile: whole[rootFile]}, true},
		{"while the root was published", map[string][]byte{rootFile: whole[rootFile], tempPrefix + "root.crt-1": half}, true},
		{"after the root was published", map[string][]byte{rootFile: whole[rootFile], rootCertFile: whole[rootCertFile]}, true},
		{"while the issuer was written", map[string][]byte{rootFile: whole[rootFile], rootCertFile: whole[rootCertFile], tempPrefix + "issuer.pem-1": half}, true},
		{"while the issuer was renewed", map[string][]byte{rootFile: whole[rootFile], rootCertFile: whole[rootCertFile], issuerFile: whole[issuerFile], tempPrefix + "issuer.pem-1": half}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := lay(t, c.files)
			i := mustOpen(t, o)
			if (i.Fingerprint() == print) != c.same {
				t.Errorf("root %s, before %s", i.Fingerprint(), print)
			}
			mustLeaf(t, i, "www.example.com")
			if left := files(t, o.Dir); len(left) != 3 {
				t.Errorf("%d files are left, want 3", len(left))
			}
		})
	}
}

// TestKilled kills a process that makes an authority, and starts again, until it was left to finish.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("EXITGATE_TEST_OPEN"); dir != "" {
		mustOpen(t, Options{Dir: dir})
		return
	}
	for n := range 9 {
		o := testOptions(t)
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "EXITGATE_TEST_OPEN="+o.Dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { cmd.Wait(); close(ended) }()
		watch(o.Dir, n%3, ended) // each round kills it one file later
		cmd.Process.Kill()
		<-ended
		before, _ := os.ReadFile(filepath.Join(o.Dir, rootFile))
		mustLeaf(t, mustOpen(t, o), "www.example.com")
		if after := files(t, o.Dir); before != nil && !bytes.Equal(before, after[rootFile]) || len(after) != 3 {
			t.Fatalf("round %d: another root, or %d files", n, len(after))
		}
	}
}

// watch returns when dir holds more than n files, or when the process that fills it has ended.
func watch(dir string, n int, ended <-chan struct{}) {
	for {
		entries, _ := os.ReadDir(dir)
		select {
		case <-ended:
			return
		default:
			if len(entries) > n {
				return
			}
			runtime.Gosched()
		}
	}
}

func TestMissing(t *testing.T) {
	o := testOptions(t)
	i := mustOpen(t, o)
	whole := files(t, o.Dir)
	t.Run("root", func(t *testing.T) {
		refused(t, lay(t, map[string][]byte{rootCertFile: whole[rootCertFile], issuerFile: whole[issuerFile]}), rootFile, "missing", "backup")
	})
	t.Run("root but for what hosts have", func(t *testing.T) {
		refused(t, lay(t, map[string][]byte{rootCertFile: whole[rootCertFile]}), rootFile, "missing")
	})
	t.Run("root but for the issuer", func(t *testing.T) {
		refused(t, lay(t, map[string][]byte{issuerFile: whole[issuerFile]}), rootFile, "missing")
	})
	t.Run("root behind a link", func(t *testing.T) {
		o := lay(t, nil)
		if err := os.Symlink("/nonexistent/root.pem", filepath.Join(o.Dir, rootFile)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(o); err == nil {
			t.Error("a root was made over a link to one that is not mounted")
		}
	})
	t.Run("published root", func(t *testing.T) {
		again := mustOpen(t, lay(t, map[string][]byte{rootFile: whole[rootFile], issuerFile: whole[issuerFile]}))
		if b, err := os.ReadFile(again.RootFile()); err != nil || !bytes.Equal(b, i.RootPEM()) {
			t.Errorf("%v %s", err, b)
		}
	})
}

func TestForeign(t *testing.T) {
	o := testOptions(t)
	i, other := mustOpen(t, o), mustOpen(t, testOptions(t))
	whole, foreignFiles := files(t, o.Dir), files(t, other.folder.path(""))
	leafKey, err := keyutil.GenerateSigner("EC", "P-256", 0)
	if err != nil {
		t.Fatal(err)
	}
	encrypted, err := pemutil.Serialize(leafKey, pemutil.WithPKCS8(true), pemutil.WithPassword([]byte("secret")))
	if err != nil {
		t.Fatal(err)
	}
	rootKeyIssuer, err := x509util.CreateCertificate(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: i.root.cert.NotBefore, NotAfter: i.root.cert.NotAfter}, i.root.cert, i.root.key.Public(), i.root.key)
	if err != nil {
		t.Fatal(err)
	}
	certOf := func(b []byte) []byte { return b[bytes.Index(b, []byte("-----BEGIN CERT")):] }
	keyOf := func(b []byte) []byte { return b[:bytes.Index(b, []byte("-----BEGIN CERT"))] }
	join := func(p ...[]byte) []byte { return bytes.Join(p, nil) }
	constrained := func(c *x509.Certificate) { c.MaxPathLenZero = true }
	for name, c := range map[string]struct {
		file    string
		content []byte
		want    string
	}{
		"root with another key":       {rootFile, join(keyOf(foreignFiles[rootFile]), certOf(whole[rootFile])), "its key is not the one"},
		"root without key":            {rootFile, certOf(whole[rootFile]), "0 keys"},
		"root without certificate":    {rootFile, keyOf(whole[rootFile]), "0 certificates"},
		"root with two certificates":  {rootFile, join(whole[rootFile], certOf(whole[rootFile])), "2 certificates"},
		"root with rubbish behind it": {rootFile, join(whole[rootFile], []byte("rubbish")), "damaged"},
		"root that is the issuer":     {rootFile, whole[issuerFile], "foreign"},
		"root with path length 0":     {rootFile, foreign(t, i, nil, constrained), "foreign"},
		"root that another signed":    {rootFile, foreign(t, i, &other.root, func(*x509.Certificate) {}), "foreign"},
		"root that is no authority":   {rootFile, foreign(t, i, nil, func(c *x509.Certificate) { c.IsCA = false }), "foreign"},
		"another root":                {rootFile, foreignFiles[rootFile], "it is not the certificate in root.pem"},
		"root with encrypted key":     {rootFile, join(pem.EncodeToMemory(encrypted), certOf(whole[rootFile])), "passphrase"},
		"root that is too large":      {rootFile, bytes.Repeat([]byte("a"), maxFile+1), "larger"},
		"another published root":      {rootCertFile, foreignFiles[rootCertFile], "it is not the certificate in root.pem"},
		"issuer of another root":      {issuerFile, foreignFiles[issuerFile], "another root signed it"},
		"issuer that is the root":     {issuerFile, whole[rootFile], "certifies the key of the root"},
		"issuer with the root's key":  {issuerFile, encode(t, pair{rootKeyIssuer, i.root.key}), "certifies the key of the root"},
		"issuer for everything":       {issuerFile, foreign(t, i, &i.root, constrained), "may sign more"},
		"issuer that is no authority": {issuerFile, foreign(t, i, &i.root, func(c *x509.Certificate) { c.IsCA = false }), "not the certificate of a certificate authority"},
		"issuer with another key":     {issuerFile, join(keyOf(whole[rootFile]), certOf(whole[issuerFile])), "its key is not the one"},
	} {
		t.Run(name, func(t *testing.T) {
			o := lay(t, whole)
			put(t, o, c.file, c.content)
			refused(t, o, c.want, o.Dir)
		})
	}
}

func TestNotAFile(t *testing.T) {
	o := testOptions(t)
	mustOpen(t, o)
	whole := files(t, o.Dir)
	for name := range whole {
		t.Run(name, func(t *testing.T) {
			for kind, place := range map[string]func(string) error{
				"folder": func(p string) error { return os.Mkdir(p, 0o700) },
				"pipe":   func(p string) error { return syscall.Mkfifo(p, 0o600) }, // whose reading would wait for a writer
			} {
				o := lay(t, whole)
				path := filepath.Join(o.Dir, name)
				if err := errors.Join(os.Remove(path), place(path)); err != nil {
					t.Fatal(err)
				}
				if _, err := Open(o); err == nil || !strings.Contains(err.Error(), "not a regular file") {
					t.Errorf("%s: %v", kind, err)
				}
			}
		})
	}
}

func TestPermissions(t *testing.T) {
	for _, c := range []struct {
		name string
		mode os.FileMode
		want string // "": accepted
	}{
		{".", 0o755, "chmod 0700"}, {".", 0o750, "chmod 0700"}, {".", 0o701, "chmod 0700"}, {".", 0o770, "chmod 0700"},
		{rootFile, 0o640, "chmod 0600"}, {rootFile, 0o604, "chmod 0600"}, {rootFile, 0o620, "chmod 0600"}, {rootFile, 0o400, ""},
		{issuerFile, 0o644, "chmod 0600"}, {issuerFile, 0o601, "chmod 0600"}, {issuerFile, 0o400, ""},
		{rootCertFile, 0o600, ""}, {rootCertFile, 0o664, ""},
	} {
		o := testOptions(t)
		mustOpen(t, o)
		if err := os.Chmod(filepath.Join(o.Dir, c.name), c.mode); err != nil {
			t.Fatal(err)
		}
		if c.want == "" {
			mustOpen(t, o)
			continue
		}
		refused(t, o, c.want, o.Dir)
	}
}

// TestOpenTogether starts many on one folder at the same time.
func TestOpenTogether(t *testing.T) {
	o := testOptions(t)
	prints := make([]string, 16)
	var wg sync.WaitGroup
	for n := range prints {
		wg.Go(func() {
			if i, err := Open(o); err != nil {
				t.Error(err)
			} else {
				prints[n] = i.Fingerprint() + " " + i.current.Load().id
			}
		})
	}
	wg.Wait()
	for _, p := range prints {
		if p != prints[0] {
			t.Fatalf("different authorities: %v", prints)
		}
	}
}

func TestOptionsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	if _, err := parseDomains([]string{"192.0.2.7"}); err == nil || !strings.Contains(err.Error(), "an address") {
		t.Errorf("an address is refused, but not for being one: %v", err)
	}
	for name, o := range map[string]Options{
		"no folder":       {},
		"long gateway":    {Dir: dir, Gateway: strings.Repeat("g", 65)},
		"control gateway": {Dir: dir, Gateway: "gw\n"},
		"long leaf":       {Dir: dir, Lifetimes: Lifetimes{Leaf: 24 * time.Hour}},
		"short leaf":      {Dir: dir, Lifetimes: Lifetimes{Leaf: time.Second}},
		"negative":        {Dir: dir, Lifetimes: Lifetimes{Backdate: -time.Hour}},
		"short issuer":    {Dir: dir, Lifetimes: Lifetimes{Issuer: time.Hour}},
		"short root":      {Dir: dir, Lifetimes: Lifetimes{Root: 29 * 24 * time.Hour}},
		"wildcard":        {Dir: dir, NeverIntercept: []string{"*.bank.example"}},
		"leading dot":     {Dir: dir, NeverIntercept: []string{".bank.example"}},
		"trailing dot":    {Dir: dir, NeverIntercept: []string{"bank.example."}},
		"empty":           {Dir: dir, NeverIntercept: []string{""}},
		"address":         {Dir: dir, NeverIntercept: []string{"192.0.2.7"}},
		"address 6":       {Dir: dir, NeverIntercept: []string{"2001:db8::1"}},
		"not ASCII":       {Dir: dir, NeverIntercept: []string{"bänk.example"}},
		"space":           {Dir: dir, NeverIntercept: []string{"bank.example "}},
		"too many":        {Dir: dir, NeverIntercept: append(fullList(), "one.more.test", "two.more.test")},
	} {
		if _, err := Open(o); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("the folder was made before the options were checked")
	}
}
