package enroll_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/exitgate/exitgate/ca/enroll"
	"github.com/exitgate/exitgate/ca/enroll/enrolltest"
	"github.com/exitgate/exitgate/ca/trust"
)

func tool(t *testing.T, stdin, program string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s is missing: make deps installs it", program)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// findProxy runs a PAC file in Node for each URL.
func findProxy(t *testing.T, pac []byte, urls ...string) []string {
	t.Helper()
	list, err := json.Marshal(urls)
	if err != nil {
		t.Fatal(err)
	}
	program := `
const n = a => a.split('.').reduce((v, b) => (v * 256 + +b) >>> 0, 0);
function isInNet(host, net, mask) { return ((n(host) & n(mask)) >>> 0) === ((n(net) & n(mask)) >>> 0); }
` + string(pac) + `
console.log(JSON.stringify(` + string(list) + `.map(u => FindProxyForURL(u, new URL(u).hostname))));`
	out, err := tool(t, program, "node", "-")
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, pac)
	}
	var answers []string
	if err := json.Unmarshal([]byte(out), &answers); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return answers
}

func TestPAC(t *testing.T) {
	p := trust.Proxy{HTTP: "http://gate.example.com:3128", HTTPS: "https://gate.example.com:3129",
		NoProxy: []string{"localhost", "127.0.0.1", "::1", ".corp.example", "*.lab.example", "10.0.0.0/8", "172.16.0.0/12", "Mixed.Example", "port.example:8443"}}
	want := map[string]string{
		"https://www.example.org/":        "HTTPS gate.example.com:3129",
		"http://www.example.org/":         "PROXY gate.example.com:3128",
		"HTTP://WWW.EXAMPLE.ORG/":         "PROXY gate.example.com:3128",
		"https://localhost/":              "DIRECT",
		"https://127.0.0.1:8080/":         "DIRECT",
		"https://[::1]/":                  "DIRECT",
		"https://corp.example/":           "DIRECT",
		"https://a.b.corp.example./":      "DIRECT",
		"https://notcorp.example/":        "HTTPS gate.example.com:3129",
		"https://corp.example.evil.test/": "HTTPS gate.example.com:3129",
		"https://x.lab.example/":          "DIRECT",
		"https://10.1.2.3/":               "DIRECT",
		"https://11.1.2.3/":               "HTTPS gate.example.com:3129",
		"https://172.31.255.255/":         "DIRECT",
		"https://172.32.0.0/":             "HTTPS gate.example.com:3129",
		"https://mixed.example/":          "DIRECT",
		"https://port.example/":           "DIRECT",
		"wss://www.example.org/":          "HTTPS gate.example.com:3129",
	}
	var urls []string
	for u := range want {
		urls = append(urls, u)
	}
	for i, got := range findProxy(t, enroll.PAC(p), urls...) {
		if got != want[urls[i]] {
			t.Errorf("%s goes %q, want %q", urls[i], got, want[urls[i]])
		}
	}
	if got := findProxy(t, enroll.PAC(trust.Proxy{}), "https://www.example.org/"); got[0] != "DIRECT" {
		t.Errorf("transparent mode goes %q", got[0])
	}
}

// TestPACHostile puts what is no name where names belong: it may mean nothing, and may never run or send traffic past the gateway.
func TestPACHostile(t *testing.T) {
	for _, bad := range []string{`"; process.exit(3); "`, "'+process.exit(3)+'", "</script><script>process.exit(3)", "\u2028process.exit(3)//", "a\nprocess.exit(3)", `\`, "*/process.exit(3)/*", "*", ".", "*.", "", "\xff\xfe",
		"0.0.0.0/0 \n", "x http=http://evil.test:1", "${process.exit(3)}"} {
		p := trust.Proxy{HTTP: "http://gate.example.com:3128", HTTPS: "http://gate.example.com:3128", NoProxy: []string{bad}}
		pac := enroll.PAC(p)
		if got := findProxy(t, pac, "https://www.example.org/"); got[0] != "PROXY gate.example.com:3128" {
			t.Errorf("no_proxy %q: goes %q", bad, got[0])
		}
		for _, line := range strings.Split(string(pac), "\n") {
			if strings.HasPrefix(line, "// exitgate ") && line != "// exitgate http=http://gate.example.com:3128 https=http://gate.example.com:3128 no_proxy=" {
				t.Errorf("no_proxy %q: the line for the script is %q", bad, line)
			}
		}
	}
	for _, url := range []string{"http://x; DIRECT:1", "http://a.example:1; DIRECT", `http://"+process.exit(3)+"`, "DIRECT", "\n"} {
		got := findProxy(t, enroll.PAC(trust.Proxy{HTTP: url, HTTPS: url}), "https://www.example.org/")
		if strings.Contains(got[0], "DIRECT") {
			t.Errorf("proxy %q: goes %q", url, got[0])
		}
	}
}

