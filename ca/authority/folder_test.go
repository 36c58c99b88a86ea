package authority

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.step.sm/crypto/keyutil"

	"github.com/exitgate/exitgate/ca/internal/keydir"
)

func mustOpen(t testing.TB, o Options) *Authority {
	t.Helper()
	a, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func files(t testing.TB, dir string) map[string][]byte {
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

// lay puts exactly the files given into the folder.
func lay(t testing.TB, dir string, m map[string][]byte) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range m {
		mode := os.FileMode(0o600)
		if strings.HasSuffix(name, ".crt") {
			mode = 0o644
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, mode); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFirstStart(t *testing.T) {
	o := testOptions(t)
	a := mustOpen(t, o)
	want := map[string]os.FileMode{".": 0o700, rootFile: 0o600, issuerFile: 0o600, tokenFile: 0o600, rootCertFile: 0o644}
	for name, mode := range want {
		fi, err := os.Stat(filepath.Join(o.Dir, name))
		if err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%s: %v, mode %v, want %v", name, err, fi.Mode().Perm(), mode)
		}
	}
	if n := len(files(t, o.Dir)); n != len(want)-1 {
		t.Errorf("%d files", n)
	}
	again := mustOpen(t, o)
	if again.Fingerprint() != a.Fingerprint() || !again.State().IssuerNotAfter.Equal(a.State().IssuerNotAfter) {
		t.Error("a second start made something")
	}
	ott, err := a.Token(t.Context(), "web-01", "app")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.checkToken(ott, "sign"); err != nil {
		t.Errorf("a token does not survive a restart: %v", err)
	}
	s := a.State()
	if len(s.Roots) != 1 || !s.Roots[0].InForce || s.Roots[0].KeyAway != "" || s.Roots[0].Fingerprint != a.Fingerprint() || s.Rotating {
		t.Errorf("%+v", s)
	}
	root := certsOf(t, a.RootsPEM())[0]
	if !a.IsOwn(root) || !a.IsOwn(a.current.Load().material.issuer.Cert) {
		t.Error("the authority does not know its own")
	}
	if years := root.NotAfter.Sub(root.NotBefore).Hours() / 24 / 365; years < 9.9 || years > 10.1 {
		t.Errorf("the root lives for %.1f years", years)
	}
}

func TestOptionsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"no folder":          {func(o *Options) { o.Dir = "" }, "no folder"},
		"no store":           {func(o *Options) { o.KV = nil }, "no store"},
		"no one to ask":      {func(o *Options) { o.Allowed = nil }, "which hosts"},
		"plain URL":          {func(o *Options) { o.URL = "http://gw.example.com" }, "https://NAME:PORT"},
		"URL with a path":    {func(o *Options) { o.URL = "https://gw.example.com/x" }, "https://NAME:PORT"},
		"URL with a user":    {func(o *Options) { o.URL = "https://a:b@gw.example.com" }, "https://NAME:PORT"},
		"no URL":             {func(o *Options) { o.URL = "" }, "https://NAME:PORT"},
		"name":               {func(o *Options) { o.Names = []string{"a b"} }, "not a name"},
		"trust domain":       {func(o *Options) { o.TrustDomain = "a/b" }, "trust domain"},
		"gateway":            {func(o *Options) { o.Gateway = strings.Repeat("a", 65) }, "64 printable"},
		"long identity":      {func(o *Options) { o.Lifetimes.Identity = 30 * day }, "identity"},
		"short identity":     {func(o *Options) { o.Lifetimes.Identity = time.Minute }, "identity"},
		"short issuer":       {func(o *Options) { o.Lifetimes.Issuer = 9 * time.Hour }, "three times"},
		"ACME for nothing":   {func(o *Options) { o.ACME = &ACME{Addresses: nobody} }, "no names"},
		"ACME for anything":  {func(o *Options) { o.ACME = &ACME{Addresses: nobody, Names: []string{"*"}} }, "cannot be for"},
		"ACME for no domain": {func(o *Options) { o.ACME = &ACME{Addresses: nobody, Names: []string{"xn--a.example"}} }, "provisioner acme"},
		"ACME, blind":        {func(o *Options) { o.ACME = &ACME{Names: []string{"a.example"}} }, "which addresses"},
		"key of a cloud":     {func(o *Options) { o.RootKey = "awskms:key-id=1?region=x" }, "this build has no awskms"},
		"key of a module":    {func(o *Options) { o.IssuerKey = "pkcs11:token=x?pin-value=1234" }, "pin-source"},
		"no key URI":         {func(o *Options) { o.RootKey = "root.key" }, "not the URI of a key"},
	} {
		o := testOptions(t)
		c.change(&o)
		_, err := Open(o)
		oneLine(t, err, c.want)
		if err != nil && strings.Contains(err.Error(), "1234") {
			t.Errorf("%s: the PIN is in the error", name)
		}
	}
}

