package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/ca"
	"github.com/exitgate/exitgate/ca/authority"
	"github.com/exitgate/exitgate/cmd/internal/pipeline"
	"github.com/exitgate/exitgate/inspect"
	"github.com/exitgate/exitgate/mitm"
	"github.com/exitgate/exitgate/policy"
	"github.com/exitgate/exitgate/storage"
	"github.com/exitgate/exitgate/storage/journal"
	"github.com/exitgate/exitgate/storage/postgres"
	"github.com/exitgate/exitgate/storage/sqlite"
	"github.com/exitgate/exitgate/web"
)

// A gateway is every part, joined.
type gateway struct {
	file  string // of the configuration; "" none
	log   *slog.Logger
	since time.Time

	lock    *os.File
	issuer  *ca.Issuer
	hostCA  *authority.Authority // of hosts' identities; nil where no listener needs it
	store   storage.Store
	journal *journal.Journal
	policy  *policy.Engine
	hosts   mitm.Hosts
	proxy   mitm.Proxy
	metrics *web.Metrics

	api        *web.Admin
	uses       *web.Uses
	leases     *web.Leases
	identities *web.Identities

	listenProxy, listenTLSProxy, listenEnroll, listenPlain, listenAdmin, listenAPI, listenSocket net.Listener

	closers []func() // undo what was opened, last first

	reloading sync.Mutex // held for a whole reload, or change of the policy's data: one at a time
	config    atomic.Pointer[Config]
	classes   atomic.Pointer[map[exitgate.Class]bool] // that are known
	audited   atomic.Pointer[[]exitgate.Class]        // in audit mode, as the policy was told
	filed     atomic.Pointer[fileEntries]             // what stands in the policy directory
	failed    atomic.Pointer[string]                  // what is wrong with the last reload; nil nothing
}

// settings returns the configuration in force, which is never changed, only replaced.
func (g *gateway) settings() *Config { return g.config.Load() }

// openGateway opens every part in the order in which they need each other. After an error nothing stays open.
func openGateway(ctx context.Context, c *Config, file string, log *slog.Logger) (*gateway, error) {
	g := &gateway{file: file, log: log, since: time.Now().UTC()}
	g.config.Store(c)
	for _, step := range []func(context.Context) error{
		g.listen, g.openData, g.openStore, g.openAPI, g.openIdentity, g.openPolicy, g.openIssuer, g.openMetrics, g.openEngine,
	} {
		if err := step(ctx); err != nil {
			g.close()
			return nil, err
		}
	}
	return g, nil
}

// close closes what is open, last first. The engine must have been shut down.
func (g *gateway) close() {
	for i := len(g.closers) - 1; i >= 0; i-- {
		g.closers[i]()
	}
	g.closers = nil
}

func (g *gateway) onClose(f func()) { g.closers = append(g.closers, f) }

// listen comes first, so that a port that is taken stops the start before anything is written. Multipath TCP stays
// off: the engine's splicing and address checks are for plain TCP.
func (g *gateway) listen(ctx context.Context) error {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	for _, l := range []struct {
		key  string
		addr HostPort
		to   *net.Listener
	}{
		{"listen.proxy", g.settings().Listen.Proxy, &g.listenProxy},
		{"listen.tls_proxy", g.settings().Listen.TLSProxy, &g.listenTLSProxy},
		{"listen.enroll", g.settings().Listen.Enroll, &g.listenEnroll},
		{"listen.plain", g.settings().Listen.Plain, &g.listenPlain},
		{"listen.admin", g.settings().Listen.Admin, &g.listenAdmin},
		{"listen.api", g.settings().Listen.API, &g.listenAPI},
	} {
		if l.addr == "off" {
			continue
		}
		ln, err := lc.Listen(ctx, "tcp", string(l.addr))
		if err != nil {
			return fmt.Errorf("%s: %w", l.key, err)
		}
		*l.to = ln
		g.onClose(func() { ln.Close() })
	}
	return nil
}

