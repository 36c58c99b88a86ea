package trust

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Checker runs the programs of this host against one URL behind the gateway, and tells which accept its certificate.
type Checker struct {
	URL   string   // https, such as https://probe.exitgate.internal/
	Proxy string   // URL of the proxy, for programs that take no hint from variables; empty: they connect directly
	Env   []string // of the programs
	Root  string   // where Java runtimes are looked for; empty: "/"
	// Path lists the directories in which programs are looked for, as PATH does. Empty: that of Env.
	Path string
}

// The outcomes of a check.
const (
	OK       = "ok"
	Failed   = "failed"
	NotTried = "not tried" // there is a program, and no way to try it
)

// A Result is what one program did.
type Result struct {
	Runtime string `json:"runtime"`
	Version string `json:"version"`
	Path    string `json:"path"`
	Result  string `json:"result"` // ok, failed, not tried
	Read    string `json:"read"`   // where it has its roots from
	Said    string `json:"said,omitempty"`
	Do      string `json:"do,omitempty"` // the one thing to do about it
}

// The bounds of a check.
const (
	checkTime     = 10 * time.Second // of one program
	checkParallel = 2
)

// Check tries all programs that are found, two at a time, ten seconds each.
func (c Checker) Check(ctx context.Context) ([]Result, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return nil, fmt.Errorf("%.80q is not a URL that begins with https://", c.URL)
	}
	dir, err := os.MkdirTemp("", "exitgate-check-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for name, content := range probeFiles() {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return nil, err
		}
	}
	tun, err := openTunnel(ctx, u, c.Proxy)
	if err != nil {
		return nil, err
	}
	defer tun.close()
	p := probe{url: c.URL, host: u.Hostname(), dir: dir, port: tun.port(), env: c.Env}
	jobs := c.find(p)
	results := make([]Result, len(jobs))
	var wait sync.WaitGroup
	next := make(chan int)
	for range checkParallel {
		wait.Go(func() {
			for i := range next {
				results[i] = c.try(ctx, p, jobs[i])
			}
		})
	}
	for i := range jobs {
		next <- i
	}
	close(next)
	wait.Wait()
	return slices.DeleteFunc(results, func(r Result) bool { return r.Runtime == "" }), nil
}

// A probe is what all programs are tried with.
type probe struct {
	url, host string
	dir       string // scratch, with the probe's files
	port      string // on 127.0.0.1, which leads to the host through the proxy
	env       []string
}

// A found program, and how it is tried.
type found struct {
	program
	path string
	args []string
}

// find lists the programs that are on the host.
func (c Checker) find(p probe) []found {
	var list []found
	path := c.Path
	if path == "" {
		path = lookEnv(c.Env, "PATH")
	}
	for _, prog := range programs() {
		for _, name := range prog.names {
			if at := lookPath(path, name); at != "" {
				list = append(list, found{prog, at, prog.args(p)})
				break
			}
		}
	}
	x := run{t: Host{Root: c.Root}.tree()}
	java := java()
	homes := x.javaHomes()
	if at := lookPath(path, "java"); at != "" {
		if at, err := filepath.EvalSymlinks(at); err == nil && !slices.Contains(homes, strings.TrimSuffix(at, "/bin/java")) {
			homes = append(homes, strings.TrimSuffix(at, "/bin/java"))
		}
	}
	for _, home := range homes {
		list = append(list, found{java, x.t.join(home + "/bin/java"), java.args(p)})
	}
	return list
}

