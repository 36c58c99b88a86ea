package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/exitgate/exitgate/ca/internal/keydir"
)

// offlineGateway returns the options of a gateway whose root's key is in the other folder.
func offlineGateway(t *testing.T, now func() time.Time, never ...string) (gateway, vault Options) {
	t.Helper()
	vault = testOptions(t)
	vault.Now = now
	root, err := CreateRoot(vault)
	must(t, err)
	gateway = testOptions(t, never...)
	gateway.RootKey, gateway.Now = Offline, now
	must(t, os.Mkdir(gateway.Dir, 0o700))
	must(t, os.WriteFile(filepath.Join(gateway.Dir, rootCertFile), keydir.EncodeCert(root), 0o644))
	return gateway, vault
}

// signIn signs a request with the root that is in the vault.
func signIn(t *testing.T, vault Options, request []byte) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(vault.Dir, rootFile))
	must(t, err)
	c, err := SignIssuer(request, Signing{Root: b, Passphrase: vault.RootPassphrase, Now: vault.Now})
	must(t, err)
	return keydir.EncodeCert(c)
}

func TestOfflineRoot(t *testing.T) {
	clk := newClock()
	o, vault := offlineGateway(t, clk.now, "bank.example")
	if _, err := Open(o); err == nil || !strings.Contains(err.Error(), "issuer-request") || strings.Contains(err.Error(), "\n") {
		t.Fatalf("opened without an issuer, or: %v", err)
	}
	request, err := Request(o)
	must(t, err)
	must(t, Install(o, signIn(t, vault, request)))
	i := mustOpen(t, o)
	looks(t, o, i, Steady, i.RootCertificate())
	s := i.State()
	if s.RootKey != Offline || s.IssuerKey != "file" || len(s.Concerns) > 0 || !slices.Equal(s.Issuer.ExcludedDNSDomains, []string{"bank.example"}) {
		t.Errorf("%+v", s)
	}
	if life := s.Issuer.NotAfter.Sub(clk.now()); life != defaultSigned {
		t.Errorf("the issuer lives for %v", life)
	}
	if i.folder.has(rootFile) || i.folder.has(requestFile) {
		t.Error("a key is where it should not be")
	}
	if err := i.Renew(); !errors.Is(err, ErrNoRootKey) {
		t.Errorf("renewed without the key: %v", err)
	}
	looks(t, o, i, Steady, i.RootCertificate())
}

// TestOfflineIssuerEnds: weeks ahead it is said what to do, and once it was done nothing is said.
func TestOfflineIssuerEnds(t *testing.T) {
	clk := newClock()
	o, vault := offlineGateway(t, clk.now)
	var log bytes.Buffer
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	request, err := Request(o)
	must(t, err)
	must(t, Install(o, signIn(t, vault, request)))
	i := mustOpen(t, o)
	first := i.State().Issuer
	clk.forward(59 * day)
	mustLeaf(t, i, "a.example")
	if strings.Contains(log.String(), "needs a person") || len(i.State().Concerns) > 0 {
		t.Errorf("said too early:\n%s", &log)
	}
	clk.forward(2 * day)
	for _, name := range []string{"b.example", "c.example"} {
		mustLeaf(t, i, name)
	}
	if n := strings.Count(log.String(), "needs a person"); n != 1 {
		t.Errorf("said %d times in an hour:\n%s", n, &log)
	}
	if c := i.State().Concerns; len(c) != 1 || !strings.Contains(c[0], "issuer-request") || !strings.Contains(c[0], stamp(first.NotAfter)) {
		t.Errorf("concerns %q", c)
	}
	mustOpen(t, o) // a start works too
	request, err = i.Request()
	must(t, err)
	must(t, i.Install(signIn(t, vault, request)))
	mustLeaf(t, i, "d.example")
	if s := i.State(); s.Issuer.Equal(first) || len(s.Concerns) > 0 {
		t.Errorf("the same issuer, or concerns %q", s.Concerns)
	}
	clk.forward(91 * day)
	if _, err := i.Leaf(context.Background(), "e.example"); err == nil || !strings.Contains(err.Error(), "issuer-request") {
		t.Errorf("a leaf of an issuer that ended: %v", err)
	}
}