// TestUnits lets systemd read the units, as they lie on a host.
func TestUnits(t *testing.T) {
	g := enrolltest.New(t)
	h, _ := newHost(t)
	h.Program = "/opt/not here/exitgate" // no such program; its name must come through whole
	if _, err := h.Enroll(t.Context(), invite(g)); err != nil {
		t.Fatal(err)
	}
	dir := h.Trust.Root + "/etc/systemd/system/"
	out, _ := tool(t, "", "systemd-analyze", "verify", "--man=no", dir+"exitgate-host.service", dir+"exitgate-host.timer")
	for line := range strings.Lines(out) {
		if strings.Contains(line, "exitgate-host") && !strings.Contains(line, "Command /opt/not here/exitgate is not executable: No such file or directory") {
			t.Errorf("systemd says %s", line)
		}
	}
	if !strings.Contains(out, "is not executable") {
		t.Errorf("systemd did not read the program's name: %s", out)
	}
}

// TestScriptLint reads the script as the shells do that it may meet, and as shellcheck does.
func TestScriptLint(t *testing.T) {
	name := filepath.Join(t.TempDir(), "enroll.sh")
	if err := os.WriteFile(name, enroll.Script(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{{"dash", "-n", name}, {"busybox", "sh", "-n", name}, {"bash", "--posix", "-n", name}, {"shellcheck", "-s", "sh", name}} {
		if out, err := tool(t, "", c[0], c[1:]...); err != nil {
			t.Errorf("%v: %v\n%s", c, err, out)
		}
	}
}

// TestCommand lets a shell take the command apart: hostile values stay one word, and no token is in it.
func TestCommand(t *testing.T) {
	sum := fmt.Sprintf("%x", sha256.Sum256(enroll.Script()))
	for _, gateway := range []string{"https://gate.example.com:3130", "https://gate.example.com:3130/", "https://x'; touch pwned; '", "https://$(touch pwned)"} {
		dir := t.TempDir()
		program := `cd "$1"; curl() { for a; do u=$a; done; printf 'url=%s\n' "$u"; cp "$2" "$f"; }
sh() { shift; for a; do printf 'arg=%s\n' "$a"; done; }
eval "$3"`
		script := filepath.Join(dir, "script")
		if err := os.WriteFile(script, enroll.Script(), 0o600); err != nil {
			t.Fatal(err)
		}
		program = strings.ReplaceAll(program, `cp "$2" "$f"`, `cp `+script+` "$f"`)
		out, err := tool(t, "", "bash", "-c", program, "bash", dir, script, enroll.Command(gateway, "abcd", sum))
		g := strings.TrimSuffix(gateway, "/")
		want := "url=" + g + "/enroll.sh\narg=--gateway\narg=" + g + "\narg=--fingerprint\narg=abcd\n"
		if err != nil || out != want {
			t.Errorf("%s: %v\n%s\nwant\n%s", gateway, err, out, want)
		}
		if _, err := os.Stat(filepath.Join(dir, "pwned")); err == nil {
			t.Errorf("%s: it ran", gateway)
		}
	}
}

func TestReadToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("xgh_file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ flag, file, env, in, want, err string }{
		{flag: "-", in: "xgh_stdin\n", want: "xgh_stdin"},
		{file: file, want: "xgh_file"},
		{env: "xgh_env", want: "xgh_env"},
		{flag: "xgh_flag", env: "xgh_env", want: "xgh_flag"},
		{flag: "-", file: file, err: "once"},
		{flag: "-", in: "", err: "xgh_"},
		{flag: "-", in: "xgh_a\nxgh_b", err: "xgh_"},
		{flag: "-", in: strings.Repeat("x", 5000), err: "longer"},
		{flag: "hunter2", err: "begin with xgh_"},
		{file: file + ".none", err: "no such file"},
		{},
	} {
		t.Setenv(enroll.TokenVariable, c.env)
		got, err := enroll.ReadToken(c.flag, c.file, strings.NewReader(c.in))
		if got != c.want || (err == nil) != (c.err == "") || err != nil && (!strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
		if c.flag == "" && c.file == "" && os.Getenv(enroll.TokenVariable) != "" {
			t.Error("the token is still in the environment that programs inherit")
		}
	}
}

func TestParseFingerprint(t *testing.T) {
	plain := strings.Repeat("0123456789abcdef", 4)
	for in, want := range map[string]string{plain: plain, strings.ToUpper(plain): plain, "sha256:" + plain: plain, " " + plain + "\n": plain,
		strings.TrimSuffix(strings.Repeat("AB:", 32), ":"): strings.Repeat("ab", 32), "": "", plain[:62]: "", plain + "00": "", strings.Repeat("zz", 32): ""} {
		if got, err := enroll.ParseFingerprint(in); got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

// FuzzPAC looks whether anything but JSON strings and our own text comes out.
func FuzzPAC(f *testing.F) {
	f.Add("http://gate.example.com:3128", "x\"y\n")
	f.Fuzz(func(t *testing.T, url, no string) {
		pac := string(enroll.PAC(trust.Proxy{HTTP: url, HTTPS: url, NoProxy: []string{no}}))
		if n := strings.Count(pac, "\n"); n != 20 && n != 21 {
			t.Errorf("%d lines:\n%s", n, pac)
		}
		if strings.ContainsAny(pac, "\u2028\u2029\x00>") || strings.Count(pac, "<") != 3 {
			t.Errorf("raw characters:\n%q", pac)
		}
	})
}
