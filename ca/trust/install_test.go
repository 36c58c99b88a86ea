package trust

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestInstallTwiceAndRemove(t *testing.T) {
	h, f := newTree(t, debian())
	before := snapshot(t, h)
	w := full(t)
	dry, err := h.Install(t.Context(), w, true)
	if err != nil {
		t.Fatal(err)
	}
	differ(t, "a dry run", before, snapshot(t, h))
	list := mustInstall(t, h, w)
	if !slices.Equal(dry, list) {
		t.Errorf("the dry run said\n%v\nand this was done\n%v", dry, list)
	}
	installed := snapshot(t, h)
	for file, want := range map[string]string{
		"/etc/profile.d/exitgate.sh":                                       "export https_proxy='http://gate.example.com:3128'\n",
		"/etc/environment.d/60-exitgate.conf":                              `SSL_CERT_FILE="/etc/ssl/certs/ca-certificates.crt"`,
		"/etc/environment":                                                 "PATH=/usr/bin\n" + blockBegin,
		"/etc/systemd/system.conf.d/60-exitgate.conf":                      `DefaultEnvironment="NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt"`,
		"/etc/apt/apt.conf.d/95exitgate":                                   `Acquire::https::Proxy "http://gate.example.com:3128";`,
		"/etc/dnf/dnf.conf":                                                "[main]\n" + blockBegin + "proxy=http://gate.example.com:3128\n" + blockEnd + "gpgcheck=1\n",
		"/etc/java-17/net.properties":                                      "https.proxyHost=gate.example.com\nhttps.proxyPort=3128\nhttp.nonProxyHosts=localhost|*.localhost|127.0.0.1|[::1]|*.corp.example|*.lab.example\n",
		"/etc/firefox/policies/policies.json":                              w.Roots[0].Name() + ".crt",
		"/etc/chromium/policies/managed/exitgate.json":                     `"CACertificates"`,
		"/etc/opt/chrome/policies/managed/exitgate.json":                   `"ProxyMode": "fixed_servers"`,
		"/etc/ssl/certs/ca-certificates.crt":                               string(w.Roots[0].PEM()),
		"/etc/systemd/system/timers.target.wants/" + "exitgate-host.timer": "exitgate-host.timer",
	} {
		if !strings.Contains(installed[file], want) {
			t.Errorf("%s does not hold %q:\n%s", file, want, installed[file])
		}
	}
	if !strings.HasSuffix(installed["/etc/ssl/certs/java/cacerts"], "made by the distribution") {
		t.Error("the distribution's own keystore was touched")
	}
	f.ran = nil
	if again := mustInstall(t, h, w); len(again) != 0 || len(f.ran) != 0 {
		t.Errorf("a second run changed %v and ran %v", again, f.ran)
	}
	differ(t, "a second run", installed, snapshot(t, h))
	if _, err := h.Remove(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	differ(t, "a dry removal", installed, snapshot(t, h))
	if _, err := h.Remove(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	differ(t, "a removal", before, snapshot(t, h))
}

// TestOthersChange has somebody change the files after us: their part stays.
func TestOthersChange(t *testing.T) {
	for _, again := range []bool{false, true} {
		h, _ := newTree(t, debian())
		w := full(t)
		mustInstall(t, h, w)
		for name, add := range map[string]string{"/etc/environment": "LANG=C\n", "/etc/java-17/net.properties": "x=y\n", "/etc/dnf/dnf.conf": "z=1\n"} {
			b, err := os.ReadFile(h.Root + name)
			if err == nil {
				err = os.WriteFile(h.Root+name, append(b, add...), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		policies := `{"policies": {"Certificates": {"Install": ["/corp.pem", "/usr/local/share/ca-certificates/` + w.Roots[0].Name() + `.crt", "/new.pem"]}, "Proxy": {"Mode": "system"}}}`
		if err := os.WriteFile(h.Root+"/etc/firefox/policies/policies.json", []byte(policies), 0o644); err != nil {
			t.Fatal(err)
		}
		if again { // a renewal comes in between, and one with another proxy
			mustInstall(t, h, w)
			w.Proxy.HTTPS = "http://other.example.com:3128"
			mustInstall(t, h, w)
		}
		if _, err := h.Remove(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		after := snapshot(t, h)
		for name, want := range map[string]string{
			"/etc/environment":            "PATH=/usr/bin\nLANG=C\n",
			"/etc/java-17/net.properties": "java.net.useSystemProxies=false\nx=y\n",
			"/etc/dnf/dnf.conf":           "[main]\ngpgcheck=1\n[other]\nproxy=x\nz=1\n",
		} {
			if got := strings.SplitN(after[name], "\n", 2)[1]; got != want {
				t.Errorf("%s is %q, want %q (renewed in between: %v)", name, got, want, again)
			}
		}
		p := after["/etc/firefox/policies/policies.json"]
		if strings.Contains(p, "exitgate-") || !strings.Contains(p, "/corp.pem") || !strings.Contains(p, "/new.pem") || !strings.Contains(p, "system") {
			t.Errorf("policies.json is %s", p)
		}
	}
}

func TestRotation(t *testing.T) {
	h, f := newTree(t, debian())
	before := snapshot(t, h)
	old, next := newRoot(t, "old"), newRoot(t, "next")
	w := Want{Roots: []Root{old}, Proxy: proxy()}
	mustInstall(t, h, w)
	w.Roots = []Root{old, next}
	mustInstall(t, h, w)
	bundle := snapshot(t, h)["/etc/ssl/certs/ca-certificates.crt"]
	if !holds([]byte(bundle), old) || !holds([]byte(bundle), next) {
		t.Error("during the rotation the bundle does not hold both roots")
	}
	w.Roots, f.ran = []Root{next}, nil
	mustInstall(t, h, w)
	after := snapshot(t, h)
	if holds([]byte(after["/etc/ssl/certs/ca-certificates.crt"]), old) {
		t.Error("the retired root is still trusted")
	}
	if strings.Contains(after["/etc/firefox/policies/policies.json"], old.Name()) {
		t.Error("Firefox still trusts the retired root")
	}
	if !slices.Contains(f.ran, "update-ca-certificates --fresh") {
		t.Errorf("after a removal the store was not made afresh: %v", f.ran)
	}
	if _, err := h.Remove(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	differ(t, "a removal after a rotation", before, snapshot(t, h))
}

// TestFailure lets each step fail, at the first run and at one that changes an earlier one: the host stays as it was.
func TestFailure(t *testing.T) {
	for _, fail := range []string{"update-ca-certificates", "systemctl"} {
		h, f := newTree(t, debian())
		before := snapshot(t, h)
		w := full(t)
		f.fail = fail
		if _, err := h.Install(t.Context(), w, false); err == nil || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("%s failed, and Install said %v", fail, err)
		}
		differ(t, "a first run in which failed "+fail, before, snapshot(t, h))
		f.fail = ""
		mustInstall(t, h, w)
		installed := snapshot(t, h)
		f.fail = "update-ca-certificates"
		w.Roots = append(w.Roots, newRoot(t, "two"))
		if _, err := h.Install(t.Context(), w, false); err == nil {
			t.Error("a failed update is no error")
		}
		after := snapshot(t, h)
		delete(after, "/var/lib/exitgate-host/undo.json") // numbers of backups go on
		delete(installed, "/var/lib/exitgate-host/undo.json")
		differ(t, "a later run in which failed update-ca-certificates", installed, after)
		f.fail = ""
		if _, err := h.Remove(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		differ(t, "a removal after failures", before, snapshot(t, h))
	}
}

// TestInTheWay has a file lie where a directory belongs: what was written before is taken back.
func TestInTheWay(t *testing.T) {
	for _, p := range []string{"/etc/profile.d", "/etc/environment.d", "/etc/systemd/system.conf.d", "/usr/local/share/ca-certificates", "/etc/chromium/policies", "/etc/exitgate", "/var/lib"} {
		files := debian()
		delete(files, "/usr/local/share/ca-certificates/somebodys.crt")
		files[p] = "in the way"
		h, _ := newTree(t, files)
		before := snapshot(t, h)
		if _, err := h.Install(t.Context(), full(t), false); err == nil {
			t.Errorf("with a file at %s all went well", p)
		}
		differ(t, "with a file at "+p, before, snapshot(t, h))
	}
}

// TestInterrupted ends the context at each command: what was done is taken back.
func TestInterrupted(t *testing.T) {
	for n := 1; n < 4; n++ {
		h, f := newTree(t, debian())
		before := snapshot(t, h)
		ctx, cancel := context.WithCancel(t.Context())
		calls := 0
		h.Run = runnerFunc(func(c context.Context, cmd Command) ([]byte, error) {
			if calls++; calls == n {
				cancel()
				return nil, ctx.Err()
			}
			return f.Run(c, cmd)
		})
		if _, err := h.Install(ctx, full(t), false); err == nil {
			t.Errorf("interrupted at command %d, and all went well", n)
		}
		differ(t, "after an interruption", before, snapshot(t, h))
		cancel()
	}
}

// TestBundleIgnoresAnchor has a store whose program says that all is well, and does nothing.
func TestBundleIgnoresAnchor(t *testing.T) {
	files := debian()
	h, f := newTree(t, files)
	before := snapshot(t, h)
	h.Run = runnerFunc(func(ctx context.Context, c Command) ([]byte, error) {
		if filepath.Base(c.Argv[0]) == "update-ca-certificates" {
			return nil, nil
		}
		return f.Run(ctx, c)
	})
	_, err := h.Install(t.Context(), full(t), false)
	if err == nil || !strings.Contains(err.Error(), "did not take it up") {
		t.Errorf("Install said %v", err)
	}
	differ(t, "a store that ignores the root", before, snapshot(t, h))
}

type runnerFunc func(context.Context, Command) ([]byte, error)

func (f runnerFunc) Run(ctx context.Context, c Command) ([]byte, error) { return f(ctx, c) }

// TestKilled cuts the run off at each command, as a kill would: no error path runs. What was done can be removed.
func TestKilled(t *testing.T) {
	for n := 1; ; n++ {
		h, f := newTree(t, debian())
		before := snapshot(t, h)
		killed := func() (killed bool) {
			defer func() { killed = recover() != nil }()
			calls := 0
			h.Run = runnerFunc(func(ctx context.Context, c Command) ([]byte, error) {
				if calls++; calls == n {
					panic("killed")
				}
				return f.Run(ctx, c)
			})
			mustInstall(t, h, full(t))
			return false
		}()
		h.Run = f
		if _, err := h.Remove(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		differ(t, fmt.Sprintf("a removal after a kill at command %d", n), before, snapshot(t, h))
		if !killed {
			if n < 3 {
				t.Errorf("only %d commands were run", n-1)
			}
			return
		}
	}
}

func TestStores(t *testing.T) {
	for kind, c := range map[string]struct {
		files           map[string]string
		anchors, bundle string
		ran             string
	}{
		"Red Hat": {map[string]string{"/usr/bin/update-ca-trust": "", "/etc/pki/ca-trust/source/anchors/": "", "/etc/pki/tls/certs/ca-bundle.crt": ""},
			"/etc/pki/ca-trust/source/anchors", "/etc/pki/tls/certs/ca-bundle.crt", "update-ca-trust extract"},
		"Arch": {map[string]string{"/usr/bin/update-ca-trust": "", "/etc/ca-certificates/trust-source/anchors/": "", "/etc/ssl/certs/ca-certificates.crt": ""},
			"/etc/ca-certificates/trust-source/anchors", "/etc/ssl/certs/ca-certificates.crt", "update-ca-trust"},
		"Alpine": {map[string]string{"/usr/sbin/update-ca-certificates": "", "/etc/ssl/certs/ca-certificates.crt": ""},
			"/usr/local/share/ca-certificates", "/etc/ssl/certs/ca-certificates.crt", "update-ca-certificates"},
		"container": {map[string]string{"/etc/ssl/certs/ca-certificates.crt": "no newline at the end"},
			"/etc/exitgate/roots", "/etc/ssl/certs/ca-certificates.crt", ""},
	} {
		t.Run(kind, func(t *testing.T) {
			h, f := newTree(t, c.files)
			before := snapshot(t, h)
			w := Want{Roots: []Root{newRoot(t, "one")}}
			mustInstall(t, h, w)
			after := snapshot(t, h)
			if !holds([]byte(after[c.anchors+"/"+w.Roots[0].Name()+".crt"]), w.Roots[0]) || !holds([]byte(after[c.bundle]), w.Roots[0]) {
				t.Errorf("the root is not in %s and %s", c.anchors, c.bundle)
			}
			if strings.Join(f.ran, "; ") != c.ran {
				t.Errorf("ran %q, want %q", f.ran, c.ran)
			}
			if strings.Contains(after["/etc/profile.d/exitgate.sh"], "proxy") {
				t.Error("transparent mode wrote proxy settings")
			}
			if again := mustInstall(t, h, w); len(again) != 0 {
				t.Errorf("a second run changed %v", again)
			}
			if _, err := h.Remove(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			if c.ran != "" { // the fake makes a bundle of its own
				before[c.bundle] = snapshot(t, h)[c.bundle]
			}
			differ(t, "a removal", before, snapshot(t, h))
		})
	}
	h, _ := newTree(t, map[string]string{"/etc/": ""})
	if _, err := h.Install(t.Context(), Want{Roots: []Root{newRoot(t, "one")}}, false); err == nil || !strings.Contains(err.Error(), "ca-certificates") {
		t.Errorf("a host without a store: %v", err)
	}
}

func TestUser(t *testing.T) {
	h, _ := newTree(t, map[string]string{"/etc/ssl/certs/ca-certificates.crt": "# system\n", "/home/eve/.bashrc": "x=1\n", "/home/eve/.profile": ""})
	h.Home = "/home/eve"
	before := snapshot(t, h)
	w := Want{Roots: []Root{newRoot(t, "one")}, Proxy: proxy()}
	list := mustInstall(t, h, w)
	after := snapshot(t, h)
	for name := range after {
		if before[name] != after[name] && !strings.HasPrefix(name, "/home/eve/") {
			t.Errorf("a user's installation changed %s", name)
		}
	}
	if b := after["/home/eve/.local/share/exitgate/ca-bundle.pem"]; !strings.Contains(b, "# system\n") || !holds([]byte(b), w.Roots[0]) {
		t.Errorf("the user's bundle is %.100q", b)
	}
	if !Changed(list) {
		t.Error("nothing was reported")
	}
	if again := mustInstall(t, h, w); Changed(again) {
		t.Errorf("a second run changed %v", again)
	}
	if _, err := h.Remove(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	differ(t, "a removal", before, snapshot(t, h))
}

func TestPreflight(t *testing.T) {
	h, _ := newTree(t, debian())
	if err := h.Preflight(); err != nil {
		t.Error(err)
	}
	h, _ = newTree(t, map[string]string{"/etc/": ""})
	if err := h.Preflight(); err == nil || !strings.Contains(err.Error(), "no trust store") {
		t.Errorf("no store: %v", err)
	}
}

// TestDamagedRecord changes nothing when what undoes it cannot be known.
func TestDamagedRecord(t *testing.T) {
	for _, content := range []string{"{", `{"version": 9}`, "\x00"} {
		files := debian()
		files["/var/lib/exitgate-host/undo.json"] = content
		h, _ := newTree(t, files)
		before := snapshot(t, h)
		if _, err := h.Install(t.Context(), full(t), false); err == nil {
			t.Errorf("%q was taken for a record", content)
		}
		if _, err := h.Remove(t.Context(), false); err == nil {
			t.Errorf("%q was taken for a record", content)
		}
		differ(t, "a damaged record", before, snapshot(t, h))
	}
}
