package ca

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/ca/internal/keydir"
	"github.com/exitgate/exitgate/ca/internal/kms"
)

func TestPassphrases(t *testing.T) {
	o := testOptions(t)
	mustOpen(t, o) // in clear
	root := files(t, o.Dir)[rootFile]
	o.RootPassphrase, o.IssuerPassphrase = []byte("of the root"), []byte("of the issuer")
	i := mustOpen(t, o)
	must(t, i.Rotate(Rotation{}))
	must(t, i.Switch())
	for name, b := range files(t, o.Dir) {
		if bytes.Contains(b, []byte("PRIVATE KEY")) && !bytes.Contains(b, []byte("BEGIN ENCRYPTED PRIVATE KEY")) && name != rootFile {
			t.Errorf("%s is in clear", name)
		}
	}
	must(t, i.Finish())
	got := files(t, o.Dir)
	if bytes.Contains(got[rootFile], []byte("BEGIN PRIVATE")) || bytes.Equal(got[rootFile], root) {
		t.Error("the root is in clear")
	}
	looks(t, o, i, Steady, i.RootCertificate())
	for _, c := range []struct {
		root, issuer string
		want         string
	}{{"", "of the issuer", "passphrase"}, {"of the root", "", "passphrase"}, {"wrong", "of the issuer", "cannot be read with the passphrase"}, {"of the root", "wrong", "cannot be read with the passphrase"}} {
		wrong := o
		wrong.RootPassphrase, wrong.IssuerPassphrase = []byte(c.root), []byte(c.issuer)
		refused(t, wrong, c.want)
	}
}

// TestEncryptedAtOpen: a key that is there in clear is encrypted once there is a passphrase.
func TestEncryptedAtOpen(t *testing.T) {
	o := testOptions(t)
	print := mustOpen(t, o).Fingerprint()
	o.RootPassphrase = []byte("of the root")
	if i := mustOpen(t, o); i.Fingerprint() != print || !bytes.Contains(files(t, o.Dir)[rootFile], []byte("BEGIN ENCRYPTED PRIVATE KEY")) {
		t.Error("the root is in clear, or another")
	}
	if i := mustOpen(t, o); i.Fingerprint() != print {
		t.Error("another root")
	}
}

