package main

import (
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestRendered provisions hosts with what is rendered, each a copy of this machine in a network namespace: by cloud-init,
// by variables, and by the Ansible role. Each goes from nothing to a granted request.
func TestRendered(t *testing.T) {
	n := newNetwork(t)
	n.startOrigin()
	n.startGateway()
	n.gateway("class", "add", "build", "--reason", "builds software")
	n.gateway("grant", "add", "--class", "build", "--reason", "packages", "https://api.example.test/packages")

	t.Run("cloud-init", func(t *testing.T) {
		h := n.newHost("clouded")
		n.gateway("host", "token", "--class", "build", "--host", "clouded", "--reason", "first boot", "--secret-file", n.dir+"/token")
		data := n.gateway("render", "cloud-init", "--class", "build", "--name", "clouded", "--token-file", n.dir+"/token")
		h.boot(t, data)
		h.want(t, fetch, "origin says packages/index")
		h.want(t, "[ ! -e /run/exitgate-token ] && [ ! -e /run/exitgate-enroll ]", "")
		if !strings.Contains(n.gateway("host", "list"), "clouded") {
			t.Error("the host is not registered")
		}
	})
	t.Run("another gateway's fingerprint", func(t *testing.T) {
		h := n.newHost("misled")
		data := n.gateway("render", "cloud-init", "--class", "build", "--name", "misled", "--token-file", n.dir+"/token", "--fingerprint", strings.Repeat("ab", 32))
		h.put(t, "/run/exitgate-enroll", userData(t, data).WriteFiles[1].Content)
		h.put(t, "/run/exitgate-token", "xgh_secret")
		out, code := h.run(t, "sh /run/exitgate-enroll")
		if code == 0 || !strings.Contains(out, "gives no root with the SHA-256 abab") || strings.Contains(out, "xgh_") {
			t.Errorf("exit code %d\n%s", code, out)
		}
		h.want(t, "[ ! -e /etc/exitgate/host.json ] && [ ! -e /usr/local/bin/exitgate ]", "")
	})
	t.Run("variables", func(t *testing.T) {
		h := n.newHost("plain")
		n.gateway("host", "add", "plain", "--class", "build", "--address", "10.99.0.13", "--reason", "has no identity")
		h.put(t, "/usr/local/share/ca-certificates/exitgate.crt", n.gateway("ca", "root"))
		h.put(t, "/etc/exitgate.env", n.gateway("render", "env", "--class", "build"))
		h.want(t, "update-ca-certificates", " added")
		h.want(t, ". /etc/exitgate.env && curl -sS https://api.example.test/packages/index", "origin says packages/index")
	})
	t.Run("ansible", func(t *testing.T) {
		h := n.newHost("played")
		h.play(t, n)
	})
}

// A cloudConfig is what a machine does with user data, as far as ours have it.
type cloudConfig struct {
	WriteFiles []struct{ Path, Permissions, Content string } `yaml:"write_files"`
	RunCmd     [][]string                                    `yaml:"runcmd"`
}

func userData(t *testing.T, data string) (c cloudConfig) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(data), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// boot does what cloud-init does with user data.
func (h *testHost) boot(t *testing.T, data string) {
	t.Helper()
	c := userData(t, data)
	for _, f := range c.WriteFiles {
		h.put(t, f.Path, f.Content)
		h.want(t, "chmod "+f.Permissions+" "+f.Path, "")
	}
	for _, words := range c.RunCmd {
		h.want(t, strings.Join(quoteAll(words), " "), "")
	}
}

// put writes a file on the host.
func (h *testHost) put(t *testing.T, name, content string) {
	t.Helper()
	h.want(t, "mkdir -p $(dirname "+name+") && base64 -d >"+name+" <<'END'\n"+base64.StdEncoding.EncodeToString([]byte(content))+"\nEND", "")
}

// play enrols the host by the Ansible role, with the program that the gateway serves: what --check says is done then, and
// nothing is left to do.
func (h *testHost) play(t *testing.T, n *network) {
	t.Helper()
	role := "../../deploy/ansible/roles/exitgate_host"
	err := filepath.WalkDir(role, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		h.put(t, "/srv/roles/exitgate_host"+strings.TrimPrefix(filepath.ToSlash(name), role), string(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	script := userData(t, n.gateway("render", "cloud-init", "--class", "build")).WriteFiles[0].Content
	_, fingerprint, _ := strings.Cut(script, "fingerprint='")
	fingerprint, _, _ = strings.Cut(fingerprint, "'")
	n.gateway("host", "token", "--class", "build", "--host", h.name, "--reason", "by Ansible", "--secret-file", n.dir+"/played")
	secret, err := os.ReadFile(n.dir + "/played")
	if err != nil {
		t.Fatal(err)
	}
	h.put(t, "/srv/token", string(secret))
	h.put(t, "/srv/site.yml", `- hosts: all
  gather_facts: false
  roles:
    - role: exitgate_host
      exitgate_gateway: https://10.99.0.1:3130
      exitgate_fingerprint: `+fingerprint+`
      exitgate_name: played
      exitgate_token_file: /srv/token
      exitgate_state: "{{ state | default('present') }}"
`)
	h.want(t, "curl -sSk -o /usr/local/bin/exitgate https://10.99.0.1:3130/bin/linux-$(dpkg --print-architecture) && chmod 755 /usr/local/bin/exitgate", "")
	const playbook = "cd /srv && ANSIBLE_NOCOLOR=1 LC_ALL=C.UTF-8 ansible-playbook -i localhost, -c local site.yml "
	h.want(t, playbook+"--check", "changed=1 ")
	h.want(t, "[ ! -e /etc/exitgate/host.json ]", "")
	h.want(t, playbook, "changed=1 ")
	h.want(t, fetch, "origin says packages/index")
	h.want(t, "rm /srv/token", "")
	h.want(t, playbook+"--check", "changed=0 ")
	h.want(t, playbook+"--check", "changed=0 ")
	h.want(t, playbook, "changed=0 ")
	h.want(t, playbook+"-e state=absent", "changed=1 ")
	h.want(t, playbook+"-e state=absent", "changed=0 ")
	h.want(t, "[ ! -e /etc/exitgate/host.json ]", "")
}

// TestProvisioningPage does what docs/provisioning.md says, on machines in network namespaces.
func TestProvisioningPage(t *testing.T) {
	b, err := os.ReadFile("../../docs/provisioning.md")
	if err != nil {
		t.Fatal(err)
	}
	p := newManual(t, string(b))
	for _, block := range strings.Split(p.text, "\n```")[1:] {
		info, commands, _ := strings.Cut(block, "\n")
		switch who, file, _ := strings.Cut(info, " "); {
		case who == "yaml":
			p.start(t, commands)
		case info == "sh gate":
			p.gate(t, commands)
		case info == "sh terraform":
			p.terraform(t, commands)
		case who == "sh" && strings.HasPrefix(file, "host "):
			p.host(t, strings.TrimPrefix(file, "host "), commands)
		case who == "sh":
			t.Errorf("nobody runs the block %q", info)
		}
	}
	if p.hosts == 0 {
		t.Error("no host was provisioned: the page is not read")
	}
}

// A manual is docs/provisioning.md with the names of a test network in place of its own.
type manual struct {
	*network
	text, work string
	without    string                      // the user data that are not there, because terraform is not
	after      func(*testing.T, *testHost) // the host has enrolled
}

func newManual(t *testing.T, text string) *manual {
	p := &manual{network: newNetwork(t)}
	p.startOrigin()
	p.work = filepath.Join(p.dir, "work")
	if err := os.Mkdir(p.work, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("../..")
	if err == nil {
		err = os.Symlink(filepath.Join(root, "deploy"), filepath.Join(p.work, "deploy"))
	}
	if err != nil {
		t.Fatal(err)
	}
	p.text = p.translate(text)
	return p
}

func (p *manual) translate(s string) string {
	return strings.NewReplacer("gate.example.com", "10.99.0.1", "0.0.0.0", "10.99.0.1", "packages.example.com", "api.example.test", "/simple", "/packages",
		"/var/lib/exitgate/", p.dir+"/data/", "data_dir: /var/lib/exitgate", "data_dir: "+p.dir+"/data").Replace(s)
}

// start starts the gateway with the configuration of the page, and the way to the origin.
func (p *manual) start(t *testing.T, config string) {
	t.Helper()
	config += "\nupstream:\n  allow: [203.0.113.0/24]\n  roots: [" + p.dir + "/o-ca.crt]\n  connect_to: {\"api.example.test:443\": \"203.0.113.10:443\"}\n"
	file := filepath.Join(p.dir, "exitgate.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			t.Log(p.gatewayLog.String())
		}
	}()
	p.run(p.name, &p.gatewayLog, p.dir, p.binary(), "run", "-c", file)
	until(t, "the gateway is ready", func() bool { return strings.Contains(p.gatewayLog.String(), "is ready") })
}

// shell runs commands on the gateway's machine.
func (p *manual) shell(t *testing.T, commands string, env ...string) string {
	t.Helper()
	c := exec.Command("ip", "netns", "exec", p.name, "sh", "-euc", commands)
	c.Dir = p.work
	c.Env = append(append(os.Environ(), "PATH="+p.dir+":"+os.Getenv("PATH"), "EXITGATE_DATA="+p.dir+"/data"), env...)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, commands, out)
	}
	t.Logf("%s\n%s", commands, out)
	return string(out)
}

func (p *manual) gate(t *testing.T, commands string) { p.shell(t, commands) }

// terraform runs commands where terraform is. It is no Debian package: scripts/test-terraform says so aloud when it is not.
func (p *manual) terraform(t *testing.T, commands string) {
	if _, err := exec.LookPath("terraform"); err != nil {
		t.Log("NOT RUN: terraform is not on this machine")
		p.without = "runner-07.user-data"
		return
	}
	example := p.translate(readFile(t, "../../deploy/terraform/example/main.tf"))
	commands = strings.ReplaceAll(commands, "cp deploy/terraform/example/main.tf infrastructure/", "cp "+p.dir+"/main.tf infrastructure/")
	if err := os.WriteFile(filepath.Join(p.dir, "main.tf"), []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	cache, err := exec.Command("go", "env", "GOCACHE", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	dirs := strings.Fields(string(cache))
	env := []string{"HOME=" + p.dir, "GOCACHE=" + dirs[0], "GOMODCACHE=" + dirs[1], "CHECKPOINT_DISABLE=1", "TF_CLI_ARGS=-no-color"}
	p.shell(t, commands, env...)

	// What the host registers itself is no difference to Terraform, an update of something else leaves it as it is, and a
	// host that leaves is not taken from Terraform.
	exports, _, _ := strings.Cut(commands, "mkdir")
	p.after = func(t *testing.T, h *testHost) {
		p.shell(t, exports+"terraform -chdir=infrastructure plan -detailed-exitcode", env...)
		p.shell(t, exports+"sed -i 's/first runner/our first runner/' infrastructure/main.tf && terraform -chdir=infrastructure apply -auto-approve", env...)
		h.want(t, ". /etc/profile.d/exitgate.sh; curl -sS https://api.example.test/packages/index", "origin says packages/index")
		h.want(t, "exitgate unenroll", "")
		p.shell(t, exports+"terraform -chdir=infrastructure plan -detailed-exitcode", env...)
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// host boots a machine with user data, and runs commands on it that must print what the origin says.
func (p *manual) host(t *testing.T, data, commands string) {
	t.Helper()
	if data == p.without {
		return
	}
	h := p.newHost(strings.TrimSuffix(data, ".user-data"))
	text := readFile(t, filepath.Join(p.work, data))
	if !strings.Contains(text, "enroll.sh") { // for an image that has the program
		h.want(t, "curl -sSk -o /usr/local/bin/exitgate https://10.99.0.1:3130/bin/linux-$(dpkg --print-architecture) && chmod 755 /usr/local/bin/exitgate", "")
	}
	h.boot(t, text)
	h.want(t, commands, "origin says packages/index")
	if p.after != nil {
		p.after(t, h)
	}
}