func lookEnv(env []string, name string) string {
	for _, v := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

func lookPath(path, name string) string {
	if filepath.IsAbs(name) {
		path, name = filepath.Dir(name), filepath.Base(name)
	}
	for _, dir := range filepath.SplitList(path) {
		at := filepath.Join(dir, name)
		if fi, err := os.Stat(at); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 && filepath.IsAbs(at) {
			return at
		}
	}
	return ""
}

// try runs one program. A Result without a Runtime is a program that turned out not to be there.
func (c Checker) try(ctx context.Context, p probe, f found) Result {
	r := Result{Runtime: f.name, Path: f.path, Read: f.read(p.env)}
	if f.version != nil {
		out, _ := c.exec(ctx, p, f.path, f.version, f.env)
		r.Version = versionOf(out)
	}
	if f.untried != "" {
		r.Result, r.Do = NotTried, f.untried
		return r
	}
	out, err := c.exec(ctx, p, f.path, f.args, f.env)
	if f.absent != nil && f.absent.MatchString(out) {
		return Result{}
	}
	if r.Version == "" {
		r.Version = versionOf(out)
	}
	if late := errors.Is(err, context.DeadlineExceeded); !late && f.ok == nil && err == nil || !late && f.ok != nil && f.ok.MatchString(out) && !distrust.MatchString(out) && !distant.MatchString(out) {
		r.Result = OK
		return r
	}
	r.Result, r.Said = Failed, said(out, err)
	r.Do = f.advice(out, err)
	return r
}

// exec returns what a program printed, both ways.
func (c Checker) exec(ctx context.Context, p probe, path string, args, env []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(slices.Clone(p.env), "LC_ALL=C")
	for _, v := range env {
		cmd.Env = append(cmd.Env, strings.NewReplacer("DIR", p.dir, "PROBE", strings.TrimSuffix(p.url, "/")).Replace(v))
	}
	cmd.Dir = p.dir
	uid, gid := self()
	confine(cmd, "/", uid, gid)
	cmd.WaitDelay = time.Second
	var out bounded
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return out.String(), err
}

// What programs print when they do not accept a certificate, each in its words; and when they did not come that far.
var (
	distrust = regexp.MustCompile(`(?i)certificate verif|unable to get (local )?issuer|self.signed cert|unknown authority|unknown.?issuer|PKIX path|not trusted|CERT_AUTHORITY_INVALID|ERR_CERT|cert.*(untrusted|not valid|invalid)|certificate problem|tls_post_process_server_certificate|verify failed|SSL_connect returned|ssl certificate|server certificate verification failed`)
	distant  = regexp.MustCompile(`(?i)connection refused|could not resolve|name or service not known|ENOTFOUND|EAI_AGAIN|no such host|UnknownHost|ProxyError|ERR_PROXY|ERR_TUNNEL|ERR_NAME|network is unreachable|timed? ?out|no route to host`)
)

func (f found) advice(out string, err error) string {
	switch {
	case distrust.MatchString(out):
		return f.fix
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("it gave no answer within %s: try again when the host has less to do, then see whether the gateway can be reached", checkTime)
	case distant.MatchString(out) && f.far != "":
		return f.far
	case distant.MatchString(out):
		return "see whether the gateway can be reached: curl -v through the same proxy"
	}
	return "run it by hand and read what it says; this is not about trust as far as can be told"
}

var versionPattern = regexp.MustCompile(`\d+(\.\d+)+[\w.+-]*`)

func versionOf(out string) string { return versionPattern.FindString(out) }

// said returns the line of the output that tells most.
func said(out string, err error) string {
	last := ""
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if line != "" {
			last = line
		}
		if distrust.MatchString(line) || distant.MatchString(line) {
			last = line
			break
		}
	}
	if last == "" && err != nil {
		last = err.Error()
	}
	return last[:min(len(last), 200)]
}

// read says where the program has its roots from: the first variable that is set and that it reads, or else its own place.
func (p program) read(env []string) string {
	for _, name := range p.reads {
		if v := lookEnv(env, name); v != "" {
			return name + "=" + v
		}
	}
	return p.otherwise
}

// A tunnel is a port of loopback that leads to one host, through a proxy when there is one: for programs that know none.
type tunnel struct {
	ln    net.Listener
	to    *url.URL
	proxy *url.URL
	serve sync.WaitGroup
	stop  context.CancelFunc
}

func openTunnel(ctx context.Context, to *url.URL, proxy string) (*tunnel, error) {
	t := &tunnel{to: to}
	if proxy != "" {
		u, err := proxyURL(proxy)
		if err != nil {
			return nil, fmt.Errorf("proxy %.80q: %w", proxy, err)
		}
		t.proxy = u
	}
	var err error
	if t.ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	ctx, t.stop = context.WithCancel(ctx)
	t.serve.Go(func() { t.accept(ctx) })
	return t, nil
}

func (t *tunnel) port() string {
	_, port, _ := net.SplitHostPort(t.ln.Addr().String())
	return port
}

func (t *tunnel) close() {
	t.stop()
	t.ln.Close()
	t.serve.Wait()
}

func (t *tunnel) accept(ctx context.Context) {
	for {
		c, err := t.ln.Accept()
		if err != nil {
			return
		}
		t.serve.Go(func() { t.carry(ctx, c) })
	}
}

func (t *tunnel) carry(ctx context.Context, c net.Conn) {
	defer c.Close()
	up, err := t.dial(ctx)
	if err != nil {
		return
	}
	defer up.Close()
	end := time.Now().Add(3 * checkTime)
	c.SetDeadline(end)
	up.SetDeadline(end)
	stop := context.AfterFunc(ctx, func() { c.Close(); up.Close() })
	defer stop()
	var back sync.WaitGroup
	back.Go(func() { copyAndClose(c, up) })
	copyAndClose(up, c)
	back.Wait()
}

func copyAndClose(to, from net.Conn) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			if w, ok := to.(interface{ CloseWrite() error }); ok {
				w.CloseWrite()
			}
			return
		}
	}
}

// dial connects to the host, by CONNECT when there is a proxy.
func (t *tunnel) dial(ctx context.Context) (net.Conn, error) {
	port := t.to.Port()
	if port == "" {
		port = "443"
	}
	host := net.JoinHostPort(t.to.Hostname(), port)
	d := net.Dialer{Timeout: checkTime}
	if t.proxy == nil {
		return d.DialContext(ctx, "tcp", host)
	}
	c, err := d.DialContext(ctx, "tcp", t.proxy.Host)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(checkTime))
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", host, host)
	if err := readConnect(c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// readConnect reads the answer to a CONNECT and not one byte more: what follows is TLS.
func readConnect(c net.Conn) error {
	var head []byte
	for one := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); {
		if _, err := c.Read(one); err != nil {
			return err
		}
		if head = append(head, one[0]); len(head) > 16<<10 {
			return errors.New("the proxy's answer does not end")
		}
	}
	if line, _, _ := strings.Cut(string(head), "\r\n"); !strings.Contains(line, " 200") {
		return fmt.Errorf("the proxy answered %.80q", line)
	}
	return nil
}