// hsm makes a token of SoftHSM and returns the URI of a key in it.
func hsm(t *testing.T) func(object string) string {
	t.Helper()
	util := need(t, "softhsm2-util", "softhsm2")
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	must(t, os.WriteFile(conf, fmt.Appendf(nil, "directories.tokendir = %s\n", dir), 0o600))
	t.Setenv("SOFTHSM2_CONF", conf)
	out, err := run(t, []string{"SOFTHSM2_CONF=" + conf}, util, "--init-token", "--free", "--label", "exitgate", "--pin", "4711", "--so-pin", "0815")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	pin := filepath.Join(dir, "pin")
	must(t, os.WriteFile(pin, []byte("4711\n"), 0o600))
	module := ""
	for _, pattern := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/*/softhsm/libsofthsm2.so"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			module = found[0]
		}
	}
	return func(object string) string {
		return fmt.Sprintf("pkcs11:module-path=%s;token=exitgate;id=%x;object=%s?pin-source=%s", module, object, object, pin)
	}
}

// alone runs the test in a process of its own, since a PKCS #11 module is one for a whole process, and reports whether
// that was done.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv("EXITGATE_TEST_ALONE") != "" {
		return false
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "EXITGATE_TEST_ALONE=1")
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("%v\n%s", err, out)
	}
	return true
}

// TestHSM keeps root and issuer in an HSM, through a whole rotation. A build without cgo says that it cannot.
func TestHSM(t *testing.T) {
	if alone(t) {
		return
	}
	key := hsm(t)
	o := testOptions(t, "bank.example")
	o.RootKey, o.IssuerKey = key("root-1"), key("issuer")
	if err := kms.Check(o.RootKey); err != nil {
		if _, err := Open(o); err == nil || !strings.Contains(err.Error(), "CGO_ENABLED=1") || strings.Contains(err.Error(), "\n") {
			t.Errorf("a build without cgo says %v", err)
		}
		return
	}
	i := mustOpen(t, o)
	old := i.RootCertificate()
	looks(t, o, i, Steady, old)
	for name, b := range files(t, o.Dir) {
		if bytes.Contains(b, []byte("PRIVATE")) || bytes.Contains(b, []byte("4711")) {
			t.Errorf("%s holds a key or a PIN", name)
		}
	}
	if s := i.State(); s.RootKey != o.RootKey || s.IssuerKey != o.IssuerKey {
		t.Errorf("keys are in %s and %s", s.RootKey, s.IssuerKey)
	}
	must(t, i.Renew())
	var s *StateError
	if err := i.Rotate(Rotation{}); !errors.As(err, &s) || !strings.Contains(err.Error(), "a key of its own") {
		t.Errorf("two roots with one key: %v", err)
	}
	must(t, i.Rotate(Rotation{Key: key("root-2")}))
	next := i.State().Other
	looks(t, o, i, Overlap, old, next)
	must(t, i.Switch())
	looks(t, o, i, Leaving, next, old)
	if !accepts(t, i, old) {
		t.Error("no bridge")
	}
	must(t, i.Finish())
	looks(t, o, i, Steady, next)
}

// TestHSMAway: only the root is in the HSM, which is needed when an issuer is due and not before.
func TestHSMAway(t *testing.T) {
	if alone(t) {
		return
	}
	key := hsm(t)
	if kms.Check(key("root")) != nil {
		return // TestHSM says what a build without cgo says
	}
	clk, o := newClock(), testOptions(t)
	o.Now, o.RootKey = clk.now, key("root")
	i := mustOpen(t, o)
	conf := os.Getenv("SOFTHSM2_CONF")
	away := conf + ".away"
	must(t, os.Rename(conf, away))
	again := mustOpen(t, o)
	mustLeaf(t, again, "www.example.com")
	clk.forward(21 * day)
	before := again.State().Issuer
	mustLeaf(t, again, "a.example")
	if !again.State().Issuer.Equal(before) {
		t.Error("an issuer that nobody signed")
	}
	must(t, os.Rename(away, conf))
	clk.forward(retryRenewal)
	mustLeaf(t, again, "b.example")
	if again.State().Issuer.Equal(before) {
		t.Error("not renewed once the HSM was back")
	}
	mustLeaf(t, i, "c.example")
}

// TestHSMAwayWithIssuer: nothing starts without it, and what runs goes on when it is back.
func TestHSMAwayWithIssuer(t *testing.T) {
	if alone(t) {
		return
	}
	key := hsm(t)
	if kms.Check(key("issuer")) != nil {
		return // TestHSM says what a build without cgo says
	}
	o := testOptions(t)
	o.IssuerKey = key("issuer")
	i := mustOpen(t, o)
	mustLeaf(t, i, "a.example")
	// The driver gives up the whole module when it does not find a token.
	if _, err := kms.Open(t.Context(), strings.Replace(key("issuer"), "token=exitgate", "token=another", 1), nil); err == nil {
		t.Fatal("a token that is not there")
	}
	for n := range 3 {
		mustLeaf(t, i, fmt.Sprintf("n%d.example", n))
	}
	conf := os.Getenv("SOFTHSM2_CONF")
	must(t, os.Rename(conf, conf+".away"))
	for _, k := range i.keys.open {
		k.Close()
	}
	if _, err := i.Leaf(context.Background(), "b.example"); err == nil || strings.Contains(err.Error(), "4711") {
		t.Errorf("a leaf without the issuer's key: %v", err)
	}
	if _, err := Open(o); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("opened without the HSM: %v", err)
	}
	must(t, os.Rename(conf+".away", conf))
	mustLeaf(t, i, "b.example")
	mustOpen(t, o)
}

// TestSignWithKey signs an issuer with a root whose key is in a file of its own, encrypted or not.
func TestSignWithKey(t *testing.T) {
	clk := newClock()
	o, vault := offlineGateway(t, clk.now)
	request, err := Request(o)
	must(t, err)
	root, err := parsePair(files(t, vault.Dir)[rootFile], nil)
	must(t, err)
	for _, passphrase := range []string{"", "of the root"} {
		b, err := keydir.EncodePair(keydir.Pair{Cert: root.cert, Key: root.key}, []byte(passphrase))
		must(t, err)
		path := write(t, "root.key", string(b[:bytes.Index(b, []byte("-----BEGIN CERT"))]))
		for _, key := range []string{path, "softkms:path=" + path} {
			c, err := SignIssuer(request, Signing{Root: keydir.EncodeCert(root.cert), Key: key, Passphrase: []byte(passphrase), Now: clk.now})
			if err != nil || checkIssuer(c, root.cert) != nil {
				t.Errorf("passphrase %q, key %s: %v", passphrase, key, err)
			}
		}
		if passphrase != "" {
			if _, err := SignIssuer(request, Signing{Root: keydir.EncodeCert(root.cert), Key: path, Passphrase: []byte("wrong"), Now: clk.now}); err == nil {
				t.Error("signed with a wrong passphrase")
			}
		}
	}
}

func TestKeysRefused(t *testing.T) {
	for name, c := range map[string]struct{ root, issuer, want string }{
		"no scheme":         {"root.key", "", "not the URI"},
		"unknown":           {"", "gopherkms:key", "not known"},
		"cloud":             {"awskms:key-id=1", "", "no awskms"},
		"PIN in the open":   {"pkcs11:token=t;object=o?pin-value=1234", "", "pin-source"},
		"PIN in upper case": {"pkcs11:token=t;object=o?PIN-VALUE=1234", "", "pin-source"},
		"PIN in the path":   {"", "pkcs11:token=t;object=o;pin-value=1234", "pin-source"},
		"PIN that is away":  {"tpmkms:name=o?pin-source=/nonexistent/pin", "", "PIN"},
		"one key for both":  {"tpmkms:name=o", "tpmkms:name=o", "cannot have one key"},
		"control bytes":     {"tpmkms:name=o\n1234", "", "parsed"},
		"issuer is offline": {"", "offline", "not the URI"},
	} {
		o := testOptions(t)
		o.RootKey, o.IssuerKey = c.root, c.issuer
		_, err := Open(o)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "1234") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if _, err := os.Stat(o.Dir); err == nil {
			t.Errorf("%s: the folder was made", name)
		}
	}
}

func TestKeyURIFile(t *testing.T) {
	o := testOptions(t)
	mustOpen(t, o)
	whole := files(t, o.Dir)
	cert := string(whole[rootCertFile])
	uri := "-----BEGIN EXITGATE KEY URI-----\ndHBta21zOm5hbWU9bw==\n-----END EXITGATE KEY URI-----\n" // tpmkms:name=o
	for name, content := range map[string]string{"alone": uri, "twice": uri + uri + cert, "with two roots": uri + cert + cert, "behind the certificate": cert + uri, "with rubbish": uri + cert + "rubbish"} {
		t.Run(name, func(t *testing.T) {
			o := lay(t, whole)
			put(t, o, rootFile, []byte(content))
			refused(t, o, rootFile)
		})
	}
	p, err := parsePair([]byte(uri+cert), nil)
	if err != nil || p.uri != "tpmkms:name=o" || p.key != nil {
		t.Errorf("%+v %v", p, err)
	}
}

func TestOnlyIntercept(t *testing.T) {
	o := testOptions(t, "bank.example")
	o.OnlyIntercept = []string{"example.com", "bank.example", "www.example.com"}
	i := mustOpen(t, o)
	for name, want := range map[string]bool{
		"example.com": true, "a.b.example.com": true, "example.org": false, "notexample.com": false, "bank.example": false, "192.0.2.7": false, "2001:db8::1": false,
	} {
		_, err := i.Leaf(context.Background(), name)
		var r *exitgate.Refusal
		if (err == nil) != want || !want && (!errors.As(err, &r) || r.Verdict.Rule != exitgate.RuleNeverIntercept) {
			t.Errorf("%s: %v", name, err)
		}
		ip := []byte(nil)
		if _, a, _ := leafName(name); a != nil {
			ip = a
		}
		c, err := i.current.Load().sign(name, ip, i.now(), i.lifetimes)
		must(t, err)
		if verdict := verify(t, i, c.Leaf, name); (verdict == nil) != want {
			t.Errorf("%s: a verifier says %v", name, verdict)
		}
	}
	must(t, i.SetIntercept(nil, nil))
	mustLeaf(t, i, "192.0.2.7")
	mustLeaf(t, i, "bank.example")
	if _, err := parseConstraints(fullList(), []string{"one.more.example"}); err == nil {
		t.Error("both lists together are too long, and were taken")
	}
}

// TestClientsOnlyIntercept asks real clients about leaves that are forced past an issuer for a few names.
func TestClientsOnlyIntercept(t *testing.T) {
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			must(t, s.issuer.SetIntercept(nil, []string{"example.com"}))
			open := c.open(t, s)
			if out, err := open("www.example.com"); err != nil {
				t.Errorf("what is intercepted was not accepted: %v\n%s", err, out)
			}
			for _, name := range []string{"bank.example", "127.0.0.1"} {
				if out, err := open(name); err == nil {
					t.Errorf("%s was accepted:\n%s", name, out)
				}
			}
		})
	}
}

// tpm starts a TPM in software and returns the URI of a key in it.
func tpm(t *testing.T) func(name string) string {
	t.Helper()
	swtpm := need(t, "swtpm", "swtpm")
	dir, err := os.MkdirTemp("/tmp", "tpm") // the path of a socket is short
	must(t, err)
	socket := filepath.Join(dir, "tpm")
	cmd := exec.Command(swtpm, "socket", "--tpm2", "--tpmstate", "dir="+dir, "--server", "type=unixio,path="+socket,
		"--ctrl", "type=unixio,path="+socket+".ctrl", "--flags", "not-need-init,startup-clear")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, cmd.Start())
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
		os.RemoveAll(dir)
	})
	for {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		select {
		case <-ended:
			t.Fatalf("swtpm ended: %s", &out)
		default:
			runtime.Gosched()
		}
	}
	return func(name string) string {
		return "tpmkms:name=" + name + ";device=" + socket + ";storage-directory=" + filepath.Join(dir, "keys")
	}
}

// TestTPM keeps the roots in a TPM, through a whole rotation.
func TestTPM(t *testing.T) {
	key := tpm(t)
	o := testOptions(t)
	o.RootKey = key("root1")
	i := mustOpen(t, o)
	old := i.RootCertificate()
	looks(t, o, i, Steady, old)
	if s := i.State(); s.RootKey != o.RootKey || bytes.Contains(files(t, o.Dir)[rootFile], []byte("PRIVATE")) {
		t.Errorf("the root's key is in %s", s.RootKey)
	}
	must(t, i.Renew())
	must(t, i.Rotate(Rotation{Key: key("root2")}))
	must(t, i.Switch())
	looks(t, o, i, Leaving, i.RootCertificate(), old)
	if !accepts(t, i, old) {
		t.Error("no bridge")
	}
	must(t, i.Finish())
	looks(t, o, i, Steady, i.RootCertificate())
}
