package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestProvision plays a company of four machines in network namespaces: a gateway, an origin on the outside, and two
// hosts that begin with nothing. Each host is a copy of this machine that is gone afterwards.
func TestProvision(t *testing.T) {
	n := newNetwork(t)
	n.startOrigin()
	n.startGateway()
	n.gateway("class", "add", "build", "--reason", "builds software")
	n.gateway("class", "add", "app", "--reason", "runs it")
	n.gateway("grant", "add", "--class", "build", "--reason", "packages", "https://api.example.test/packages")

	builder, app := n.newHost("builder"), n.newHost("app")
	defer func() {
		if t.Failed() {
			t.Log(tail(builder.log.String()), tail(app.log.String()), tail(n.gatewayLog.String()))
		}
	}()
	t.Run("from nothing to a granted request in one command", func(t *testing.T) {
		builder.paste(t, "build")
		builder.want(t, fetch, "origin says packages/index")
		builder.want(t, "exitgate trust check -o json | grep -c '\"result\": \"ok\"' | grep -v -x 0", "")
	})
	t.Run("another class is refused the same, asks, and is granted", func(t *testing.T) {
		app.paste(t, "app")
		out := app.refused(t)
		flow := fieldAfter(out, "flow")
		app.want(t, "exitgate request --reason 'needs the index' "+flow, "")
		id := fieldAfter(n.gateway("request", "list"), "\n")
		n.gateway("request", "approve", id, "--reason", "it does")
		app.want(t, fetch, "origin says packages/index")
	})
	t.Run("the identity is enough on the TLS proxy, and nothing else is", func(t *testing.T) {
		const identity = "--proxy-cert /var/lib/exitgate-host/identity.crt --proxy-key /var/lib/exitgate-host/identity.key"
		const over = "curl -sS --proxy https://10.99.0.1:3129 --proxy-cacert /var/lib/exitgate-host/root.crt "
		builder.want(t, over+identity+" https://api.example.test/packages/index", "origin says packages/index")
		flows := n.gateway("flows", "show", fieldAfter(n.gateway("flows", "way:tls-proxy", "-o", "csv"), "\n"))
		if !strings.Contains(flows, "certificate") {
			t.Errorf("the flow does not say that the host was known by its certificate:\n%s", flows)
		}
	})
	t.Run("a host that is disabled is out within seconds", func(t *testing.T) {
		n.gateway("host", "disable", "builder", "--reason", "stolen")
		builder.refused(t)
		if out, _ := builder.run(t, fetch+" -v"); !strings.Contains(out, "stolen") { // curl shows what a CONNECT was answered so only
			t.Errorf("the refusal does not say why:\n%s", out)
		}
		if out, code := builder.run(t, "exitgate enroll --renew"); code == 0 {
			t.Errorf("a disabled host renewed its identity:\n%s", out)
		}
		n.gateway("host", "enable", "builder", "--reason", "found")
		builder.want(t, fetch, "origin says packages/index")
	})
	t.Run("the roots are rotated under hosts that know the old one until they renew", func(t *testing.T) {
		n.gateway("ca", "rotate", "--root", "--reason", "ends in spring")
		builder.want(t, fetch, "origin says packages/index") // it knows the old one only
		n.gateway("ca", "rotate", "--switch", "--reason", "time")
		builder.want(t, fetch, "origin says packages/index") // by the bridge
		builder.want(t, "exitgate enroll --renew", "")
		builder.want(t, fetch, "origin says packages/index")
		n.gateway("ca", "rotate", "--finish", "--reason", "done")
		builder.want(t, "exitgate enroll --renew", "")
		builder.want(t, fetch, "origin says packages/index")
		builder.want(t, "grep -c BEGIN /usr/local/share/ca-certificates/exitgate*.crt | grep -x '.*1'", "")
	})
	t.Run("the identity root is rotated, and an identity taken back", func(t *testing.T) {
		const over = "curl -sS -v --proxy https://10.99.0.1:3129 --proxy-cacert /var/lib/exitgate-host/root.crt " +
			"--proxy-cert /var/lib/exitgate-host/identity.crt --proxy-key /var/lib/exitgate-host/identity.key https://api.example.test/packages/index"
		n.gateway("ca", "identity", "rotate", "--root", "--reason", "time")
		builder.want(t, over, "origin says packages/index") // the old root, and an identity under it
		builder.want(t, "exitgate enroll --renew", "")
		n.gateway("ca", "identity", "rotate", "--finish", "--force", "--reason", "time")
		builder.want(t, over, "origin says packages/index")
		serial, _ := builder.run(t, "openssl x509 -in /var/lib/exitgate-host/identity.crt -noout -serial | cut -d= -f2 | xargs -I{} python3 -c 'print(int(\"{}\", 16))'")
		n.gateway("ca", "identity", "revoke", strings.TrimSpace(serial), "--reason", "the key was seen elsewhere")
		until(t, "the identity is refused", func() bool {
			out, _ := builder.run(t, over)
			return strings.Contains(out, "revoked") && !strings.Contains(out, "origin says")
		})
		builder.want(t, fetch, "origin says packages/index") // it is known by its address
	})
	t.Run("a host that leaves is as it was, and known no more", func(t *testing.T) {
		builder.want(t, "exitgate unenroll", "")
		builder.want(t, "[ ! -e /etc/profile.d/exitgate.sh ] && [ ! -e /etc/exitgate/host.json ]", "")
		if out, code := builder.run(t, "curl -sS -x http://10.99.0.1:3128 https://api.example.test/packages/index"); code == 0 && strings.Contains(out, "origin says") {
			t.Errorf("a host that left is served:\n%s", out)
		}
	})
}

