package enroll_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/exitgate/exitgate/ca/enroll"
	"github.com/exitgate/exitgate/ca/enroll/enrolltest"
	"github.com/exitgate/exitgate/ca/trust"
)

// A runner stands for the host's programs: it makes the bundle, and enables units. What it ran can be looked at.
type runner struct {
	root string
	ran  []string
	fail string
}

func (r *runner) Run(_ context.Context, c trust.Command) ([]byte, error) {
	program := filepath.Base(c.Argv[0])
	r.ran = append(r.ran, strings.Join(c.Argv, " "))
	if program == r.fail {
		return []byte("it broke\n"), errors.New("exit status 1")
	}
	switch program {
	case "update-ca-certificates":
		bundle := []byte("# distribution\n")
		names, err := filepath.Glob(r.root + "/usr/local/share/ca-certificates/*.crt")
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			b, err := os.ReadFile(n)
			if err != nil {
				return nil, err
			}
			bundle = append(bundle, b...)
		}
		return nil, os.WriteFile(r.root+"/etc/ssl/certs/ca-certificates.crt", bundle, 0o644)
	case "systemctl":
		link := r.root + "/etc/systemd/system/timers.target.wants/" + c.Argv[len(c.Argv)-1]
		switch c.Argv[1] {
		case "enable":
			return nil, os.Symlink("../"+filepath.Base(link), link)
		case "disable":
			return nil, os.Remove(link)
		}
	}
	return nil, nil
}