func (g *gateway) openData(context.Context) (err error) {
	if g.lock, err = openData(g.settings().DataDir); err != nil {
		return err
	}
	g.onClose(func() { g.lock.Close() })
	// Whoever left a socket behind is dead: the lock says so.
	socket := adminSocket(g.settings().DataDir)
	os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("open the admin socket: %w", err)
	}
	g.onClose(func() { l.Close() }) // which removes it
	if err := os.Chmod(socket, 0o600); err != nil {
		return fmt.Errorf("open the admin socket: %w", err)
	}
	g.listenSocket = l
	return nil
}

func (g *gateway) openIssuer(context.Context) error {
	o, err := caOptions(g.settings())
	if err != nil {
		return err
	}
	o.Logger = g.log
	if g.issuer, err = ca.Open(o); err != nil {
		return err
	}
	g.api.CA = caAPI{g.issuer, g.log}
	return nil
}

func (g *gateway) openStore(ctx context.Context) error {
	var err error
	where := g.settings().storeURL()
	if path, ok := strings.CutPrefix(where, "sqlite:"); ok {
		g.store, err = sqlite.Open(ctx, path)
	} else {
		open, cancel := context.WithTimeout(ctx, 15*time.Second)
		defer cancel()
		g.store, err = postgres.Open(open, where, postgres.Options{})
	}
	if err != nil {
		return oneLine{err}
	}
	g.onClose(func() { g.warn("close the store", g.store.Close()) })
	g.journal, err = journal.Open(ctx, g.settings().Journal.Dir, g.store, journal.Options{
		MaxBytes: g.settings().Journal.MaxBytes.value(),
		Sync:     g.settings().Journal.Sync == "disk",
		Log:      g.log,
	})
	if err != nil {
		return err
	}
	g.onClose(g.closeJournal)
	return nil
}

// oneLine is an error whose cause says it in several lines.
type oneLine struct{ error }

func (e oneLine) Error() string { return strings.Join(strings.Fields(e.error.Error()), " ") }
func (e oneLine) Unwrap() error { return e.error }

// closeJournal gives the journal a moment to hand all it has to the store; what it cannot stays on disk.
func (g *gateway) closeJournal() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	g.warn("close the journal", g.journal.Close(ctx))
}

func (g *gateway) warn(what string, err error) {
	if err != nil {
		g.log.Warn(what+" failed", "err", err)
	}
}

func (g *gateway) openPolicy(ctx context.Context) error {
	dir := g.settings().Policy.Dir
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) && dir == inData(g.settings(), "policy") {
		if err := policy.WriteExample(dir); err != nil {
			return err
		}
	}
	c, err := g.settings(), error(nil)
	d := g.data(c)
	if g.policy, err = policy.New(ctx, policy.Options{Dir: dir, Logger: g.log, Revisions: keptRevisions(g.settings().DataDir)}, d); err != nil {
		return err
	}
	g.audited.Store(&d.AuditClasses)
	g.noteFiled()
	g.warnUnknown()
	if g.listenAPI != nil {
		if _, err := g.apiCertificate(&tls.ClientHelloInfo{}); err != nil {
			return err
		}
	}
	return g.loadHosts(c)
}

func (g *gateway) openEngine(context.Context) error {
	c := g.settings()
	key, err := fingerprintKey(c.DataDir)
	if err != nil {
		return err
	}
	secrets := inspect.NewRedactor(key, inspect.Secrets{Headers: c.Redact.Headers, Query: c.Redact.QueryKeys})
	p := &g.proxy
	p.Gateway = c.Gateway
	p.Decider, p.Issuer, p.Identify = g.policy, g.issuer, &g.hosts
	p.Recorder = web.Logged(g.log, g.uses.Recorder(g.metrics.Recorder(g.journal)))
	p.Sniff = inspect.Sniff
	if p.TLSProxy, err = g.tlsProxy(); err != nil {
		return err
	}
	p.NewScreen = func() mitm.Screen {
		return inspect.NewScreen(inspect.ScreenLimits{Head: int(c.Limits.HeaderBytes.value())})
	}
	pipeline.Set(p, pipeline.Options{Redact: secrets, RequestBody: c.Limits.RequestBody.value(), ResponseBody: c.Limits.ResponseBody.value()})
	for _, allow := range c.Upstream.Allow {
		p.Guard.Allow = append(p.Guard.Allow, allow.value())
	}
	if len(c.Upstream.ConnectTo) > 0 {
		p.Resolver = newConnectTo(c)
	}
	p.Limits, p.Timeouts, p.Logger = engineLimits(c), engineTimeouts(c), g.log
	p.Refusals = mitm.RefusalText{Command: g.command(), Connect: map[RefuseConnect]mitm.ConnectRefusal{
		"auto": mitm.RefuseAuto, "inside": mitm.RefuseInside, "outside": mitm.RefuseOutside}[c.RefuseConnect]}
	if p.Upstream, err = g.upstream(); err != nil {
		return err
	}
	return p.Start()
}

