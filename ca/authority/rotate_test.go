package authority

import (
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRotation takes a host that knows only the old root through a rotation, and a client of the new one.
func TestRotation(t *testing.T) {
	e := newEnv(t)
	old := e.roots()
	oldPrint := e.a.Fingerprint()
	h := e.enrol(t, "web-01.hosts.example", "app")
	alone := e.enrol(t, "web-09.hosts.example", "app")
	oneLine(t, e.a.Finish(t.Context(), true), "none is under way")
	if err := e.a.Rotate(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	oneLine(t, e.a.Rotate(t.Context(), ""), "finish it first")
	newPrint := e.a.Fingerprint()
	if s := e.a.State(); newPrint == oldPrint || !s.Rotating || len(s.Roots) != 2 || s.Roots[0].Fingerprint != newPrint || s.Roots[1].InForce ||
		time.Since(s.RotatingSince).Abs() > time.Minute || s.FinishAfter.Sub(s.RotatingSince) != 8*time.Hour {
		t.Errorf("%+v", s)
	}

	// A host that knows only the old root reaches the listener, is known, renews, and learns of the new root.
	if _, _, err := e.a.Identify(h.chain, time.Now()); err != nil {
		t.Errorf("an identity under the old root: %v", err)
	}
	_, _, err := e.a.Identify(alone.chain[:1], time.Now())
	oneLine(t, err, "give the client the whole chain")
	renewed := renewVia(t, e, h, old)
	if _, _, err := e.a.Identify(renewed.chain, time.Now()); err != nil {
		t.Errorf("renewed: %v", err)
	}
	body, err := getVia(e, old, "/roots.pem")
	if err != nil {
		t.Fatal(err)
	}
	if got := certsOf(t, body); len(got) != 2 || fingerprint(got[0]) != newPrint {
		t.Errorf("%d roots", len(got))
	}
	for _, print := range []string{oldPrint, newPrint} { // both are good to begin with
		if _, err := e.get("/root/" + print); err != nil {
			t.Error(err)
		}
	}
	next := x509.NewCertPool()
	next.AddCert(certsOf(t, e.a.RootsPEM())[0])
	if _, err := getVia(e, next, "/health"); err != nil {
		t.Errorf("a host that knows only the new root: %v", err)
	}
	e.enrol(t, "web-02.hosts.example", "app") // by the new fingerprint

	// A restart in between changes nothing.
	again, err := Open(e.o)
	if err != nil || again.Fingerprint() != newPrint || !again.State().Rotating {
		t.Fatalf("%v", err)
	}
	oneLine(t, e.a.Finish(t.Context(), false), "hosts may not know", "force")
	if !errors.Is(e.a.Finish(t.Context(), false), ErrTooEarly) {
		t.Error("not ErrTooEarly")
	}
	e.skew(8*time.Hour + time.Second)
	if err := e.a.Finish(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	e.skew(0)
	if n := len(certsOf(t, e.a.RootsPEM())); n != 1 || e.a.Fingerprint() != newPrint {
		t.Errorf("%d roots", n)
	}
	_, _, err = e.a.Identify(h.chain, time.Now())
	oneLine(t, err, "foreign")
	if _, _, err := e.a.Identify(renewed.chain, time.Now()); err != nil {
		t.Errorf("renewed under the new root: %v", err)
	}
	if _, err := getVia(e, old, "/health"); err == nil {
		t.Error("the old root is still good")
	}
	if _, err := getVia(e, e.roots(), "/health"); err != nil {
		t.Error(err)
	}
	for name := range files(t, e.o.Dir) {
		if strings.HasPrefix(name, nextPrefix) || name == finishFile {
			t.Errorf("%s was left", name)
		}
	}
	if a := mustOpen(t, e.o); a.Fingerprint() != newPrint {
		t.Error("another root after a restart")
	}
	if err := e.a.Rotate(t.Context(), ""); err != nil {
		t.Errorf("a second rotation: %v", err)
	}
}

// TestRotateIssuer replaces the issuer; what the old one signed stays good.
func TestRotateIssuer(t *testing.T) {
	e := newEnv(t)
	h := e.enrol(t, "web-01.hosts.example", "app")
	if err := e.a.RotateIssuer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e.a.current.Load().material.issuer.Cert.Equal(h.chain[1]) {
		t.Error("it is the old one")
	}
	again, err := e.renew(h)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []*host{h, again} {
		if _, _, err := e.a.Identify(x.chain, time.Now()); err != nil {
			t.Error(err)
		}
	}
	e.skew(61 * day)
	g, err := e.a.generation(t.Context())
	if err != nil || g.material.issuer.Cert.Equal(again.chain[1]) {
		t.Errorf("an issuer with a third of its life left was not replaced: %v", err)
	}
}

// TestRotationCut cuts a rotation and its end short at each file: the next start completes what was begun.
func TestRotationCut(t *testing.T) {
	o := testOptions(t)
	a := mustOpen(t, o)
	before := files(t, o.Dir)
	if err := a.Rotate(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	during, newPrint := files(t, o.Dir), a.Fingerprint()
	written := []string{nextPrefix + rootFile, nextPrefix + rootCertFile, crossFile, nextPrefix + issuerFile}
	for n := 1; n <= len(written); n++ {
		m := map[string][]byte{}
		for k, v := range before {
			m[k] = v
		}
		for _, name := range written[:n] {
			m[name] = during[name]
		}
		lay(t, o.Dir, m)
		if b := mustOpen(t, o); b.Fingerprint() != newPrint || len(b.State().Roots) != 2 {
			t.Errorf("cut after %s: %+v", written[n-1], b.State())
		}
	}
	list := []byte("move root.pem\nmove root.crt\nmove issuer.pem")
	moved := []string{rootFile, rootCertFile, issuerFile}
	for n := 0; n <= len(moved); n++ {
		m := map[string][]byte{finishFile: list}
		for k, v := range during {
			m[k] = v
		}
		for _, name := range moved[:n] {
			m[name] = m[nextPrefix+name]
			delete(m, nextPrefix+name)
		}
		lay(t, o.Dir, m)
		b := mustOpen(t, o)
		if b.Fingerprint() != newPrint || b.State().Rotating || len(files(t, o.Dir)) != 4 {
			t.Errorf("cut after %d moves: %+v", n, b.State())
		}
	}
}

// TestRotationOfflineNext finishes a rotation whose new root was taken away: the old root's key goes, and does not
// come back as the key of the new one.
func TestRotationOfflineNext(t *testing.T) {
	o := testOptions(t)
	a := mustOpen(t, o)
	if err := a.Rotate(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(o.Dir, nextPrefix+rootFile)); err != nil {
		t.Fatal(err)
	}
	if err := a.Finish(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if _, ok := files(t, o.Dir)[rootFile]; ok {
		t.Error("the key of the old root was left")
	}
	if b := mustOpen(t, o); b.Fingerprint() != a.Fingerprint() || b.State().Roots[0].KeyAway == "" {
		t.Errorf("%+v", b.State())
	}
}

// TestOldRootEnds rotates away from a root that ends during the rotation.
func TestOldRootEnds(t *testing.T) {
	o := testOptions(t)
	o.Lifetimes = Lifetimes{Root: 20 * day, Issuer: 15 * day}
	mustOpen(t, o)
	o.Lifetimes.Root = 0
	a := mustOpen(t, o)
	if err := a.Rotate(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	o.Now = func() time.Time { return time.Now().Add(30 * day) }
	if b := mustOpen(t, o); b.Fingerprint() != a.Fingerprint() {
		t.Error("another root")
	}
}

// TestRotateWhileServing rotates under load: no request fails.
func TestRotateWhileServing(t *testing.T) {
	e := newEnv(t)
	h := e.enrol(t, "web-01.hosts.example", "app")
	old := e.roots()
	stop := make(chan struct{})
	errs := make(chan error, 1)
	go func() {
		var first error
		for first == nil {
			select {
			case <-stop:
				errs <- first
				return
			default:
				if _, err := getVia(e, old, "/health"); err != nil {
					first = err
				} else if _, _, err := e.a.Identify(h.chain, time.Now()); err != nil {
					first = err
				}
			}
		}
		errs <- first
	}()
	if err := e.a.Rotate(t.Context(), ""); err != nil {
		t.Error(err)
	}
	for range 3 {
		if err := e.a.RotateIssuer(t.Context()); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	if err := <-errs; err != nil {
		t.Error(err)
	}
}

func renewVia(t testing.TB, e *env, h *host, roots *x509.CertPool) *host {
	t.Helper()
	c := e.clientVia(t, roots)
	res, err := c.Renew(e.transport(roots, h.pair()))
	if err != nil {
		t.Fatal(err)
	}
	return newHost(res, h.key)
}

func getVia(e *env, roots *x509.CertPool, path string) ([]byte, error) {
	tr := e.transport(roots)
	return fetch(tr, e.url+path)
}