// TestDamaged opens folders that lost or got what they should not, and wants one line that says what to do.
func TestDamaged(t *testing.T) {
	o, other := testOptions(t), testOptions(t)
	mustOpen(t, o)
	mustOpen(t, other)
	whole, foreign := files(t, o.Dir), files(t, other.Dir)
	with := func(name string, b []byte) map[string][]byte {
		m := map[string][]byte{}
		for k, v := range whole {
			m[k] = v
		}
		if m[name] = b; b == nil {
			delete(m, name)
		}
		return m
	}
	onlyIssuer := map[string][]byte{issuerFile: whole[issuerFile]}
	for name, c := range map[string]struct {
		files map[string][]byte
		want  string
	}{
		"issuer without a root":     {onlyIssuer, "bring one of them back"},
		"empty root":                {with(rootFile, []byte{}), rootFile},
		"foreign root":              {with(rootFile, foreign[rootFile]), "certificate of another root"},
		"foreign issuer":            {with(issuerFile, foreign[issuerFile]), "another root signed it"},
		"root as issuer":            {with(issuerFile, whole[rootFile]), "certifies the key of the root"},
		"issuer as root":            {with(rootFile, whole[issuerFile]), "foreign"},
		"half an issuer":            {with(issuerFile, whole[issuerFile][:300]), "remove the file"},
		"garbage as token key":      {with(tokenFile, []byte("garbage")), tokenFile},
		"published garbage":         {with(rootCertFile, []byte("garbage")), "remove it to have it written again"},
		"steps that are none":       {with(finishFile, []byte("move /etc/passwd")), "not a step"},
		"issuer gone, root offline": {map[string][]byte{rootCertFile: whole[rootCertFile], tokenFile: whole[tokenFile]}, "key of the root is needed"},
	} {
		lay(t, o.Dir, c.files)
		_, err := Open(o)
		if err == nil {
			t.Errorf("%s: opened", name)
			continue
		}
		oneLine(t, err, c.want)
	}
	lay(t, o.Dir, whole)
	mustOpen(t, o)
	for _, name := range []string{rootFile, issuerFile, tokenFile, "."} {
		path := filepath.Join(o.Dir, name)
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := Open(o)
		oneLine(t, err, "chmod", path)
		mode := os.FileMode(0o600)
		if name == "." {
			mode = 0o700
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	ended := o
	ended.Now = func() time.Time { return time.Now().Add(11 * 365 * day) }
	_, err := Open(ended)
	oneLine(t, err, "ended at", "move the folder away")
	early := testOptions(t)
	early.Now = func() time.Time { return time.Unix(0, 0) }
	_, err = Open(early)
	oneLine(t, err, "set it before")
}

// TestOffline takes the root's key away: all goes on until the issuer ends, and goes on again when the key is brought.
func TestOffline(t *testing.T) {
	e := newEnv(t)
	root := filepath.Join(e.o.Dir, rootFile)
	key, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(root); err != nil {
		t.Fatal(err)
	}
	if e.a, err = Open(e.o); err != nil {
		t.Fatal(err)
	}
	if s := e.a.State(); !strings.Contains(s.Roots[0].KeyAway, "root.pem is not there") {
		t.Errorf("%+v", s.Roots)
	}
	e.enrol(t, "web-01.hosts.example", "app")
	before := e.a.State()
	oneLine(t, e.a.Rotate(t.Context(), ""), "key of the old root")
	oneLine(t, e.a.RotateIssuer(t.Context()), "bring it back")
	e.skew(61 * day)
	if _, err := e.a.generation(t.Context()); err != nil {
		t.Errorf("an issuer that is due but valid: %v", err)
	}
	e.skew(91 * day)
	_, err = e.a.generation(t.Context())
	oneLine(t, err, "bring back the key of the root")
	if status, body, err := e.do(nil, "GET", "/health", ""); err == nil {
		t.Errorf("a listener whose certificate ended answers: %d %s", status, body)
	}
	if err := os.WriteFile(root, key, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := e.a.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := e.a.State(); !s.IssuerNotAfter.After(before.IssuerNotAfter) || s.Roots[0].KeyAway != "" {
		t.Errorf("%+v", s)
	}
}

// TestPassphrase encrypts every key that is written.
func TestPassphrase(t *testing.T) {
	o := testOptions(t)
	o.Passphrase = []byte("correct horse")
	print := mustOpen(t, o).Fingerprint()
	for name, b := range files(t, o.Dir) {
		if strings.HasSuffix(name, ".pem") && (!bytes.Contains(b, []byte("ENCRYPTED PRIVATE KEY")) || bytes.Contains(b, []byte("BEGIN PRIVATE KEY"))) {
			t.Errorf("%s is not encrypted", name)
		}
	}
	if a := mustOpen(t, o); a.Fingerprint() != print {
		t.Error("another root")
	}
	o.Passphrase = []byte("wrong")
	_, err := Open(o)
	oneLine(t, err, "passphrase given")
	o.Passphrase = nil
	_, err = Open(o)
	oneLine(t, err, "no passphrase was given")
	plain := testOptions(t)
	mustOpen(t, plain)
	plain.Passphrase = []byte("later")
	mustOpen(t, plain)
}

// TestKeyElsewhere has the keys in files of their own, by KMS URI.
func TestKeyElsewhere(t *testing.T) {
	o := testOptions(t)
	away := filepath.Join(t.TempDir(), "usb")
	for _, name := range []string{"root.key", "issuer.key", "root2.key"} {
		key, err := keyutil.GenerateSigner("EC", "P-256", 0)
		if err != nil {
			t.Fatal(err)
		}
		b, err := keydir.EncodeKey(key, nil)
		if err == nil {
			err = os.MkdirAll(away, 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(away, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	o.RootKey, o.IssuerKey = "softkms:path="+filepath.Join(away, "root.key"), "softkms:path="+filepath.Join(away, "issuer.key")
	a := mustOpen(t, o)
	for _, name := range []string{rootFile, issuerFile} {
		if b := files(t, o.Dir)[name]; bytes.Contains(b, []byte("PRIVATE")) || !bytes.Contains(b, []byte(referenceType)) {
			t.Errorf("%s holds a key:\n%s", name, b)
		}
	}
	if again := mustOpen(t, o); again.Fingerprint() != a.Fingerprint() {
		t.Error("another root")
	}
	oneLine(t, a.Rotate(t.Context(), ""), "give the next root another")
	hidden := filepath.Join(away, "hidden")
	if err := os.Rename(filepath.Join(away, "root.key"), hidden); err != nil {
		t.Fatal(err)
	}
	offline := mustOpen(t, o)
	if s := offline.State(); !strings.Contains(s.Roots[0].KeyAway, "root.key") {
		t.Errorf("%+v", s.Roots)
	}
	foreign, err := keydir.EncodeKey(mustOpen(t, testOptions(t)).tokenKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(away, "root.key"), foreign, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(o)
	oneLine(t, err, "not the one that its certificate certifies")
	if err := os.Rename(hidden, filepath.Join(away, "root.key")); err != nil {
		t.Fatal(err)
	}
	a = mustOpen(t, o)
	if err := a.Rotate(t.Context(), "softkms:path="+filepath.Join(away, "root2.key")); err != nil {
		t.Fatal(err)
	}
	if err := a.Finish(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if again := mustOpen(t, o); again.Fingerprint() != a.Fingerprint() {
		t.Error("another root after the rotation")
	}
	if err := os.Remove(filepath.Join(away, "issuer.key")); err != nil {
		t.Fatal(err)
	}
	_, err = Open(o)
	oneLine(t, err, "issuer.key", "issuer.pem", "cannot be reached")
}

// TestOpenTogether opens one new folder many times at once.
func TestOpenTogether(t *testing.T) {
	o := testOptions(t)
	prints := make(chan string, 8)
	for _, err := range together(8, func() error {
		a, err := Open(o)
		if err == nil {
			prints <- a.Fingerprint()
		}
		return err
	}) {
		if err != nil {
			t.Error(err)
		}
	}
	close(prints)
	first := <-prints
	for p := range prints {
		if p != first {
			t.Error("two roots")
		}
	}
}

func nobody(context.Context, string) ([]netip.Addr, error) { return nil, nil }
