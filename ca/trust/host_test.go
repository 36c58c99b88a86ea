package trust

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// newRoot makes a root that nobody signs with.
func newRoot(t *testing.T, name string) Root {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, &x509.Certificate{Subject: pkix.Name{CommonName: name}}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := ParseRoots(Root{Cert: &x509.Certificate{Raw: der}}.PEM())
	if err != nil {
		t.Fatal(err)
	}
	return roots[0]
}

// A fakeRunner stands for the host's programs: it makes a bundle as update-ca-certificates does, and runs the real
// keytool and certutil on the files of the tree.
type fakeRunner struct {
	t    *testing.T
	root string
	ran  []string
	fail string // the program that fails
}

func (f *fakeRunner) Run(ctx context.Context, c Command) ([]byte, error) {
	program := filepath.Base(c.Argv[0])
	f.ran = append(f.ran, strings.Join(append([]string{program}, c.Argv[1:]...), " "))
	if program == f.fail {
		return []byte("first\nno space left\n"), errors.New("exit status 1")
	}
	switch program {
	case "update-ca-certificates":
		return nil, f.bundle("/usr/local/share/ca-certificates", "/etc/ssl/certs/ca-certificates.crt")
	case "update-ca-trust":
		if dir := "/etc/pki/ca-trust/source/anchors"; tree(f.root).isDir(dir) {
			return nil, f.bundle(dir, "/etc/pki/tls/certs/ca-bundle.crt")
		}
		return nil, f.bundle("/etc/ca-certificates/trust-source/anchors", "/etc/ssl/certs/ca-certificates.crt")
	case "systemctl":
		return nil, f.systemctl(c.Argv[1:])
	case "keytool", "certutil":
		return f.real(ctx, program, c)
	}
	return nil, nil
}

func (f *fakeRunner) bundle(anchors, bundle string) error {
	b := []byte("# of the distribution\n")
	names := tree(f.root).glob(anchors + "/*.crt")
	for _, n := range names {
		c, err := os.ReadFile(filepath.Join(f.root, n))
		if err != nil {
			return err
		}
		b = append(b, c...)
	}
	return os.WriteFile(filepath.Join(f.root, bundle), b, 0o644)
}

func (f *fakeRunner) systemctl(args []string) error {
	link := filepath.Join(f.root, "/etc/systemd/system/timers.target.wants", args[len(args)-1])
	switch args[0] {
	case "enable":
		return os.Symlink("../"+filepath.Base(link), link)
	case "disable":
		return os.Remove(link)
	}
	return nil
}

// real runs a program of this machine on the tree's files.
func (f *fakeRunner) real(ctx context.Context, program string, c Command) ([]byte, error) {
	var args []string
	for _, a := range c.Argv[1:] {
		if strings.HasPrefix(a, "/") {
			a = filepath.Join(f.root, a)
		}
		if p, ok := strings.CutPrefix(a, "sql:"); ok {
			a = "sql:" + filepath.Join(f.root, p)
		}
		args = append(args, a)
	}
	path, err := exec.LookPath(program)
	if err != nil {
		f.t.Fatalf("%s is missing: make deps installs it", program)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = bytes.NewReader(c.Stdin)
	return cmd.CombinedOutput()
}

// newTree lays out files below a directory; a name that ends with a slash is a directory, a value that begins with
// "->" a link, and programs are executable.
func newTree(t *testing.T, files map[string]string) (Host, *fakeRunner) {
	t.Helper()
	root := t.TempDir()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		p := filepath.Join(root, name)
		dir, mode := filepath.Dir(p), fs.FileMode(0o644)
		if strings.HasSuffix(name, "/") {
			dir = p
		}
		if strings.Contains(name, "bin/") {
			mode = 0o755
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		target, link := strings.CutPrefix(files[name], "->")
		var err error
		switch {
		case link:
			err = os.Symlink(target, p)
		case !strings.HasSuffix(name, "/"):
			err = os.WriteFile(p, []byte(files[name]), mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	f := &fakeRunner{t: t, root: root}
	return Host{Root: root, Run: f}, f
}

// debian is a Debian with most of what is looked for.
func debian() map[string]string {
	return map[string]string{
		"/usr/sbin/update-ca-certificates":                "",
		"/usr/bin/systemctl":                              "",
		"/usr/bin/certutil":                               "",
		"/usr/bin/chromium":                               "",
		"/usr/bin/firefox-esr":                            "",
		"/etc/systemd/":                                   "",
		"/run/systemd/system/":                            "",
		"/etc/apt/apt.conf.d/":                            "",
		"/etc/fish/":                                      "",
		"/etc/passwd":                                     "root:x:0:0:root:/root:/bin/bash\n",
		"/etc/environment":                                "PATH=/usr/bin",
		"/etc/dnf/dnf.conf":                               "[main]\ngpgcheck=1\n[other]\nproxy=x\n",
		"/etc/ssl/certs/ca-certificates.crt":              "# of the distribution\n",
		"/etc/firefox/policies/policies.json":             `{"policies": {"DisableTelemetry": true, "Certificates": {"Install": ["/corp.pem"]}}}`,
		"/usr/lib/jvm/managed/bin/java":                   "",
		"/usr/lib/jvm/managed/bin/keytool":                "",
		"/usr/lib/jvm/managed/lib/security/cacerts":       "->/etc/ssl/certs/java/cacerts",
		"/etc/ssl/certs/java/cacerts":                     "made by the distribution",
		"/etc/java-17/net.properties":                     "java.net.useSystemProxies=false\n",
		"/usr/lib/jvm/managed/conf/net.properties":        "->/etc/java-17/net.properties",
		"/usr/local/share/ca-certificates/somebodys.crt":  "",
		"/etc/opt/chrome/policies/managed/corporate.json": "{}",
	}
}

func proxy() Proxy {
	return Proxy{HTTP: "http://gate.example.com:3128", HTTPS: "http://gate.example.com:3128",
		NoProxy: []string{"localhost", "127.0.0.1", "::1", ".corp.example", "10.0.0.0/8", "*.lab.example"}}
}

// snapshot lists every file with its mode and content.
func snapshot(t *testing.T, h Host) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(h.Root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		rel, content := strings.TrimPrefix(p, h.Root), ""
		switch {
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			content = string(b)
		case fi.Mode()&fs.ModeSymlink != 0:
			content, _ = os.Readlink(p)
		}
		all[rel] = fi.Mode().String() + "\n" + content
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
		if _, ok := before[name]; !ok {
			t.Errorf("%s: %s came", what, name)
		} else if before[name] != after[name] {
			t.Errorf("%s: %s changed\nfrom %.300q\n  to %.300q", what, name, before[name], after[name])
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			t.Errorf("%s: %s went", what, name)
		}
	}
}

func mustInstall(t *testing.T, h Host, w Want) []Change {
	t.Helper()
	list, err := h.Install(t.Context(), w, false)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func unit() (File, string) {
	return File{"/etc/systemd/system/exitgate-host.timer", []byte("[Timer]\n"), 0o644}, "exitgate-host.timer"
}

func full(t *testing.T) Want {
	f, u := unit()
	return Want{Roots: []Root{newRoot(t, "one")}, Proxy: proxy(), Files: []File{f, {"/etc/exitgate/host.json", []byte("{}\n"), 0o644}}, Units: []string{u}}
}