// command is how people on this machine call exitgate for this gateway. A starter that was built and not installed
// is called by its path; what other machines are told names no paths of this one but a data directory that they need.
func (g *gateway) command() []string {
	command := []string{"exitgate"}
	if self, err := os.Executable(); err == nil && g.file == "" {
		if found, err := exec.LookPath("exitgate"); err != nil || !sameFile(found, self) {
			command[0] = self
		}
	}
	if dir := g.settings().DataDir; dir != defaultData() {
		command = append(command, "--data", dir)
	}
	return command
}

func sameFile(a, b string) bool {
	x, xerr := os.Stat(a)
	y, yerr := os.Stat(b)
	return xerr == nil && yerr == nil && os.SameFile(x, y)
}

func (g *gateway) upstream() (u mitm.Upstream, err error) {
	c := g.settings().Upstream
	u = mitm.Upstream{
		IsOwn:              g.issuer.IsOwn,
		ClientCertificates: g.settings().loaded.certificates,
		NoProxy:            c.NoProxy,
		DisableHTTP2:       c.DisableHTTP2,
		DisableMLKEM:       c.DisableMLKEM,
	}
	if c.Proxy != "" {
		if u.Proxy, err = url.Parse(string(c.Proxy)); err != nil {
			return u, errors.New("upstream.proxy: it cannot be read as a URL")
		}
	}
	if len(g.settings().loaded.roots) == 0 {
		return u, nil
	}
	if u.Roots, err = x509.SystemCertPool(); err != nil {
		return u, fmt.Errorf("read the system's CA certificates: %w", err)
	}
	for _, pem := range g.settings().loaded.roots {
		u.Roots.AppendCertsFromPEM(pem)
	}
	return u, nil
}

func engineLimits(c *Config) mitm.Limits {
	return mitm.Limits{
		Connections:        c.Limits.Connections.value(),
		ConnectionsPerHost: c.Limits.ConnectionsPerHost.value(),
		Streams:            c.Limits.Streams.value(),
		HeaderBytes:        int(c.Limits.HeaderBytes.value()),
		SpliceBytes:        c.Limits.SpliceBytes.value(),
	}
}

func engineTimeouts(c *Config) mitm.Timeouts {
	t := c.Timeouts
	return mitm.Timeouts{
		FirstBytes: t.FirstBytes.value(), Handshake: t.Handshake.value(), RequestHeader: t.RequestHeader.value(),
		Idle: t.Idle.value(), Resolve: t.Resolve.value(), Connect: t.Connect.value(), UpstreamTLS: t.UpstreamTLS.value(),
		ResponseHeader: t.ResponseHeader.value(), BodyIdle: t.BodyIdle.value(), StreamIdle: t.StreamIdle.value(), SpliceIdle: t.SpliceIdle.value(),
	}
}

// connectTo resolves the destinations that the configuration sends elsewhere, and all others as the system does.
type connectTo map[string]netip.AddrPort

func newConnectTo(c *Config) connectTo {
	r := connectTo{}
	for target, addr := range c.Upstream.ConnectTo {
		r[strings.ToLower(target)] = addr.value()
	}
	return r
}

// Resolve implements mitm.Resolver.
func (r connectTo) Resolve(ctx context.Context, host string, port uint16) ([]netip.AddrPort, error) {
	d := exitgate.Destination{Host: host, Port: port}
	if addr, ok := r[d.String()]; ok {
		return []netip.AddrPort{addr}, nil
	}
	if a, ok := d.IP(); ok {
		return []netip.AddrPort{netip.AddrPortFrom(a, port)}, nil
	}
	return mitm.SystemResolver{}.Resolve(ctx, host, port)
}