// fetch is what a program of the host does that knows nothing but its environment.
const fetch = ". /etc/profile.d/exitgate.sh && curl -sS https://api.example.test/packages/index"

// A network is three namespaces around a switch, which is that of the gateway.
type network struct {
	t          *testing.T
	dir        string
	name       string // of the gateway's namespace, and the beginning of the others'
	hosts      int
	gatewayLog lockedBuffer
}

func newNetwork(t *testing.T) *network {
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root")
	}
	n := &network{t: t, dir: t.TempDir(), name: fmt.Sprintf("xg%d", os.Getpid())}
	n.must("ip", "netns", "add", n.name)
	t.Cleanup(func() { exec.Command("ip", "netns", "del", n.name).Run() })
	n.in("ip", "link", "set", "lo", "up")
	n.in("ip", "link", "add", "lan", "type", "bridge")
	n.in("ip", "addr", "add", "10.99.0.1/24", "dev", "lan")
	n.in("ip", "link", "set", "lan", "up")
	n.in("ip", "addr", "add", "203.0.113.10/32", "dev", "lo") // the outside
	return n
}

func (n *network) must(name string, args ...string) string {
	n.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// in runs a command on the gateway's machine.
func (n *network) in(args ...string) {
	n.t.Helper()
	n.must("ip", append([]string{"netns", "exec", n.name}, args...)...)
}

// run starts a command in a namespace that ends with the test.
func (n *network) run(ns string, out io.Writer, dir string, args ...string) *exec.Cmd {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", ns}, args...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { cancel(); cmd.Wait() })
	return cmd
}

// startOrigin serves files over TLS on the outside.
func (n *network) startOrigin() {
	www := filepath.Join(n.dir, "www")
	if err := os.MkdirAll(filepath.Join(www, "packages"), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(www, "packages", "index"), []byte("origin says packages/index\n"), 0o644); err != nil {
		n.t.Fatal(err)
	}
	n.must("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=origins",
		"-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign", "-keyout", n.dir+"/o-ca.key", "-out", n.dir+"/o-ca.crt")
	n.must("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=api.example.test", "-keyout", n.dir+"/o.key", "-out", n.dir+"/o.csr")
	if err := os.WriteFile(n.dir+"/o.ext", []byte("subjectAltName=DNS:api.example.test\nextendedKeyUsage=serverAuth\nkeyUsage=digitalSignature\nbasicConstraints=CA:FALSE\n"), 0o600); err != nil {
		n.t.Fatal(err)
	}
	n.must("openssl", "x509", "-req", "-days", "2", "-in", n.dir+"/o.csr", "-CA", n.dir+"/o-ca.crt", "-CAkey", n.dir+"/o-ca.key", "-CAcreateserial", "-extfile", n.dir+"/o.ext", "-out", n.dir+"/o.crt")
	n.run(n.name, io.Discard, www, "openssl", "s_server", "-quiet", "-WWW", "-accept", "203.0.113.10:443", "-cert", n.dir+"/o.crt", "-key", n.dir+"/o.key")
}

// binary is this test binary under the name that makes it exitgate.
func (n *network) binary() string {
	self, err := os.Executable()
	if err != nil {
		n.t.Fatal(err)
	}
	link := filepath.Join(n.dir, "exitgate")
	if _, err := os.Lstat(link); err != nil {
		if err := os.Symlink(self, link); err != nil {
			n.t.Fatal(err)
		}
	}
	return link
}

func (n *network) startGateway() {
	config := `
data_dir: ` + n.dir + `/data
listen: {proxy: "10.99.0.1:3128", tls_proxy: "10.99.0.1:3129", enroll: "10.99.0.1:3130", admin: "off"}
upstream:
  allow: [203.0.113.0/24]
  roots: [` + n.dir + `/o-ca.crt]
  connect_to: {"api.example.test:443": "203.0.113.10:443"}
`
	file := filepath.Join(n.dir, "exitgate.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		n.t.Fatal(err)
	}
	n.run(n.name, &n.gatewayLog, n.dir, n.binary(), "run", "-c", file)
	until(n.t, "the gateway is ready", func() bool { return strings.Contains(n.gatewayLog.String(), "is ready") })
}

// gateway runs a verb on the gateway's machine.
func (n *network) gateway(args ...string) string {
	n.t.Helper()
	return n.must("ip", append([]string{"netns", "exec", n.name, n.binary(), "--data", n.dir + "/data"}, args...)...)
}

// A testHost is a shell on a machine of its own.
type testHost struct {
	n    *network
	name string
	in   io.WriteCloser
	out  *bufio.Reader
	log  lockedBuffer
}

// newHost makes a machine that is like this one and has no exitgate.
func (n *network) newHost(name string) *testHost {
	n.hosts++
	h, ns := &testHost{n: n, name: name}, fmt.Sprintf("%s-%d", n.name, n.hosts)
	n.must("ip", "netns", "add", ns)
	n.t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
	port := fmt.Sprintf("p%d", n.hosts)
	n.must("ip", "-n", n.name, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", ns)
	n.must("ip", "-n", n.name, "link", "set", port, "master", "lan", "up")
	n.must("ip", "-n", ns, "link", "set", "lo", "up")
	n.must("ip", "-n", ns, "addr", "add", fmt.Sprintf("10.99.0.%d/24", 10+n.hosts), "dev", "eth0")
	n.must("ip", "-n", ns, "link", "set", "eth0", "up")

	dir := n.t.TempDir()
	cmd := exec.Command("ip", "netns", "exec", ns, "unshare", "--mount", "sh", "-euc", `
mount -t tmpfs scratch "$1"
mkdir "$1/upper" "$1/work" "$1/host"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/host"
mount --bind /proc "$1/host/proc"
mount --rbind /dev "$1/host/dev"
mount -t tmpfs tmp "$1/host/tmp"
rm -f "$1/host/usr/local/bin/exitgate"
exec chroot "$1/host" bash`, "sh", dir)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/go/bin", "HOME=/root", "LC_ALL=C", "TMPDIR=/tmp"}
	out, err := cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	cmd.Stderr = &h.log
	if h.in, err = cmd.StdinPipe(); err != nil {
		n.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	h.out = bufio.NewReader(out)
	n.t.Cleanup(func() { h.in.Close(); cmd.Wait() })
	return h
}

// run runs a command on the host and returns what it printed and its exit code.
func (h *testHost) run(t *testing.T, command string) (string, int) {
	t.Helper()
	const end = "== exit "
	fmt.Fprintf(&h.log, "%s# %s\n", h.name, command)
	if _, err := fmt.Fprintf(h.in, "( %s\n) </dev/null 2>&1; code=$?; echo; echo '%s'$code\n", command, end); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for {
		line, err := h.out.ReadString('\n')
		if err != nil {
			t.Fatalf("the host %s is gone: %v\n%s", h.name, err, h.log.String())
		}
		if code, ok := strings.CutPrefix(line, end); ok {
			var n int
			fmt.Sscan(code, &n)
			fmt.Fprintf(&h.log, "%s(%d)\n", b.String(), n)
			return b.String(), n
		}
		b.WriteString(line)
	}
}

// want runs a command that must succeed and print what is wanted.
func (h *testHost) want(t *testing.T, command, want string) {
	t.Helper()
	if out, code := h.run(t, command); code != 0 || !strings.Contains(out, want) {
		t.Fatalf("%s# %s\n%s\nexit code %d, want 0 and %q", h.name, command, out, code, want)
	}
}

// refused fetches until the gateway refuses, which has to be within seconds, and returns what it said.
func (h *testHost) refused(t *testing.T) (out string) {
	t.Helper()
	until(t, "the host "+h.name+" is refused", func() bool {
		out, _ = h.run(t, fetch)
		return strings.Contains(out, "exitgate refused this request") || strings.Contains(out, "response 403")
	})
	return out
}

// paste makes a token and pastes the command that the gateway prints for it.
func (h *testHost) paste(t *testing.T, class string) {
	t.Helper()
	args := []string{"host", "token", "--class", class, "--host", h.name, "--reason", "a new machine"}
	var token struct{ Secret string }
	if err := json.Unmarshal([]byte(h.n.gateway(append(args, "-o", "json")...)), &token); err != nil || token.Secret == "" {
		t.Fatalf("no token: %v", err)
	}
	var command string
	for line := range strings.Lines(h.n.gateway(args...)) {
		if strings.Contains(line, "enroll.sh") {
			command = strings.TrimSpace(line)
		}
	}
	h.want(t, "EXITGATE_TOKEN="+token.Secret+"; export EXITGATE_TOKEN; "+command, h.name)
	if strings.Contains(h.n.gatewayLog.String(), token.Secret) {
		t.Error("the token is in the gateway's log")
	}
}

// fieldAfter returns the first word after what, at the beginning of a line.
func fieldAfter(out, what string) string {
	_, rest, found := strings.Cut("\n"+out, "\n"+strings.TrimPrefix(what, "\n"))
	if what == "\n" {
		_, rest, found = strings.Cut(out, "\n") // the line below the heading
	}
	if !found {
		_, rest, _ = strings.Cut(out, " "+what+" ")
	}
	words := strings.FieldsFunc(rest, func(r rune) bool { return r == ' ' || r == ',' || r == '\n' })
	if len(words) == 0 {
		return "nothing-was-found"
	}
	return words[0]
}

// tail returns the end of a log.
func tail(s string) string { return s[max(0, len(s)-8000):] }

// until waits until something that has to happen has happened.
func until(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !happened(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// lockedBuffer is a bytes.Buffer for two goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
