package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/exitgate/exitgate/ca/enroll"
	"github.com/exitgate/exitgate/ca/enroll/enrolltest"
)

// scratchHost runs a script as root on a copy of this machine that is gone afterwards: an overlay over its file system,
// in a mount namespace, with this very binary as exitgate. Processes and network are the machine's.
func scratchHost(t *testing.T, script string, env ...string) (string, error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes a mount namespace: run it as root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "script"), []byte("set -eu\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-euc", `
mount -t tmpfs scratch "$1"
mkdir "$1/upper" "$1/work" "$1/host"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/host"
mount --bind /proc "$1/host/proc"
mount --rbind /dev "$1/host/dev"
mount -t tmpfs tmp "$1/host/tmp"
cp "$2" "$1/host/usr/local/bin/exitgate"
cp "$3" "$1/host/tmp/script"
exec chroot "$1/host" bash /tmp/script`, "sh", dir+"/..", self, filepath.Join(dir, "script"))
	cmd.Args[len(cmd.Args)-3] = t.TempDir()
	cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/go/bin", "HOME=/root", "LC_ALL=C", "TMPDIR=/tmp"}, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// snapFunction writes down what is on the host: modes, owners, contents, what stores hold.
const snapFunction = `
snap() {
  for dir in /etc /usr/local/share/ca-certificates /usr/local/bin /opt/jdk-small/lib/security /opt/jdk-small/conf /usr/lib/jvm/*/conf /var/lib/exitgate-host; do
    [ -e $dir ] || continue
    find $dir -xdev -not -path /etc/ssl/certs/java/cacerts -printf '%M %U %G %l %p\n'
    find $dir -xdev -type f -not -path /etc/ssl/certs/java/cacerts -exec sha256sum {} +
  done | sort >"/tmp/$1"
  ls -A /root /home /var/lib /opt >>"/tmp/$1"
  keytool -list -keystore /etc/ssl/certs/java/cacerts -storepass changeit 2>/dev/null | grep -v ^Your | sed 's/, .*//' | sort >>"/tmp/$1"
  [ ! -e /root/.pki ] || certutil -L -d sql:/root/.pki/nssdb >>"/tmp/$1"
}
`

// enrolScript goes from nothing to trust and back on a Debian with an unmanaged Java and a database of NSS, and compares
// what is there before and after. Java's managed keystore is compared by what it holds, since it is made anew each time.
const enrolScript = snapFunction + `
jlink --add-modules java.base,java.naming,jdk.crypto.ec --output /opt/jdk-small
mkdir -p /root/.pki/nssdb && certutil -N --empty-password -d sql:/root/.pki/nssdb
update-ca-certificates --fresh >/dev/null 2>&1
snap before
echo "== nobody trusts it yet"
! exitgate trust check --url https://probe.exitgate.internal/ --proxy "$PROXY" -o json >/tmp/untrusted.json
grep -B3 -A4 '"result": "ok"' /tmp/untrusted.json && echo "== trusted too early"
echo "== enroll"
exitgate enroll --gateway "$GATEWAY" --fingerprint "$FINGERPRINT" --name scratch-1
snap after
echo "== again"
exitgate enroll --gateway "$GATEWAY" --fingerprint "$FINGERPRINT" --name scratch-1
snap again
cmp /tmp/after /tmp/again
echo "== trust check"
exitgate trust check || true
grep -c . /etc/profile.d/exitgate.sh
ls -l /var/lib/exitgate-host
echo "== unenroll"
exitgate unenroll
snap end
diff /tmp/before /tmp/end && echo "== as it was"
`

func TestEnrolScratchHost(t *testing.T) {
	g := enrolltest.New(t)
	out, err := scratchHost(t, enrolScript, "GATEWAY="+g.URL, "FINGERPRINT="+g.Fingerprint, "EXITGATE_TOKEN="+g.Token(1), "PROXY="+g.Proxy.URL)
	t.Log(out)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "== as it was") {
		t.Error("the host is not as it was")
	}
	_, checked, _ := strings.Cut(out, "== trust check")
	if strings.Contains(checked, "failed") || strings.Contains(out, "trusted too early") {
		t.Error("a runtime does not accept the gateway, or accepted it before it was told to")
	}
	for _, name := range []string{"curl", "wget", "openssl", "gnutls", "python ssl", "node", "npm", "git", "go", "java", "chromium", "apt"} {
		if !strings.Contains(checked, "\n"+name+" ") && !strings.Contains(checked, "\n        "+name+" ") {
			t.Errorf("%s was not tried", name)
		}
	}
}

// secretIn looks for a token in the argument vectors of all processes, and in the environment of those that are exitgate.
func secretIn(t *testing.T, token string) (where []string) {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil || len(procs) < 2 {
		t.Fatalf("no processes are seen: %v", err)
	}
	for _, p := range procs {
		args, _ := os.ReadFile(p + "/cmdline") // gone meanwhile
		env, _ := os.ReadFile(p + "/environ")
		comm, _ := os.ReadFile(p + "/comm")
		if strings.Contains(string(args), token) || strings.Contains(string(env), token) && string(comm) == "exitgate\n" {
			where = append(where, fmt.Sprintf("%s: %q", p, args))
		}
	}
	return where
}

