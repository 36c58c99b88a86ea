package provision

import (
	"crypto/rand"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the golden files")

// formats is every format, with the name of its golden file.
func formats() []Format {
	return []Format{CloudInit, Dockerfile, Kubernetes, Patch, PatchInit, PowerShell, Registry, Env}
}

// facts are those of an ordinary gateway in the middle of a rotation. The roots are committed, so that what is rendered is
// the same each time.
func facts(t *testing.T) Facts {
	t.Helper()
	roots, err := os.ReadFile("testdata/roots.pem")
	if err != nil {
		t.Fatal(err)
	}
	f := Facts{
		Class: "build", Gateway: "https://gate.example.com:3130", Fingerprint: strings.Repeat("AB:", 31) + "AB",
		Roots: string(roots), HTTP: "http://gate.example.com:3128", HTTPS: "http://gate.example.com:3128",
		NoProxy: []string{"localhost", "127.0.0.1", "::1", ".internal.example.com", "10.0.0.0/8", "192.0.2.0/25", "gate.example.com", "localhost"},
	}
	if err := f.Check(); err != nil {
		t.Fatal(err)
	}
	return f
}

func render(t *testing.T, format Format, f Facts) string {
	t.Helper()
	b, err := Render(format, f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestGolden(t *testing.T) {
	for _, format := range formats() {
		golden(t, string(format), render(t, format, facts(t)))
	}
	f := facts(t)
	f.Token, f.Name = "xgh_a2b3c4", "runner-07"
	golden(t, "cloud-init-token", render(t, CloudInit, f))
	f = facts(t)
	f.Gateway, f.Fingerprint = "", ""
	golden(t, "cloud-init-trust", render(t, CloudInit, f))
	f.HTTP, f.HTTPS, f.NoProxy = "", "", nil
	golden(t, "env-transparent", render(t, Env, f))
	f = facts(t)
	f.PAC = "http://gate.example.com:3130/proxy.pac"
	golden(t, "gpo-pac", render(t, PowerShell, f))
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs from %s (go test ./deploy/provision -update writes it):\n%s", name, file, got)
	}
}

// hostile are facts that Check refuses, each value an attack on every format.
func hostile(t *testing.T) Facts {
	t.Helper()
	f := facts(t)
	bad := "a'\"`$(touch pwned)${x}\\ %n\n- b: [c]\r\n#{d}</e>\u2019; touch pwned #\u2028"
	f.Class, f.Gateway, f.Fingerprint, f.Name, f.Token = bad, bad, bad, bad, bad
	f.HTTP, f.HTTPS, f.PAC = "http://h/"+bad, "http://h/"+bad, "http://h/"+bad
	f.NoProxy = []string{bad, bad}
	f.Bundle, f.Namespace, f.Container, f.Image = "/"+bad, bad, bad, bad
	return f
}

// TestHostileYAML parses what is rendered of hostile facts: the structure is that of ordinary ones, and the values are whole.
func TestHostileYAML(t *testing.T) {
	bad := hostile(t)
	for _, format := range []Format{CloudInit, Kubernetes, Patch, PatchInit} {
		good, got := documents(t, render(t, format, facts(t))), documents(t, render(t, format, bad))
		if format != CloudInit && shape(good) != shape(got) {
			t.Errorf("%s: the structure of hostile facts is\n%s\nand of ordinary ones\n%s", format, shape(got), shape(good))
		}
	}
	list := documents(t, render(t, Kubernetes, bad))
	data := list[2].(map[string]any)["data"].(map[string]any)
	if data["https_proxy"] != bad.HTTPS || list[1].(map[string]any)["metadata"].(map[string]any)["namespace"] != bad.Namespace {
		t.Errorf("the values are not what they were: %q", data)
	}
	files := documents(t, render(t, CloudInit, bad))[0].(map[string]any)["write_files"].([]any)
	if files[0].(map[string]any)["content"] != bad.Token {
		t.Errorf("the token is %q", files[0])
	}
	bad.Gateway = ""
	trust := documents(t, render(t, CloudInit, bad))[0].(map[string]any)
	if trust["apt"].(map[string]any)["https_proxy"] != bad.HTTPS {
		t.Errorf("the proxy is %q", trust["apt"])
	}
}

// documents parses every document of a YAML stream.
func documents(t *testing.T, s string) (out []any) {
	t.Helper()
	d := yaml.NewDecoder(strings.NewReader(s))
	for {
		var v any
		err := d.Decode(&v)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, s)
		}
		if v != nil {
			out = append(out, v)
		}
	}
}