func newHost(t *testing.T) (*enroll.Host, *runner) {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"/etc/ssl/certs", "/etc/systemd", "/etc/apt/apt.conf.d", "/usr/local/share", "/usr/sbin", "/usr/bin", "/var/lib", "/run/systemd/system"} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{"/etc/ssl/certs/ca-certificates.crt": "# distribution\n", "/usr/sbin/update-ca-certificates": "", "/usr/bin/systemctl": "",
		"/etc/environment": "LANG=C\n"} {
		if err := os.WriteFile(root+name, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r := &runner{root: root}
	return &enroll.Host{Trust: trust.Host{Root: root, Run: r}}, r
}

func snapshot(t *testing.T, h *enroll.Host) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(h.Trust.Root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		content := ""
		if fi.Mode().IsRegular() {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			content = string(b)
		}
		all[strings.TrimPrefix(p, h.Trust.Root)] = fi.Mode().String() + "\n" + content
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func differ(t *testing.T, what string, before, after map[string]string) {
	t.Helper()
	for name := range after {
		if before[name] != after[name] {
			t.Errorf("%s: %s is new or changed\nfrom %.200q\n  to %.200q", what, name, before[name], after[name])
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			t.Errorf("%s: %s went", what, name)
		}
	}
}

func invite(g *enrolltest.Gateway) enroll.Invitation {
	return enroll.Invitation{Gateway: g.URL, Fingerprint: g.Fingerprint, Token: g.Token(1), Name: "build-1"}
}

func TestEnrol(t *testing.T) {
	g := enrolltest.New(t)
	h, r := newHost(t)
	before := snapshot(t, h)
	inv := invite(g)

	dry := inv
	dry.DryRun = true
	report, err := h.Enroll(t.Context(), dry)
	if err != nil || !trust.Changed(report.Changes) {
		t.Errorf("a dry run: %v, %v", report, err)
	}
	differ(t, "a dry run", before, snapshot(t, h))

	report, err = h.Enroll(t.Context(), inv)
	if err != nil {
		t.Fatal(err)
	}
	if report.Name != "build-1" || report.Class != "build" || report.Mode != "proxy" || !report.Renewed {
		t.Errorf("the report is %+v", report)
	}
	if !slices.Equal(g.Registered(), []string{"build-1"}) || len(g.Stores) != 1 {
		t.Errorf("the gateway knows %v with stores %v", g.Registered(), g.Stores)
	}
	after := snapshot(t, h)
	if key := after["/var/lib/exitgate-host/identity.key"]; !strings.HasPrefix(key, "-rw-------\n-----BEGIN PRIVATE KEY") {
		t.Errorf("the key is %.40q", key)
	}
	if dir := after["/var/lib/exitgate-host"]; dir != "drwx------\n" {
		t.Errorf("the state directory is %q", dir)
	}
	noSecret(t, after, r, inv.Token)

	inv.Token = "" // not needed any more
	r.ran = nil
	report, err = h.Enroll(t.Context(), inv)
	if err != nil || trust.Changed(report.Changes) || report.Renewed || len(r.ran) > 0 {
		t.Errorf("a second run: %+v, %v, ran %v", report, err, r.ran)
	}
	differ(t, "a second run", after, snapshot(t, h))

	if _, err := h.Leave(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	differ(t, "unenroll", before, snapshot(t, h))
	if len(g.Registered()) != 0 {
		t.Error("the gateway was not told")
	}
	if _, err := h.Leave(t.Context(), false); err != nil {
		t.Errorf("a second unenroll: %v", err)
	}
}

// noSecret looks for token and key wherever they may not be.
func noSecret(t *testing.T, files map[string]string, r *runner, token string) {
	t.Helper()
	_, key, _ := strings.Cut(files["/var/lib/exitgate-host/identity.key"], "\n")
	block, _ := pem.Decode([]byte(key))
	if block == nil {
		t.Fatal("there is no key")
	}
	if _, err := x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
		t.Fatal(err)
	}
	secret := strings.Split(key, "\n")[1]
	for name, content := range files {
		if strings.Contains(content, token) {
			t.Errorf("the token is in %s", name)
		}
		if strings.Contains(content, secret) && name != "/var/lib/exitgate-host/identity.key" {
			t.Errorf("the key is in %s", name)
		}
	}
	for _, c := range r.ran {
		if strings.Contains(c, token) || strings.Contains(c, secret) {
			t.Errorf("a secret is in the command %s", c)
		}
	}
}

// TestRefused has each thing go wrong that a person or a network can get wrong; the host stays as it was, and the error
// is one that says what it is.
func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(g *enrolltest.Gateway, h *enroll.Host, r *runner, inv *enroll.Invitation)
		want string
		// left reports that the token is good for another try.
		left bool
	}{
		"wrong fingerprint": {func(_ *enrolltest.Gateway, _ *enroll.Host, _ *runner, inv *enroll.Invitation) {
			inv.Fingerprint = strings.Repeat("ab", 32)
		}, "wrong fingerprint", true},
		"no fingerprint": {func(_ *enrolltest.Gateway, _ *enroll.Host, _ *runner, inv *enroll.Invitation) {
			inv.Fingerprint = "abcd"
		}, "64 hexadecimal digits", true},
		"used token": {func(g *enrolltest.Gateway, _ *enroll.Host, _ *runner, inv *enroll.Invitation) {
			inv.Token = g.Token(0)
		}, "the token was used already", false},
		"unknown token": {func(_ *enrolltest.Gateway, _ *enroll.Host, _ *runner, inv *enroll.Invitation) {
			inv.Token = "xgh_nosuch"
		}, "its time is over", false},
		"no token": {func(_ *enrolltest.Gateway, _ *enroll.Host, _ *runner, inv *enroll.Invitation) {
			inv.Token = ""
		}, "a token is needed", false},
		"clock behind": {func(g *enrolltest.Gateway, _ *enroll.Host, _ *runner, _ *enroll.Invitation) {
			g.Ahead(3 * time.Hour)
		}, "clock is 3h0m0s behind", true},
		"clock ahead": {func(g *enrolltest.Gateway, h *enroll.Host, _ *runner, _ *enroll.Invitation) {
			h.Now = func() time.Time { return time.Now().Add(48 * time.Hour) }
		}, "ahead", true},
		"no store": {func(_ *enrolltest.Gateway, h *enroll.Host, _ *runner, _ *enroll.Invitation) {
			os.Remove(h.Trust.Root + "/usr/sbin/update-ca-certificates")
			os.Remove(h.Trust.Root + "/etc/ssl/certs/ca-certificates.crt")
		}, "install the package ca-certificates", true},
		"store fails": {func(_ *enrolltest.Gateway, _ *enroll.Host, r *runner, _ *enroll.Invitation) {
			r.fail = "update-ca-certificates"
		}, "trust store could not be updated", false},
		"systemd fails": {func(_ *enrolltest.Gateway, _ *enroll.Host, r *runner, _ *enroll.Invitation) {
			r.fail = "systemctl"
		}, "it broke", false},
		"roots fail": {func(g *enrolltest.Gateway, _ *enroll.Host, _ *runner, _ *enroll.Invitation) {
			g.Fail["/trust/roots.pem"] = 503
		}, "interception roots cannot be fetched", true},
		"sign fails": {func(g *enrolltest.Gateway, _ *enroll.Host, _ *runner, _ *enroll.Invitation) {
			g.Fail["/1.0/sign"] = 500
		}, "the identity was not signed", false},
		"register fails": {func(g *enrolltest.Gateway, _ *enroll.Host, _ *runner, _ *enroll.Invitation) {
			g.Fail["/enroll/v1/register"] = 503
		}, "did not register this host", false},
		"unknown mode": {func(g *enrolltest.Gateway, _ *enroll.Host, _ *runner, _ *enroll.Invitation) {
			g.Mode = "telepathy"
		}, "telepathy", false},
		"hostile no_proxy": {func(g *enrolltest.Gateway, _ *enroll.Host, _ *runner, _ *enroll.Invitation) {
			g.NoProxy = []string{"x'; rm -rf /; '"}
		}, "no_proxy", false},
		"nobody there": {func(_ *enrolltest.Gateway, _ *enroll.Host, _ *runner, inv *enroll.Invitation) {
			inv.Gateway = "https://127.0.0.1:1"
		}, "cannot be reached", true},
		"no URL": {func(_ *enrolltest.Gateway, _ *enroll.Host, _ *runner, inv *enroll.Invitation) {
			inv.Gateway = "http://127.0.0.1"
		}, "begins with https", true},
		"damaged record": {func(_ *enrolltest.Gateway, h *enroll.Host, _ *runner, _ *enroll.Invitation) {
			os.MkdirAll(h.Trust.Root+"/var/lib/exitgate-host", 0o700)
			os.WriteFile(h.Trust.Root+"/var/lib/exitgate-host/undo.json", []byte("{"), 0o600)
		}, "undo record", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := enrolltest.New(t)
			h, r := newHost(t)
			inv := invite(g)
			c.set(g, h, r, &inv)
			before := snapshot(t, h)
			_, err := h.Enroll(t.Context(), inv)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("the error is %v, and should say %q", err, c.want)
			}
			if inv.Token != "" && strings.Contains(err.Error(), inv.Token) {
				t.Errorf("the error holds the token: %v", err)
			}
			if r.fail == "" {
				differ(t, "after the error", before, snapshot(t, h))
			} else { // the program that failed may fail again when all is taken back
				for name := range snapshot(t, h) {
					if _, ok := before[name]; !ok {
						t.Errorf("after the error there is %s", name)
					}
				}
			}
			if names := g.Registered(); len(names) > 0 {
				t.Errorf("the gateway keeps %v", names)
			}
			if left := g.Tokens[inv.Token] > 0; left != c.left {
				t.Errorf("the token is good for another try: %v, want %v", left, c.left)
			}
		})
	}
}

