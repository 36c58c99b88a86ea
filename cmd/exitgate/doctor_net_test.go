package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// outside is the rest of the network in TestDoctorInNamespaces, as a command of its own: DNS on 10.99.1.1, which knows the
// gateway and one site, and the site on 203.0.113.10. It writes the CA of the site into the file of its first argument.
func outside() {
	if err := serveOutside(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "outside:", err)
		os.Exit(1)
	}
}

func serveOutside(file string) error {
	ca, err := newDemoCA()
	if err != nil {
		return err
	}
	leaf, err := ca.leaf("www.example.com")
	if err != nil {
		return err
	}
	dns, err := net.ListenPacket("udp", "10.99.1.1:53")
	if err != nil {
		return err
	}
	site, err := net.Listen("tcp", "203.0.113.10:443")
	if err != nil {
		return err
	}
	s := &http.Server{TLSConfig: &tls.Config{Certificates: []tls.Certificate{leaf}}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(os.Stderr, "THE SITE WAS ASKED", r.Method, r.URL) // a doctor asks for nothing
		fmt.Fprintln(w, "hello")
	})}
	go s.ServeTLS(site, "", "")
	if err := os.WriteFile(file, ca.pem(), 0o644); err != nil {
		return err
	}
	return serveNames(dns, map[string][4]byte{"www.example.com.": {203, 0, 113, 10}, "gate.example.test.": {10, 99, 1, 1}})
}

// serveNames answers for IPv4 addresses, and that all other names do not exist.
func serveNames(c net.PacketConn, names map[string][4]byte) error {
	for b := make([]byte, 1500); ; {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return err
		}
		var m dnsmessage.Message
		if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		q := m.Questions[0]
		m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
		if a, ok := names[strings.ToLower(q.Name.String())]; !ok {
			m.RCode = dnsmessage.RCodeNameError
		} else if q.Type == dnsmessage.TypeA {
			m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60}, Body: &dnsmessage.AResource{A: a}}}
		}
		if out, err := m.Pack(); err == nil {
			c.WriteTo(out, from)
		}
	}
}