// shape returns the keys and the types of a document.
func shape(v any) string {
	switch v := v.(type) {
	case map[string]any:
		keys := map[string]string{}
		for k, e := range v {
			keys[k] = shape(e)
		}
		return fmt.Sprint(keys) // in the order of the keys
	case []any:
		var out []string
		for _, e := range v {
			out = append(out, shape(e))
		}
		return fmt.Sprint(out)
	}
	return fmt.Sprintf("%T", v)
}

// TestHostileShell runs what is rendered of hostile facts: nothing but assignments happens, and they are whole.
func TestHostileShell(t *testing.T) {
	for name, f := range map[string]Facts{"ordinary": facts(t), "hostile": hostile(t)} {
		dir := t.TempDir()
		script := filepath.Join(dir, "env")
		if err := os.WriteFile(script, []byte(render(t, Env, f)), 0o600); err != nil {
			t.Fatal(err)
		}
		for variable, want := range map[string]string{"https_proxy": f.HTTPS, "NO_PROXY": strings.Join(f.NoProxy, ","), "SSL_CERT_FILE": f.Bundle} {
			c := exec.Command("sh", "-euc", `. "$1"; printf '%s' "$`+variable+`"`, "sh", script)
			c.Dir = dir
			out, err := c.CombinedOutput()
			if err != nil || string(out) != want {
				t.Errorf("%s: %s is %q, want %q (%v)", name, variable, out, want, err)
			}
		}
		s, err := view{f}.Script()
		if err != nil {
			t.Fatal(err)
		}
		check := exec.Command("sh", "-n")
		check.Stdin = strings.NewReader(s)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s: sh -n: %v\n%s", name, err, out)
		}
		if got, _ := os.ReadDir(dir); len(got) != 1 {
			t.Errorf("%s: the script made files: %v", name, got)
		}
	}
}