// TestOfflineLists: what the issuer does not say, the gateway does.
func TestOfflineLists(t *testing.T) {
	clk := newClock()
	o, vault := offlineGateway(t, clk.now, "bank.example")
	request, err := Request(o)
	must(t, err)
	must(t, Install(o, signIn(t, vault, request)))
	i := mustOpen(t, o)
	must(t, i.SetIntercept([]string{"bank.example", "clinic.example"}, nil))
	for name, want := range map[string]bool{"a.bank.example": false, "clinic.example": false, "www.example.com": true} {
		if _, err := i.Leaf(context.Background(), name); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if c := i.State().Concerns; len(c) != 1 || !strings.Contains(c[0], "hosts would not notice") {
		t.Errorf("concerns %q", c)
	}
	must(t, i.SetIntercept(nil, nil)) // the issuer still excludes it
	if _, err := i.Leaf(context.Background(), "bank.example"); err == nil {
		t.Error("a leaf that hosts refuse")
	}
	must(t, i.SetIntercept([]string{"clinic.example"}, []string{"example.com"}))
	request, err = i.Request()
	must(t, err)
	must(t, i.Install(signIn(t, vault, request)))
	if s := i.State(); len(s.Concerns) > 0 || !slices.Equal(s.Issuer.ExcludedDNSDomains, []string{"clinic.example"}) || !slices.Equal(s.Issuer.PermittedDNSDomains, []string{"example.com"}) {
		t.Errorf("%v, excludes %v, permits %v", s.Concerns, s.Issuer.ExcludedDNSDomains, s.Issuer.PermittedDNSDomains)
	}
}

// TestOfflineRotation leads from one root that is elsewhere to another.
func TestOfflineRotation(t *testing.T) {
	clk := newClock()
	o, vault := offlineGateway(t, clk.now)
	request, err := Request(o)
	must(t, err)
	must(t, Install(o, signIn(t, vault, request)))
	i := mustOpen(t, o)
	old := i.RootCertificate()
	var s *StateError
	if err := i.Rotate(Rotation{}); !errors.As(err, &s) || !strings.Contains(err.Error(), "--certificate") {
		t.Fatalf("rotated without a certificate: %v", err)
	}
	nextVault := testOptions(t)
	nextVault.Now = clk.now
	next, err := CreateRoot(nextVault)
	must(t, err)
	for name, vault := range map[string]Options{"by the next root": nextVault, "by a stranger": func() Options { o := testOptions(t); mustOpen(t, o); return o }()} {
		foreign, err := SignBridge(old, Signing{Root: files(t, vault.Dir)[rootFile]})
		must(t, err)
		if err := i.Rotate(Rotation{Certificate: next, Bridge: foreign}); !errors.As(err, &s) || !strings.Contains(err.Error(), "bridge is foreign") {
			t.Errorf("a bridge %s: %v", name, err)
		}
	}
	bridge, err := SignBridge(next, Signing{Root: files(t, vault.Dir)[rootFile]})
	must(t, err)
	if _, err := SignBridge(old, Signing{Root: files(t, vault.Dir)[rootFile]}); err == nil {
		t.Error("a bridge from a root to itself")
	}
	must(t, i.Rotate(Rotation{Certificate: next, Bridge: bridge, Overlap: 30 * day}))
	looks(t, o, i, Overlap, old, next)
	if err := i.Switch(); !errors.Is(err, ErrNoRootKey) {
		t.Errorf("switched without an issuer: %v", err)
	}
	clk.forward(31 * day) // the overlap is over, and there is nothing to switch to
	looks(t, o, i, Overlap, old, next)
	if c := i.State().Concerns; len(c) != 1 || !strings.Contains(c[0], "no issuer under the next root") {
		t.Errorf("concerns %q", c)
	}
	request, err = i.Request()
	must(t, err)
	must(t, i.Install(signIn(t, nextVault, request)))
	looks(t, o, i, Leaving, next, old) // the switch was due
	if !i.State().Bridged || !accepts(t, i, old) {
		t.Error("a host that knows the old root only is left behind")
	}
	must(t, i.Finish())
	looks(t, o, i, Steady, next)
	if i.State().RootKey != Offline || i.folder.has(nextIssuerFile) {
		t.Error("what is left")
	}
}

// TestToOffline leads from a root that is here to one that is not.
func TestToOffline(t *testing.T) {
	o := testOptions(t)
	i := mustOpen(t, o)
	old := i.RootCertificate()
	vault := testOptions(t)
	next, err := CreateRoot(vault)
	must(t, err)
	must(t, i.Rotate(Rotation{Certificate: next}))
	request, err := i.Request()
	must(t, err)
	must(t, i.Install(signIn(t, vault, request)))
	looks(t, o, i, Overlap, old, next)
	must(t, i.Switch())
	looks(t, o, i, Leaving, next, old)
	if !i.State().Bridged || !accepts(t, i, old) {
		t.Error("the old key was here, and signed no bridge")
	}
	if err := i.Finish(); err == nil || !strings.Contains(err.Error(), "ca.root_key") {
		t.Errorf("finished, so that the next start misses a key: %v", err)
	}
	o.RootKey = Offline
	i = mustOpen(t, o)
	must(t, i.Finish())
	looks(t, o, i, Steady, next)
	if i.folder.has(rootFile) {
		t.Error("the old root's key is still here")
	}
}

func TestOfflineFolderRefused(t *testing.T) {
	whole := files(t, func() string { o := testOptions(t); mustOpen(t, o); return o.Dir }())
	for name, c := range map[string]struct {
		files map[string][]byte
		want  string
	}{
		"the key is here":       {whole, "move it to where it shall be"},
		"nothing":               {nil, "it is missing"},
		"no root":               {map[string][]byte{rootCertFile: certOfPair(t, whole[issuerFile])}, "foreign"},
		"two roots":             {map[string][]byte{rootCertFile: append(slices.Clone(whole[rootCertFile]), whole[rootCertFile]...)}, "2 certificates"},
		"rubbish":               {map[string][]byte{rootCertFile: []byte("rubbish")}, "damaged"},
		"a key among the roots": {map[string][]byte{rootCertFile: whole[rootFile]}, "certificates only"},
	} {
		t.Run(name, func(t *testing.T) {
			o := lay(t, c.files)
			o.RootKey = Offline
			refused(t, o, c.want)
		})
	}
}

func certOfPair(t *testing.T, b []byte) []byte {
	t.Helper()
	p, err := parsePair(b, nil)
	must(t, err)
	return keydir.EncodeCert(p.cert)
}

func TestInstallRefused(t *testing.T) {
	clk := newClock()
	o, vault := offlineGateway(t, clk.now)
	wrong := func(what string, certificate []byte, want string) {
		t.Helper()
		var s *StateError
		if err := Install(o, certificate); !errors.As(err, &s) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want a StateError with %q", what, err, want)
		}
	}
	wrong("before a request", nil, "issuer-request")
	request, err := Request(o)
	must(t, err)
	if again, err := Request(o); err != nil || !bytes.Equal(keyIn(t, again), keyIn(t, request)) {
		t.Errorf("another key for the second request: %v", err)
	}
	otherGateway, otherVault := offlineGateway(t, clk.now)
	otherRequest, err := Request(otherGateway)
	must(t, err)
	wrong("nothing", nil, "not a certificate")
	wrong("rubbish", []byte("rubbish"), "not a certificate")
	wrong("the request", request, "not a certificate")
	wrong("for another gateway", signIn(t, vault, otherRequest), "for another key")
	wrong("by another root", signIn(t, otherVault, request), "another root signed it")
	rootPair := func() pair {
		b, err := os.ReadFile(filepath.Join(vault.Dir, rootFile))
		must(t, err)
		p, err := parsePair(b, nil)
		must(t, err)
		return p
	}()
	i, err := newIssuer(vault)
	must(t, err)
	key := csrOf(t, request).PublicKey
	loose, err := i.certify("issuer", key, day, clk.now(), &rootPair, func(c *x509.Certificate) { c.MaxPathLenZero = true })
	must(t, err)
	wrong("for more than servers", keydir.EncodeCert(loose), "may sign more")
	late := signIn(t, vault, request)
	clk.forward(91 * day)
	wrong("too late", late, "ended at")
	clk.forward(-91 * day)
	must(t, Install(o, late))
	mustOpen(t, o)
	wrong("twice", late, "issuer-request")
	next, err := Request(o)
	must(t, err)
	if bytes.Equal(keyIn(t, next), keyIn(t, request)) {
		t.Error("one key for two issuers")
	}
}

