package trust

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tool runs a program of this machine, which make deps installs.
func tool(t *testing.T, program string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s is missing: make deps installs it", program)
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	return string(out), err
}

func mustTool(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := tool(t, program, args...)
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", program, args, err, out)
	}
	return out
}

// jdk lays a Java into a tree whose keystore the real keytool made, in the given format.
func jdk(t *testing.T, h Host, args ...string) string {
	t.Helper()
	home := filepath.Join(h.Root, "/opt/java/jdk-21")
	for _, dir := range []string{"/bin", "/lib/security", "/conf"} {
		if err := os.MkdirAll(home+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"/bin/java", "/bin/keytool"} {
		if err := os.WriteFile(home+name, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cert := filepath.Join(t.TempDir(), "other.pem")
	if err := os.WriteFile(cert, newRoot(t, "other").PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	store := home + "/lib/security/cacerts"
	mustTool(t, "keytool", append([]string{"-importcert", "-noprompt", "-alias", "other", "-file", cert, "-keystore", store}, args...)...)
	return store
}

// passwordless is how Java has its keystore since version 18.
var passwordless = []string{"-storepass", "changeit", "-storetype", "PKCS12", "-J-Dkeystore.pkcs12.certProtectionAlgorithm=NONE", "-J-Dkeystore.pkcs12.macAlgorithm=NONE"}

func TestJava(t *testing.T) {
	for format, args := range map[string][]string{
		"JKS": {"-storepass", "changeit", "-storetype", "JKS"}, "PKCS12": {"-storepass", "changeit", "-storetype", "PKCS12"}, "no password": passwordless,
	} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			h, f := newTree(t, debian())
			store := jdk(t, h, args...)
			before := snapshot(t, h)
			old, next := newRoot(t, "old"), newRoot(t, "next")
			mustInstall(t, h, Want{Roots: []Root{old}})
			if list := mustTool(t, "keytool", "-list", "-keystore", store, "-storepass", "changeit"); !strings.Contains(list, old.Name()) || !strings.Contains(list, "other,") {
				t.Errorf("the keystore holds\n%s", list)
			}
			f.ran = nil
			if again := mustInstall(t, h, Want{Roots: []Root{old}}); len(again) > 0 || strings.Contains(strings.Join(f.ran, " "), "keytool") {
				t.Errorf("a second run changed %v and ran %v", again, f.ran)
			}
			mustInstall(t, h, Want{Roots: []Root{next}})
			if list := mustTool(t, "keytool", "-list", "-keystore", store, "-storepass", "changeit"); strings.Contains(list, old.Name()) || !strings.Contains(list, next.Name()) {
				t.Errorf("after the rotation the keystore holds\n%s", list)
			}
			if _, err := h.Remove(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			differ(t, "a removal", before, snapshot(t, h))
		})
	}
}

// TestJavaChanged has somebody import another certificate after us: it stays, and ours goes.
func TestJavaChanged(t *testing.T) {
	h, _ := newTree(t, debian())
	store := jdk(t, h, passwordless...)
	mustInstall(t, h, Want{Roots: []Root{newRoot(t, "ours")}})
	cert := filepath.Join(t.TempDir(), "third.pem")
	if err := os.WriteFile(cert, newRoot(t, "third").PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	mustTool(t, "keytool", "-importcert", "-noprompt", "-alias", "third", "-file", cert, "-keystore", store, "-storepass", "changeit")
	if _, err := h.Remove(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	list := mustTool(t, "keytool", "-list", "-keystore", store, "-storepass", "changeit")
	if !strings.Contains(list, "third,") || !strings.Contains(list, "other,") || strings.Contains(list, "exitgate-") {
		t.Errorf("after the removal the keystore holds\n%s", list)
	}
}

// TestJavaPassword skips a keystore with a password of its own, and says so.
func TestJavaPassword(t *testing.T) {
	h, _ := newTree(t, debian())
	jdk(t, h, "-storepass", "not-changeit", "-storetype", "JKS")
	list := mustInstall(t, h, Want{Roots: []Root{newRoot(t, "one")}})
	said := ""
	for _, c := range list {
		if c.What == "skipped" {
			said += c.String() + "\n"
		}
	}
	if !strings.Contains(said, "cacerts") || !strings.Contains(said, "password") {
		t.Errorf("the report is %v", list)
	}
}

// TestJavaOfOthers leaves a Java alone whose owner could make root write elsewhere.
func TestJavaOfOthers(t *testing.T) {
	h, _ := newTree(t, debian())
	jdk(t, h, passwordless...)
	if err := os.WriteFile(h.Root+"/etc/shadow", []byte("root:x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/shadow", h.Root+"/opt/java/jdk-21/conf/net.properties"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(h.Root+"/opt/java", 0o777); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, h)
	list := mustInstall(t, h, Want{Roots: []Root{newRoot(t, "one")}, Proxy: proxy()})
	after := snapshot(t, h)
	for _, p := range []string{"/etc/shadow", "/opt/java/jdk-21/lib/security/cacerts"} {
		if before[p] != after[p] {
			t.Errorf("%s was changed", p)
		}
	}
	if !strings.Contains(fmt.Sprint(list), "can be changed by others than root") {
		t.Errorf("the report is %v", list)
	}
}

func TestNSS(t *testing.T) {
	h, _ := newTree(t, debian())
	db := filepath.Join(h.Root, "/root/.pki/nssdb")
	if err := os.MkdirAll(db, 0o700); err != nil {
		t.Fatal(err)
	}
	mustTool(t, "certutil", "-N", "--empty-password", "-d", "sql:"+db)
	old, next := newRoot(t, "old"), newRoot(t, "next")
	mustInstall(t, h, Want{Roots: []Root{old}})
	if list := mustTool(t, "certutil", "-L", "-d", "sql:"+db); !strings.Contains(list, old.Name()) || !strings.Contains(list, "C,,") {
		t.Errorf("the database holds\n%s", list)
	}
	if again := mustInstall(t, h, Want{Roots: []Root{old}}); len(again) != 0 {
		t.Errorf("a second run changed %v", again)
	}
	mustInstall(t, h, Want{Roots: []Root{next}})
	if list := mustTool(t, "certutil", "-L", "-d", "sql:"+db); strings.Contains(list, old.Name()) || !strings.Contains(list, next.Name()) {
		t.Errorf("after the rotation the database holds\n%s", list)
	}
	if _, err := h.Remove(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if list := mustTool(t, "certutil", "-L", "-d", "sql:"+db); strings.Contains(list, "exitgate") {
		t.Errorf("after the removal the database holds\n%s", list)
	}
}

// TestNSSDamaged does not let a database that one user broke stop the host.
func TestNSSDamaged(t *testing.T) {
	files := debian()
	files["/root/.pki/nssdb/cert9.db"] = "no database"
	h, _ := newTree(t, files)
	list := mustInstall(t, h, Want{Roots: []Root{newRoot(t, "one")}})
	for _, c := range list {
		if c.What == "skipped" && strings.Contains(c.Path, "nssdb") {
			return
		}
	}
	t.Errorf("the report is %v", list)
}

// TestVariablesInShells lets real shells, systemd and apt read what is written.
func TestVariablesInShells(t *testing.T) {
	h, _ := newTree(t, debian())
	mustInstall(t, h, full(t))
	for _, shell := range []string{"dash", "bash", "busybox"} {
		args := []string{"-c", `. "$0" && printf '%s %s' "$https_proxy" "$no_proxy"`, h.Root + "/etc/profile.d/exitgate.sh"}
		if shell == "busybox" {
			args = append([]string{"sh"}, args...)
		}
		if out := mustTool(t, shell, args...); out != "http://gate.example.com:3128 localhost,127.0.0.1,::1,.corp.example,10.0.0.0/8,*.lab.example" {
			t.Errorf("%s reads %q", shell, out)
		}
	}
	out := mustTool(t, "apt-config", "-c", h.Root+"/etc/apt/apt.conf.d/95exitgate", "dump")
	if !strings.Contains(out, `Acquire::https::Proxy "http://gate.example.com:3128";`) || !strings.Contains(out, `Acquire::https::Proxy::localhost "DIRECT";`) {
		t.Errorf("apt reads\n%s", out)
	}
}
