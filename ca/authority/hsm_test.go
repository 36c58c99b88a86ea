//go:build cgo

package authority

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestHSM keeps the keys of root and issuer in a PKCS #11 module: SoftHSM's, of Debian's package softhsm2.
func TestHSM(t *testing.T) {
	const module = "/usr/lib/softhsm/libsofthsm2.so"
	if _, err := os.Stat(module); err != nil {
		t.Fatalf("%v: install softhsm2", err)
	}
	dir := t.TempDir()
	conf, pin := filepath.Join(dir, "softhsm2.conf"), filepath.Join(dir, "pin")
	for path, text := range map[string]string{conf: "directories.tokendir = " + dir + "\n", pin: "1234"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	out, err := exec.Command("softhsm2-util", "--init-token", "--free", "--label", "exitgate", "--so-pin", "1234", "--pin", "1234").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	at := func(id int, name string) string {
		return fmt.Sprintf("pkcs11:module-path=%s;token=exitgate;id=%02d;object=%s?pin-source=%s", module, id, name, pin)
	}
	e := newEnv(t, func(o *Options) { o.RootKey, o.IssuerKey = at(1, "root"), at(2, "issuer") })
	for name, b := range files(t, e.o.Dir) {
		if name != tokenFile && strings.Contains(string(b), "PRIVATE") {
			t.Errorf("%s holds a key", name)
		}
	}
	h := e.enrol(t, "web-01.hosts.example", "app")
	if err := e.a.Rotate(t.Context(), at(3, "root2")); err != nil {
		t.Fatal(err)
	}
	h, err = e.renew(h)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := e.a.Identify(h.chain, time.Now()); err != nil {
		t.Error(err)
	}
	again, err := Open(e.o)
	if err != nil || again.Fingerprint() != e.a.Fingerprint() {
		t.Errorf("a restart: %v", err)
	}
	wrong := testOptions(t)
	wrong.RootKey = strings.Replace(at(1, "root"), "token=exitgate", "token=nothing", 1)
	_, err = Open(wrong)
	oneLine(t, err, "identity root", "token=nothing")
}
