package main

import (
	"encoding/base64"
	"os"
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