// TestEnrolScript runs what cloud-init runs, with an exitgate and a curl that write down what they are called with, in a
// folder that stands for /run.
func TestEnrolScript(t *testing.T) {
	for _, c := range []struct {
		name    string
		token   string
		program bool // the image has exitgate
		served  func(root []byte) string
		calls   string // what was called, with what on standard input
		err     string
	}{
		{"the image has the program", "xgh_a", true, nil, "exitgate enroll --gateway G --fingerprint F --name it's --token-file T: xgh_a", ""},
		{"the gateway has it", "xgh_a", false, nil, "enroll.sh --gateway G --fingerprint F --name it's: xgh_a", ""},
		{"no token", "", true, nil, "", "there is no token"},
		{"another root", "xgh_a", false, func(root []byte) string { return rootJSON(root[1:]) }, "", "gives no root with the SHA-256"},
		{"no root", "xgh_a", false, func([]byte) string { return "<html>" }, "", "gives no root with the SHA-256"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := make([]byte, 500)
			rand.Read(root)
			f := facts(t)
			f.Fingerprint, f.Name = sum(root), "it's"
			s, err := view{f}.Script()
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			s = strings.ReplaceAll(strings.ReplaceAll(s, "/run/", dir+"/"), "PATH=$PATH:/usr/local/sbin:/usr/local/bin\n", "")
			s = strings.ReplaceAll(s, "/etc/exitgate/host.json", dir+"/host.json")
			served := rootJSON
			if c.served != nil {
				served = c.served
			}
			write(t, dir, "exitgate-enroll", s)
			write(t, dir, "root.json", served(root))
			write(t, dir, "root.der", string(root))
			write(t, dir, "exitgate-token", c.token)
			write(t, dir, "bin/curl", fakeCurl(dir))
			if c.program {
				write(t, dir, "bin/exitgate", "#!/bin/sh\nfor f; do :; done\necho \"exitgate $*: $(cat \"$f\")\" >>"+dir+"/calls\n")
			}
			run := exec.Command("sh", filepath.Join(dir, "exitgate-enroll"))
			run.Env = []string{"PATH=" + dir + "/bin:/usr/bin:/bin"}
			out, err := run.CombinedOutput()
			if (err != nil) != (c.err != "") || !strings.Contains(string(out), c.err) {
				t.Errorf("%v\n%s", err, out)
			}
			calls, _ := os.ReadFile(filepath.Join(dir, "calls"))
			got := strings.NewReplacer(f.Gateway, "G", f.Fingerprint, "F", dir+"/exitgate-token", "T").Replace(strings.TrimSpace(string(calls)))
			if got != c.calls {
				t.Errorf("called %q, want %q", got, c.calls)
			}
			if _, err := os.Stat(filepath.Join(dir, "exitgate-token")); err == nil {
				t.Error("the token is still there")
			}
			if strings.Contains(string(out), "xgh_") {
				t.Errorf("the output holds the token: %s", out)
			}
		})
	}
}

func rootJSON(der []byte) string {
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return `{"ca":` + yamlString(string(b)) + "}\n"
}

// fakeCurl serves the root to who does not check it, and enroll.sh only to who does, by the file it was served.
func fakeCurl(dir string) string {
	return `#!/bin/sh
insecure= ca= out= url=
while [ $# -gt 0 ]; do
  case $1 in
    -k) insecure=1 ;;
    --cacert) ca=$2; shift ;;
    -o) out=$2; shift ;;
    https://*) url=$1 ;;
  esac
  shift
done
case $url in
  */root/*) cp ` + dir + `/root.json "$out" ;;
  */enroll.sh)
    [ -z "$insecure" ] && sed '/-----/d' "$ca" | base64 -d | cmp -s - ` + dir + `/root.der || exit 60
    echo 'echo "enroll.sh $*: $(cat)" >>` + dir + `/calls' >"$out" ;;
  *) exit 22 ;;
esac
`
}