func csrOf(t *testing.T, request []byte) *x509.CertificateRequest {
	t.Helper()
	block, _ := pem.Decode(request)
	if block == nil {
		t.Fatal("no PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	must(t, err)
	return csr
}

func keyIn(t *testing.T, request []byte) []byte { return csrOf(t, request).RawSubjectPublicKeyInfo }

// TestRequestDies leaves a request whose certificate was installed already.
func TestRequestDies(t *testing.T) {
	clk := newClock()
	o, vault := offlineGateway(t, clk.now)
	request, err := Request(o)
	must(t, err)
	pending := files(t, o.Dir)[requestFile]
	must(t, Install(o, signIn(t, vault, request)))
	put(t, o, requestFile, pending)
	mustOpen(t, o)
	if again, err := Request(o); err != nil || bytes.Equal(keyIn(t, again), keyIn(t, request)) {
		t.Errorf("the key of an issuer was asked for again: %v", err)
	}
}

func TestSignRefused(t *testing.T) {
	clk := newClock()
	o, vault := offlineGateway(t, clk.now, "bank.example")
	request, err := Request(o)
	must(t, err)
	root := files(t, vault.Dir)[rootFile]
	rootCert := certOfPair(t, root)
	forged := bytes.Clone(csrOf(t, request).Raw)
	forged[len(forged)-1] ^= 1
	asRequest := func(der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	}
	pending := files(t, o.Dir)[requestFile]
	strangeKey := write(t, "key.pem", string(pending[:bytes.Index(pending, []byte("-----BEGIN CERT"))]))
	rootKey := func() crypto.Signer { p, _ := parsePair(root, nil); return p.key }()
	ofRoot, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, rootKey)
	must(t, err)
	for name, c := range map[string]struct {
		request []byte
		s       Signing
		want    string
	}{
		"nothing":            {nil, Signing{Root: root}, "not a certificate signing request"},
		"a certificate":      {rootCert, Signing{Root: root}, "not a certificate signing request"},
		"rubbish":            {asRequest([]byte("rubbish")), Signing{Root: root}, "request"},
		"forged":             {asRequest(forged), Signing{Root: root}, "does not hold its key"},
		"the root's key":     {asRequest(ofRoot), Signing{Root: root}, "for the key of the root"},
		"no root":            {request, Signing{}, "say where it is"},
		"root without key":   {request, Signing{Root: rootCert}, "say where it is"},
		"key of another":     {request, Signing{Root: rootCert, Key: strangeKey}, "not the one"},
		"key that is not":    {request, Signing{Root: rootCert, Key: "/nonexistent"}, "no such file"},
		"PIN in the open":    {request, Signing{Root: rootCert, Key: "pkcs11:token=t;object=o?pin-value=1234"}, "pin-source"},
		"a moment":           {request, Signing{Root: root, Lifetime: time.Minute}, "over before"},
		"an issuer for root": {request, Signing{Root: signedPair(t, vault, o)}, "foreign"},
	} {
		c.s.Now = clk.now
		got, err := SignIssuer(c.request, c.s)
		if err == nil || got != nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "1234") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	got, err := SignIssuer(request, Signing{Root: root, Lifetime: 40 * 365 * day, Now: clk.now})
	if err != nil || got.NotAfter.After(clk.now().Add(3653*day)) {
		t.Errorf("an issuer that outlives its root: %v", err)
	}
}

// signedPair returns an issuer with its key, which is no root.
func signedPair(t *testing.T, vault, gateway Options) []byte {
	t.Helper()
	i := mustOpen(t, Options{Dir: vault.Dir, Now: vault.Now})
	b, err := i.folder.read(issuerFile, true)
	must(t, err)
	return b
}

// FuzzSignRequest: bytes are refused, or what was signed is an issuer of leaves and nothing more.
func FuzzSignRequest(f *testing.F) {
	dir := f.TempDir()
	vault := Options{Dir: dir + "/vault"}
	_, err := CreateRoot(vault)
	must(f, err)
	root, err := os.ReadFile(dir + "/vault/" + rootFile)
	must(f, err)
	p, err := parsePair(root, nil)
	must(f, err)
	for _, o := range []Options{{Dir: dir + "/a"}, {Dir: dir + "/b", NeverIntercept: []string{"bank.example"}, OnlyIntercept: []string{"example"}}} {
		b, err := Request(o)
		must(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := SignIssuer(b, Signing{Root: root})
		if err == nil && (checkIssuer(c, p.cert) != nil || len(c.PermittedEmailAddresses)+len(c.ExcludedURIDomains) > 0) {
			t.Errorf("signed %v", c.Subject)
		}
	})
}
