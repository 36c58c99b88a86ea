package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestUnit asks systemd itself whether the unit is well formed and how exposed the service is.
func TestUnit(t *testing.T) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Fatal("systemd-analyze is missing (Debian: systemd); make test installs it")
	}
	dir := t.TempDir()
	b, err := os.ReadFile("systemd/exitgate.service")
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(dir, "exitgate.service")
	// verify wants the program to exist.
	text := strings.ReplaceAll(string(b), "/usr/bin/exitgate", "/bin/true")
	if err := os.WriteFile(unit, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tool, "verify", "--man=no", unit).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "exitgate.service") {
			t.Errorf("systemd-analyze verify: %s", line)
		}
	}
	if err != nil && strings.Contains(string(out), "exitgate.service") {
		t.Error(err)
	}
	// --threshold is in tenths: the exposure must be at most 2.0 of 10.
	if out, err := exec.Command(tool, "security", "--no-pager", "--offline=true", "--threshold=20", unit).CombinedOutput(); err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}

// TestCompose holds the compose file to what it must say for the gateway to have no more rights than it needs,
// and to files that exist.
func TestCompose(t *testing.T) {
	b, err := os.ReadFile("container/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Services map[string]struct {
			Build       struct{ Context, Dockerfile string }
			ReadOnly    bool     `yaml:"read_only"`
			CapDrop     []string `yaml:"cap_drop"`
			SecurityOpt []string `yaml:"security_opt"`
			Volumes     []string
			Ports       []string
			Secrets     []string
		}
		Secrets map[string]struct{ File string }
		Volumes map[string]any
	}
	if err := yaml.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	g, ok := c.Services["gateway"]
	if !ok || !g.ReadOnly || len(g.CapDrop) != 1 || g.CapDrop[0] != "ALL" || len(g.SecurityOpt) != 1 {
		t.Errorf("the gateway's service is not confined: %+v", g)
	}
	if _, err := os.Stat(filepath.Join("container", g.Build.Context, g.Build.Dockerfile)); err != nil {
		t.Errorf("the container file: %v", err)
	}
	for name, s := range c.Services {
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if strings.HasPrefix(from, "./") {
				if _, err := os.Stat(filepath.Join("container", from)); err != nil {
					t.Errorf("%s mounts %s: %v", name, from, err)
				}
			} else if _, ok := c.Volumes[from]; !ok {
				t.Errorf("%s mounts the volume %s, which is not declared", name, from)
			}
		}
		for _, sec := range s.Secrets {
			if _, ok := c.Secrets[sec]; !ok {
				t.Errorf("%s uses the secret %s, which is not declared", name, sec)
			}
		}
		if name != "gateway" && len(s.Ports) > 0 {
			t.Errorf("%s is published to the network: %v", name, s.Ports)
		}
	}
}
