package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/web"
)

func inData(c *Config, name string) string { return filepath.Join(c.DataDir, name) }

// serve carries traffic until ctx ends; then it stops accepting, waits for the flows that are open for as long as
// timeouts.drain (or until hurry ends), and closes everything.
func (g *gateway) serve(ctx, hurry context.Context) error {
	defer g.close()
	// The admin listeners outlive the drain, so that readyz says that it is under way.
	sides, stopSides := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSides()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	run := func(what string, f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				stop(fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	wg.Go(func() { tendMemory(ctx) })
	run("the proxy", func() error { return g.proxy.Serve(ctx, g.listenProxy, exitgate.WayProxy) })
	run("the admin API", func() error { return g.api.Serve(sides, g.listenSocket) })
	if g.listenTLSProxy != nil {
		run("the TLS proxy", func() error { return g.proxy.Serve(ctx, g.listenTLSProxy, exitgate.WayTLSProxy) })
	}
	if g.listenEnroll != nil {
		run("the enrolment listener", func() error { return g.serveEnroll(sides) })
	}
	if g.listenPlain != nil {
		run("the plain listener", func() error { return g.servePlain(sides) })
	}
	if g.hostCA != nil {
		wg.Go(func() { g.hostCA.Run(sides) })
		wg.Go(func() { g.recheck(sides) })
	}
	if g.listenAPI != nil {
		run("the remote API", func() error { return g.serveAPI(sides) })
	}
	wg.Go(func() { g.api.Mirror.Run(sides) })
	wg.Go(func() { g.leases.Run(sides, g.reloadLeases, g.log) })
	if g.listenAdmin != nil {
		health := &web.Health{Metrics: g.metrics, Ready: g.ready(ctx), Logger: g.log}
		run("the admin listener", func() error { return health.Serve(sides, g.listenAdmin) })
	}
	<-ctx.Done()
	err := g.drain(hurry)
	stopSides()
	wg.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

// drain waits for the flows that are open.
func (g *gateway) drain(hurry context.Context) error {
	g.listenProxy.Close()
	limit := g.settings().Timeouts.Drain.value()
	if n := g.proxy.Connections(); n > 0 {
		g.log.Info("draining: no new connections, open flows go on", "connections", n, "at_most", limit)
	}
	ctx, cancel := context.WithTimeout(hurry, limit)
	defer cancel()
	if err := g.proxy.Shutdown(ctx); err != nil {
		g.log.Warn("flows were cut that were still open", "err", err)
	}
	return nil
}

// reload loads configuration and policy again. After an error everything is as before.
func (g *gateway) reload(ctx context.Context) error {
	if err := g.api.Mirror.Sync(ctx); err != nil { // what is in memory is loaded
		g.log.Warn("the reload goes without what was changed last", "err", err)
	}
	g.reloading.Lock()
	defer g.reloading.Unlock()
	err := g.reloadLocked(ctx)
	g.metrics.Reloaded(time.Now(), err)
	if err != nil {
		what := err.Error()
		g.failed.Store(&what)
		g.log.Error("the reload failed; what was loaded before stays in force", "err", err)
		return fmt.Errorf("reload: %w; what was loaded before stays in force", err)
	}
	g.failed.Store(nil)
	g.log.Info("reloaded", "revision", g.policy.Revision())
	return nil
}

func (g *gateway) reloadLocked(ctx context.Context) error {
	next := g.settings()
	if g.file != "" {
		c, err := readConfig(g.file)
		if err != nil {
			return err
		}
		next = c.reloaded(next, func(key string) {
			g.log.Warn("a change of this key needs a restart; the old value stays in force", "key", key)
		})
	}
	// What can fail comes first; the list of hosts was checked with the file.
	if _, lost := registered(next, g.ledgerHosts()); len(lost) > 0 {
		return fmt.Errorf("%s: %w; change it there, or remove the host (exitgate host rm)", g.origin(), lost[0])
	}
	if err := g.issuer.SetIntercept(next.CA.NeverIntercept, next.CA.OnlyIntercept); err != nil {
		return err
	}
	if err := g.loadPolicy(ctx, next); err != nil {
		was := g.settings().CA
		return errors.Join(err, g.issuer.SetIntercept(was.NeverIntercept, was.OnlyIntercept))
	}
	if err := g.loadHosts(next); err != nil {
		return err
	}
	g.config.Store(next)
	g.warnUnknown()
	return nil
}

// reloadLeases gives the policy the grants again, since some end later than it was told.
func (g *gateway) reloadLeases(ctx context.Context) error {
	return g.load(ctx, []string{web.KindGrant})
}

// reloaded returns old with the keys of c that may change while the gateway runs, and names the others that differ.
func (c *Config) reloaded(old *Config, restart func(key string)) *Config {
	for _, k := range []struct {
		name     string
		old, now any
	}{
		{"data_dir", old.DataDir, c.DataDir}, {"gateway", old.Gateway, c.Gateway}, {"listen", old.Listen, c.Listen},
		{"policy", old.Policy, c.Policy}, {"store", old.Store, c.Store}, {"store.url_file", old.loaded.storeURL, c.loaded.storeURL},
		{"journal", old.Journal, c.Journal}, {"upstream", old.Upstream, c.Upstream},
		{"limits", old.Limits, c.Limits}, {"timeouts", old.Timeouts, c.Timeouts}, {"redact", old.Redact, c.Redact}, {"public_name", old.PublicName, c.PublicName}, {"identity", old.Identity, c.Identity},
		{"ca.root_key", old.CA.RootKey, c.CA.RootKey}, {"ca.issuer_key", old.CA.IssuerKey, c.CA.IssuerKey},
		{"ca.root_passphrase", old.CA.RootPassphrase, c.CA.RootPassphrase}, {"ca.issuer_passphrase", old.CA.IssuerPassphrase, c.CA.IssuerPassphrase},
		{"refuse_connect", old.RefuseConnect, c.RefuseConnect}, {"log", old.Log, c.Log},
	} {
		was, werr := yaml.Marshal(k.old)
		is, ierr := yaml.Marshal(k.now)
		if werr != nil || ierr != nil || !bytes.Equal(was, is) {
			restart(k.name)
		}
	}
	next := *old
	next.Hosts, next.Classes, next.API = c.Hosts, c.Classes, c.API
	next.CA.NeverIntercept, next.CA.OnlyIntercept = c.CA.NeverIntercept, c.CA.OnlyIntercept
	next.loaded.apiCertificate = c.loaded.apiCertificate
	return &next
}

// ready returns the checks of readyz. Serving ends when the gateway begins to drain.
func (g *gateway) ready(serving context.Context) func(context.Context) []web.Check {
	return func(ctx context.Context) []web.Check {
		draining := ""
		if serving.Err() != nil {
			draining = "the gateway is draining: it accepts no new connections"
		}
		return append([]web.Check{{Name: "accepting", Wrong: draining}}, g.checks(ctx)...)
	}
}

// checks says what is wrong with the parts.
func (g *gateway) checks(ctx context.Context) []web.Check {
	var record, issuer string
	js := g.journal.Stats()
	if js.Bytes >= js.MaxBytes {
		record = fmt.Sprintf("the journal holds %d of %d bytes, so nothing is carried until the store takes them", js.Bytes, js.MaxBytes)
	} else if err := g.store.Ping(ctx); err != nil && js.MaxBytes-js.Bytes < js.MaxBytes/10 {
		record = fmt.Sprintf("the store does not answer, and the journal is nearly full: %v", err)
	}
	if left := time.Until(g.issuer.IssuerNotAfter()); left <= 0 {
		issuer = "the issuer of leaves has expired"
	}
	return []web.Check{{Name: "record", Wrong: record}, {Name: "policy", Wrong: cmp.Or(g.policyState(), "")}, {Name: "ca", Wrong: issuer}}
}

// policyState is always good once the gateway runs: a start without a policy fails, and a reload that fails keeps the
// last good one, which status and the metrics tell.
func (g *gateway) policyState() string {
	if g.policy.Revision() == "" {
		return "no policy is loaded"
	}
	return ""
}

// status answers the admin API.
func (g *gateway) status(ctx context.Context) web.Status {
	c, failed := g.settings(), ""
	if p := g.failed.Load(); p != nil {
		failed = *p
	}
	js := g.journal.Stats()
	s := web.Status{
		Version: build().Version, Gateway: c.Gateway, PID: os.Getpid(), Since: g.since, Data: c.DataDir, Config: g.file,
		Connections: g.proxy.Connections(), Hosts: len(g.api.AllHosts()), Revision: g.policy.Revision(), Reload: failed,
		Root: g.issuer.RootFile(), Fingerprint: g.issuer.Fingerprint(),
		Journal: web.JournalState{Bytes: js.Bytes, MaxBytes: js.MaxBytes}, Checks: g.checks(ctx),
	}
	s.Listen = []string{"proxy " + g.listenProxy.Addr().String(), "socket " + adminSocket(c.DataDir)}
	if g.listenAdmin != nil {
		s.Listen = slices.Insert(s.Listen, 1, "admin "+g.listenAdmin.Addr().String())
	}
	for _, l := range []struct {
		name string
		l    net.Listener
	}{{"tls-proxy", g.listenTLSProxy}, {"enroll", g.listenEnroll}, {"plain", g.listenPlain}, {"api", g.listenAPI}} {
		if l.l != nil {
			s.Listen = append(s.Listen, l.name+" "+l.l.Addr().String())
		}
	}
	s.Grants, s.Exemptions = len(g.policy.Grants()), len(g.policy.Exemptions())
	return s
}