// inNamespaces runs a script as root in network, mount and process namespaces of its own, on a copy of this machine: when
// the script ends, all that it started ends with it.
func inNamespaces(t *testing.T, script string) (string, error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes namespaces: run it as root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte("set -eu\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-euc", `
mount -t tmpfs scratch "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount -t tmpfs tmp "$1/root/tmp"
cp "$2" "$1/root/usr/local/bin/exitgate"
cp "$2" "$1/root/usr/local/bin/outside"
cp "$3" "$1/root/tmp/script"
mkdir "$1/root/tmp/old"
cd "$1/root"
pivot_root . tmp/old # and no chroot: whoever enters the mount namespace again finds himself here, and not outside
umount -l /tmp/old
exec bash /tmp/script`, "sh", t.TempDir(), self, file)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C", "TMPDIR=/tmp", "NO_COLOR=1"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// doctorScript has a gateway in this namespace and a host in another, whose hosts file leads the site astray.
const doctorScript = `
exec 2>&1
until_there() { for i in $(seq 300); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done; echo "never: $*"; exit 1; }
# What is another on each machine has tests of its own: clock, kernel, limits, confinement.
ours() { awk '/^(ok|warn|FAIL)  / {skip = $2 ~ /^(clock|kernel|descriptors|hardening)$/} /^$/ {skip = 0} !skip'; }
doctor() { echo; echo "\$ exitgate doctor $*"; code=0; exitgate doctor "$@" >/tmp/out || code=$?; ours </tmp/out; echo "exit $code"; }
unshare --net --mount sleep 1000 & HOST=$!
until_there sh -c "[ \$(readlink /proc/$HOST/ns/net) != \$(readlink /proc/self/ns/net) ]"
host() { nsenter --target $HOST --net --mount -- "$@"; }
on_host() { echo; echo "== on the host: $*"; code=0; host "$@" || code=$?; echo "exit $code"; }
ip link set lo up
ip addr add 203.0.113.10/32 dev lo
ip link add gw0 type veth peer name eth0 netns $HOST
ip addr add 10.99.1.1/24 dev gw0
ip link set gw0 up
host ip link set lo up
host ip addr add 10.99.1.2/24 dev eth0
host ip link set eth0 up
echo nameserver 10.99.1.1 >/tmp/resolv.conf
printf '127.0.0.1 localhost\n' >/tmp/hosts
printf '127.0.0.1 localhost\n\n10.0.0.9 www.example.com\n' >/tmp/hosts.astray
mount --bind /tmp/resolv.conf /etc/resolv.conf
mount --bind /tmp/hosts /etc/hosts
host mount --bind /tmp/resolv.conf /etc/resolv.conf
host mount --bind /tmp/hosts.astray /etc/hosts
rm -rf /etc/exitgate /var/lib/exitgate /var/lib/exitgate-host /usr/local/share/ca-certificates/exitgate-*
outside /tmp/site.crt &
until_there [ -s /tmp/site.crt ]
cat >/tmp/gate.yaml <<END
data_dir: /tmp/data
gateway: gate
public_name: gate.example.test
listen: {proxy: 10.99.1.1:3128, tls_proxy: 10.99.1.1:3129, enroll: 10.99.1.1:3130, admin: "off"}
upstream: {roots: [/tmp/site.crt], allow: [203.0.113.0/24]}
classes: {app: {}}
END

doctor -c /tmp/gate.yaml
exitgate run -c /tmp/gate.yaml >/tmp/gate.log 2>&1 & GATE=$!
export EXITGATE_DATA=/tmp/data
until_there exitgate status
unset EXITGATE_DATA

on_host env https_proxy=http://gate.example.test:3128 exitgate doctor https://www.example.com/

FINGERPRINT=$(openssl x509 -in /tmp/data/identity/root.crt -outform DER | sha256sum | cut -c1-64)
exitgate --data /tmp/data host token --class app --host web-01 --reason test --secret-file /tmp/token >/dev/null
host exitgate enroll --gateway https://gate.example.test:3130 --fingerprint $FINGERPRINT --name web-01 --token-file /tmp/token >/dev/null
on_host exitgate doctor https://www.example.com/orders

exitgate --data /tmp/data grant add --class app --reason test https://www.example.com/ >/dev/null
on_host env https_proxy=http://gate.example.test:3128 exitgate doctor https://www.example.com/
on_host env https_proxy=http://gate.example.test:3128 no_proxy=www.example.com exitgate doctor https://www.example.com/
on_host env https_proxy=http://gate.example.test:3128 exitgate doctor
on_host exitgate doctor -o json https://www.example.com/
on_host env https_proxy=https://gate.example.test:3129 exitgate doctor
on_host setpriv --reuid 65534 --regid 65534 --clear-groups env http_proxy=http://gate.example.test:3128 exitgate doctor http://www.example.com/
echo nameserver 10.99.1.9 >/tmp/resolv.dead
host mount --bind /tmp/resolv.dead /etc/resolv.conf
on_host env https_proxy=http://10.99.1.1:3128 exitgate doctor https://www.example.com/
host umount /etc/resolv.conf

exitgate --data /tmp/data host disable web-01 --reason test >/dev/null
on_host env https_proxy=http://gate.example.test:3128 exitgate doctor https://www.example.com/

doctor -c /tmp/gate.yaml
kill $GATE; wait $GATE || true
chmod 644 /tmp/data/identity/issuer.pem
sed -i s/10.99.1.1:3128/203.0.113.10:443/ /tmp/gate.yaml
printf '\xff' | dd of=/tmp/data/flows.db bs=1 conv=notrunc status=none
doctor -c /tmp/gate.yaml
echo 'listen: {prox: 1}' >/tmp/bad.yaml
doctor -c /tmp/bad.yaml
`

// TestDoctorInNamespaces runs the doctor of both sides where each of them would.
func TestDoctorInNamespaces(t *testing.T) {
	out, err := inNamespaces(t, doctorScript)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(out, "THE SITE WAS ASKED") {
		t.Error("a doctor sent a request")
	}
	golden(t, "testdata/doctor/namespaces.golden", []byte(withoutChance(out)))
}

// withoutChance takes out what is another in each run.
func withoutChance(s string) string {
	for _, r := range [][2]string{
		{`\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z`, "TIME"}, {`\b[0-9a-f]{64}\b`, "SHA256"}, {`\b[0-9a-f]{16}\b`, "SHA"}, {`process \d+`, "process N"},
		{`[\d.]+ [kMGT]?B (of|used|free)`, "SIZE $1"}, {`\bg-[a-z0-9]{8}\b`, "GRANT"}, {`\b[0-9a-f]{8},O=gate`, "NAME,O=gate"}, {`\d+ looked at, \d+ to see to`, "N looked at, N to see to"}, {`, \d+\n +connections`, ", N\n connections"}, {`revision [0-9a-f]+`, "revision R"}, {`"revision": "[0-9a-f]+"`, `"revision": "R"`}, {`version [^ ,]+,`, "version V,"},
		{`\d+ tests`, "N tests"}, {`(interception|identity|exitgate)( issuer| root)? (CA )?[0-9A-F]{8}`, "$1 NAME"}, {`\bin \d+h\d+m\d+s`, "in DURATION"},
	} {
		s = regexp.MustCompile(r[0]).ReplaceAllString(s, r[1])
	}
	return s
}
