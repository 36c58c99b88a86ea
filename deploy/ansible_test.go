package deploy

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A site is a folder that stands for a host, and what its playbook is told.
type site struct {
	t    *testing.T
	dir  string
	vars map[string]any
}

// newSite makes one with a program for the host and a systemctl that write down what they are called with.
func newSite(t *testing.T) *site {
	t.Helper()
	if _, err := exec.LookPath("ansible-playbook"); err != nil {
		t.Fatal("ansible-playbook is missing (Debian: ansible-core); make test installs it")
	}
	s := &site{t: t, dir: t.TempDir()}
	for _, dir := range []string{"bin", "unit", "etc", "home"} {
		if err := os.Mkdir(filepath.Join(s.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.copy("ansible/testdata/fake-systemctl", "bin/systemctl")
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	s.vars = map[string]any{
		"exitgate_gateway": "https://gate.example.com:3130", "exitgate_fingerprint": strings.Repeat("ab", 32), "exitgate_name": "web-01",
		"exitgate_root": s.dir, "exitgate_program_src": filepath.Join(here, "ansible/testdata/fake-exitgate"), "exitgate_program": s.dir + "/bin/exitgate",
		"exitgate_gateway_program_src": s.dir + "/built", "exitgate_gateway_program": s.dir + "/bin/gateway",
		"exitgate_gateway_config_dir": s.dir + "/etc/gateway", "exitgate_gateway_create_user": false, "exitgate_gateway_unit_dir": s.dir + "/unit",
	}
	return s
}

func (s *site) copy(from, to string) {
	s.t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(filepath.Join(s.dir, to), b, 0o755)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) read(name string) string {
	b, _ := os.ReadFile(filepath.Join(s.dir, name))
	return string(b)
}

var recap = regexp.MustCompile(`changed=(\d+) .*failed=(\d+)`)

// play runs the playbook with variables more and returns how much it changed, and what it printed.
func (s *site) play(more map[string]any, args ...string) (changed string, out string, ok bool) {
	s.t.Helper()
	vars := maps.Clone(s.vars)
	maps.Copy(vars, more)
	b, err := json.Marshal(vars)
	if err == nil {
		err = os.WriteFile(filepath.Join(s.dir, "vars.json"), b, 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	c := exec.Command("ansible-playbook", append([]string{"-i", "localhost,", "-c", "local", "-e", "@" + s.dir + "/vars.json", "ansible/testdata/site.yml"}, args...)...)
	c.Env = append(os.Environ(), "PATH="+s.dir+"/bin:"+os.Getenv("PATH"), "FAKE="+s.dir, "HOME="+s.dir+"/home", "ANSIBLE_ROLES_PATH=ansible/roles",
		"ANSIBLE_LOCALHOST_WARNING=0", "ANSIBLE_NOCOLOR=1", "LC_ALL=C.UTF-8")
	text, err := c.CombinedOutput()
	m := recap.FindStringSubmatch(string(text))
	if m == nil {
		s.t.Fatalf("ansible-playbook %v: %v\n%s", args, err, text)
	}
	return m[1], string(text), err == nil
}

// changes fails unless a run goes well and changes so much.
func (s *site) changes(want string, more map[string]any, args ...string) string {
	s.t.Helper()
	changed, out, ok := s.play(more, args...)
	if !ok || changed != want {
		s.t.Fatalf("ansible-playbook %v changed %s, want %s:\n%s", args, changed, want, out)
	}
	return out
}

// TestAnsible takes a host and a gateway from nothing to all and back: what --check says would change is changed then, and a
// second time nothing is.
func TestAnsible(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	token := map[string]any{"exitgate_token": "xgh_test", "exitgate_gateway_config": map[string]any{"listen": map[string]any{"proxy": "127.0.0.1:3128"}}}
	if out, err := exec.Command("go", "build", "-o", s.dir+"/built", "../cmd/exitgate").CombinedOutput(); err != nil {
		t.Fatalf("build exitgate: %v\n%s", err, out)
	}

	s.changes("7", token, "--check")
	if s.read("calls") != "" || s.read("bin/exitgate") != "" || s.read("etc/gateway/exitgate.yaml") != "" || s.read("unit/exitgate.service") != "" {
		t.Error("--check changed something")
	}
	out := s.changes("8", token, "-vvv")
	if calls := s.read("calls"); !strings.Contains(calls, "--name web-01 --token -\n") || strings.Contains(calls, "xgh_") || strings.Contains(out, "xgh_test") {
		t.Errorf("the token is in arguments or in the output; the program was called with\n%s", calls)
	}
	if !strings.Contains(s.read("unit/exitgate.service"), "ExecStart="+s.dir+"/bin/gateway run -c "+s.dir+"/etc/gateway/exitgate.yaml\n") {
		t.Errorf("the unit is\n%s", s.read("unit/exitgate.service"))
	}
	if out, err := exec.Command(s.dir+"/bin/gateway", "config", "check", s.dir+"/etc/gateway/exitgate.yaml").CombinedOutput(); err != nil {
		t.Errorf("the configuration: %s", out)
	}
	s.changes("0", token, "--check")
	s.changes("0", token)
	if n := strings.Count(s.read("systemctl"), "restart exitgate"); n != 1 {
		t.Errorf("the gateway was restarted %d times", n)
	}

	_, out, ok := s.play(map[string]any{"exitgate_token": "xgh_test", "exitgate_gateway_config": map[string]any{"listen": map[string]any{"prxy": "x"}}})
	if ok || !strings.Contains(out, "did you mean proxy?") || strings.Contains(s.read("etc/gateway/exitgate.yaml"), "prxy") {
		t.Errorf("a wrong configuration was taken:\n%s", out)
	}
}

// TestAnsibleUndo enrols with a token that is made on the gateway, and takes the host out again.
func TestAnsibleUndo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.copy("ansible/testdata/fake-exitgate", "bin/exitgate")
	host := func(more ...any) map[string]any {
		vars := map[string]any{"exitgate_program_src": "", "exitgate_gateway_program_src": s.dir + "/bin/exitgate", "exitgate_gateway_service": false}
		for i := 0; i+1 < len(more); i += 2 {
			vars[more[i].(string)] = more[i+1]
		}
		return vars
	}

	_, out, ok := s.play(host("exitgate_token", "xgh_wrong"))
	if ok || !strings.Contains(out, "the token is not known") || strings.Contains(out, "xgh_wrong") {
		t.Errorf("a wrong token:\n%s", out)
	}
	_, out, ok = s.play(host("exitgate_gateway", "http://gate.example.com"))
	if ok || !strings.Contains(out, "exitgate_gateway is an https URL") {
		t.Errorf("a wrong gateway:\n%s", out)
	}
	out = s.changes("5", host("exitgate_token_from", "localhost", "exitgate_class", "app"), "-v")
	if strings.Contains(out, "xgh_") {
		t.Errorf("the output holds the token:\n%s", out)
	}
	if calls := s.read("calls"); strings.Contains(calls, "xgh_") || !strings.Contains(calls, "host token --class app --ttl 15m --reason enrolled by Ansible --host web-01 -o json\n") {
		t.Errorf("the program was called with\n%s", calls)
	}
	s.changes("1", host("exitgate_state", "absent"), "--check")
	if !strings.Contains(s.read("etc/exitgate/host.json"), "web-01") {
		t.Error("--check took the host out")
	}
	s.changes("1", host("exitgate_state", "absent"))
	s.changes("0", host("exitgate_state", "absent"))
}

// TestAnsibleSyntax asks ansible-playbook whether the playbooks that are shown can be read.
func TestAnsibleSyntax(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"ansible/testdata/site.yml", "ansible/example.yml"} {
		c := exec.Command("ansible-playbook", "-i", "localhost,", "--syntax-check", name)
		c.Env = append(os.Environ(), "ANSIBLE_ROLES_PATH=ansible/roles", "HOME="+t.TempDir(), "LC_ALL=C.UTF-8")
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