// TestImpostor answers the right root, which is public, over another certificate.
func TestImpostor(t *testing.T) {
	g, impostor := enrolltest.New(t), enrolltest.New(t)
	impostor.Root = g.Authority.RootsPEM()
	h, _ := newHost(t)
	before := snapshot(t, h)
	inv := invite(g)
	inv.Gateway = impostor.URL
	_, err := h.Enroll(t.Context(), inv)
	if err == nil || !strings.Contains(err.Error(), "somebody stands in between") {
		t.Errorf("the error is %v", err)
	}
	if n := impostor.Count("POST /enroll/v1/token"); n != 0 {
		t.Error("the token was sent to an impostor")
	}
	differ(t, "an impostor", before, snapshot(t, h))
}

func TestEnrolledElsewhere(t *testing.T) {
	g, other := enrolltest.New(t), enrolltest.New(t)
	h, _ := newHost(t)
	if _, err := h.Enroll(t.Context(), invite(g)); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, h)
	if _, err := h.Enroll(t.Context(), invite(other)); err == nil || !strings.Contains(err.Error(), "exitgate unenroll first") {
		t.Errorf("the error is %v", err)
	}
	inv := invite(g)
	inv.Name = "another"
	if _, err := h.Enroll(t.Context(), inv); err == nil || !strings.Contains(err.Error(), "enrolled as build-1") {
		t.Errorf("the error is %v", err)
	}
	differ(t, "a host that is enrolled elsewhere", before, snapshot(t, h))
}