// TestProcessList looks at the processes of the machine while a host waits for the gateway's answer to its token.
func TestProcessList(t *testing.T) {
	for _, args := range [][]string{{"--token", "TOKEN"}, {"--token=TOKEN"}, {"--token", "-"}} {
		g := enrolltest.New(t)
		token := g.Token(1)
		looked := false
		g.Before = func(path string) {
			if path != "/enroll/v1/token" {
				return
			}
			looked = true
			if where := secretIn(t, token); len(where) > 0 {
				t.Errorf("%v: the token is seen in %v", args, where)
			}
		}
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "TOKEN", token)
		}
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(t.TempDir(), "exitgate")
		if err := os.Symlink(self, link); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), link, append([]string{"enroll", "--user", "--gateway", g.URL, "--fingerprint", g.Fingerprint}, args...)...)
		cmd.Env = []string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}
		cmd.Stdin = strings.NewReader(token + "\n")
		if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), token) {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
		if !looked {
			t.Error("the token never came")
		}
	}
}

// pasteScript pastes the command as a person would, in each shell, with a program to be had and without one.
const pasteScript = snapFunction + `
export -n TOKEN # only what is given to the script may carry it on
rm -f /usr/local/bin/exitgate /etc/environment && echo LANG=C >/etc/environment && mkdir -p /usr/local/share/ca-certificates
update-ca-certificates --fresh >/dev/null 2>&1
for shell in dash 'busybox sh'; do
  for program in with without; do
    snap before
    echo "== $shell, $program program"
    printf '#!/bin/bash\nexec %s "$@"\n' "$shell" >/tmp/shell/sh
    chmod 755 /tmp/shell/sh
    cmd=$COMMAND; [ $program = with ] || cmd=$BARE_COMMAND
    PATH=/tmp/shell:$PATH bash -c "$cmd --dry-run"
    snap dry
    diff /tmp/before /tmp/dry
    PATH=/tmp/shell:$PATH EXITGATE_TOKEN=$TOKEN bash -c "$cmd --name pasted-1"
    snap after
    curl -sS --fail -x "$(. /etc/profile.d/exitgate.sh && echo $https_proxy)" https://www.example.com/ && echo
    PATH=/tmp/shell:$PATH bash -c "$cmd --name pasted-1" </dev/null
    snap again
    diff /tmp/after /tmp/again
    [ "$program" = without ] && [ -e /usr/local/bin/exitgate ] && { echo a program came from nowhere; exit 1; }
    PATH=/tmp/shell:$PATH sh /tmp/script.sh --remove
    snap end
    diff /tmp/before /tmp/end && echo "== as it was"
  done
done
echo "== wrong sum"
if bash -c "${COMMAND//$SUM/${SUM//[0-9]/0}}"; then echo it ran; fi
echo "== wrong fingerprint"
! sh /tmp/script.sh --gateway "$GATEWAY" --fingerprint "${FINGERPRINT//[0-9]/0}" </dev/null
echo "== another gateway's root"
! sh /tmp/script.sh --gateway "$BARE" --fingerprint "$FINGERPRINT" </dev/null
echo "== used token"
! EXITGATE_TOKEN=$USED sh /tmp/script.sh --gateway "$GATEWAY" --fingerprint "$FINGERPRINT"
[ ! -e /usr/local/bin/exitgate ] && echo "== no program stays"
`

func TestPasteCommand(t *testing.T) {
	g, bare := enrolltest.New(t), enrolltest.New(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	unlock := g.Lock()
	g.Program = self
	unlock()
	sum := fmt.Sprintf("%x", sha256.Sum256(enroll.Script()))
	token := g.Token(3)
	g.Before = func(string) {
		if where := secretIn(t, token); len(where) > 0 {
			t.Errorf("the token is seen in %v", where)
		}
	}
	out, err := scratchHost(t, "mkdir /tmp/shell; cat >/tmp/script.sh <<'END_OF_SCRIPT'\n"+string(enroll.Script())+"END_OF_SCRIPT\n"+pasteScript,
		"GATEWAY="+g.URL, "FINGERPRINT="+g.Fingerprint, "TOKEN="+token, "USED="+g.Token(0), "SUM="+sum, "COMMAND="+enroll.Command(g.URL, g.Fingerprint, sum),
		"BARE="+bare.URL, "BARE_FINGERPRINT="+bare.Fingerprint, "BARE_COMMAND="+enroll.Command(bare.URL, bare.Fingerprint, sum))
	t.Log(out)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out, "== as it was"); n != 4 {
		t.Errorf("%d of 4 times the host was as it was", n)
	}
	for _, want := range []string{"wrong fingerprint", "the token was used already", "== no program stays", enrolltest.Greeting} {
		if !strings.Contains(out, want) {
			t.Errorf("nothing said %q", want)
		}
	}
	if strings.Contains(out, "it ran") || strings.Contains(out, token) {
		t.Error("a script with another sum ran, or the token was printed")
	}
	if left := g.Registered(); len(left) > 0 {
		t.Errorf("the gateway keeps %v", left)
	}
}