func write(t *testing.T, dir, name, s string) {
	t.Helper()
	name = filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(s), 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestCloudInit holds user data to what cloud-init documents of the modules that are used, and asks cloud-init itself where
// it is installed. It is not among what the tests install: its package makes a machine's next boot its own.
func TestCloudInit(t *testing.T) {
	enrol, trust := facts(t), facts(t)
	enrol.Token = "xgh_a2b3c4"
	trust.Gateway, trust.Fingerprint = "", ""
	for name, f := range map[string]Facts{"enrol": enrol, "trust": trust} {
		s := render(t, CloudInit, f)
		if !strings.HasPrefix(s, "#cloud-config\n") {
			t.Errorf("%s: the first line is not #cloud-config", name)
		}
		var c struct {
			WriteFiles []struct{ Path, Owner, Permissions, Content string } `yaml:"write_files"`
			RunCmd     [][]string                                           `yaml:"runcmd"`
			CACerts    struct{ Trusted []string }                           `yaml:"ca_certs"`
			Apt        struct {
				HTTP  string `yaml:"http_proxy"`
				HTTPS string `yaml:"https_proxy"`
			}
		}
		d := yaml.NewDecoder(strings.NewReader(s))
		d.KnownFields(true)
		if err := d.Decode(&c); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, w := range c.WriteFiles {
			if !strings.HasPrefix(w.Path, "/") || w.Content == "" || len(w.Permissions) != 4 {
				t.Errorf("%s: the file %+v", name, w)
			}
			if strings.Contains(w.Content, f.Token) && f.Token != "" && w.Permissions != "0600" {
				t.Errorf("%s: %s holds the token and has the mode %s", name, w.Path, w.Permissions)
			}
		}
		if len(c.RunCmd) != 1 || name == "trust" && len(c.CACerts.Trusted) != 2 {
			t.Errorf("%s: %+v", name, c)
		}
		tool, err := exec.LookPath("cloud-init")
		if err != nil {
			t.Logf("NOT RUN: cloud-init schema: cloud-init is not installed")
			continue
		}
		file := filepath.Join(t.TempDir(), "user-data")
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(tool, "schema", "--config-file", file).CombinedOutput(); err != nil {
			t.Errorf("%s: cloud-init schema: %v\n%s", name, err, out)
		}
	}
}

// TestDockerfile reads the fragment as BuildKit does: comments, continued lines, here-documents, and known instructions.
func TestDockerfile(t *testing.T) {
	for name, f := range map[string]Facts{"ordinary": facts(t), "hostile": hostile(t)} {
		lines := strings.Split(strings.TrimSuffix(render(t, Dockerfile, f), "\n"), "\n")
		if lines[0] != "# syntax=docker/dockerfile:1" {
			t.Errorf("%s: the first line is %q", name, lines[0])
		}
		count := map[string]int{}
		for i := 0; i < len(lines); i++ {
			line := lines[i]
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			for strings.HasSuffix(line, `\`) && i+1 < len(lines) {
				i++
				line = strings.TrimSuffix(line, `\`) + lines[i]
			}
			word, rest, _ := strings.Cut(line, " ")
			count[word]++
			switch word {
			case "FROM":
			case "ARG", "ENV":
				value(t, name, rest, f)
			case "COPY":
				if !strings.HasPrefix(rest, `<<"EXITGATE" /usr/local/share/ca-certificates/exitgate-`) {
					t.Errorf("%s: %s", name, line)
				}
				end := i + 1
				for lines[end] != "EXITGATE" {
					end++
				}
				if _, err := certificates(strings.Join(lines[i+1:end], "\n")); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				i = end
			case "RUN":
				for strings.HasPrefix(strings.TrimSpace(rest), "--mount=") {
					_, rest, _ = strings.Cut(strings.TrimSpace(rest), " ")
				}
				if name == "ordinary" {
					if out, err := exec.Command("sh", "-nc", rest).CombinedOutput(); err != nil {
						t.Errorf("%s: sh -n %q: %s", name, rest, out)
					}
				}
			default:
				t.Errorf("%s: unknown instruction in %q", name, line)
			}
		}
		if count["FROM"] != 2 || count["COPY"] != 2 || count["RUN"] != 2 {
			t.Errorf("%s: the instructions are %v", name, count)
		}
	}
}

// value holds NAME="..." to one word that is what was meant.
func value(t *testing.T, facts, s string, f Facts) {
	t.Helper()
	name, quoted, _ := strings.Cut(s, "=")
	plain, ok := strings.CutPrefix(quoted, `"`)
	plain, end := strings.CutSuffix(plain, `"`)
	var out strings.Builder
	for i := 0; i < len(plain); i++ {
		switch c := plain[i]; {
		case c == '"' || c == '$':
			t.Fatalf("%s: %s is not one word", facts, s)
		case c == '\\':
			i++
			if i == len(plain) {
				t.Fatalf("%s: %s is not closed", facts, s)
			}
			out.WriteByte(plain[i])
		default:
			out.WriteByte(c)
		}
	}
	want := strings.NewReplacer("\n", " ", "\r", " ").Replace(f.HTTPS)
	if !ok || !end || name == "https_proxy" && out.String() != want {
		t.Errorf("%s: %s is %q, want %q", facts, s, out.String(), want)
	}
}
