package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/mitm"
	"github.com/exitgate/exitgate/policy"
	"github.com/exitgate/exitgate/web"
)

// Hosts, classes, grants and exemptions come from files and from the ledger. What stands in files is taken as it is;
// the ledger's is checked against it when it is made. Two gateways can have different files, so that here nothing may
// fail where both meet: the file wins, and the log says so.

// origin is the Source of what stands in the configuration.
func (g *gateway) origin() string { return cmp.Or(g.file, "the starter configuration") }

// fileHosts returns the hosts of the configuration, in the order of their names.
func (g *gateway) fileHosts() []web.Host { return hostsOf(g.settings(), g.origin()) }

func hostsOf(c *Config, source string) (out []web.Host) {
	for _, h := range c.Hosts {
		host := web.Host{Name: string(h.Name), Class: exitgate.Class(h.Class), Origin: web.Origin{Source: source}}
		for _, p := range h.Addresses {
			host.Addresses = append(host.Addresses, web.Range{Prefix: p.value()})
		}
		out = append(out, host)
	}
	slices.SortFunc(out, func(a, b web.Host) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// fileClasses returns the classes of the configuration: those that it lists, and those of the hosts that it lists
// which nobody has made otherwise.
func (g *gateway) fileClasses() (out []web.Class) {
	c := g.settings()
	listed := maps.Clone(c.Classes)
	if listed == nil {
		listed = map[string]ClassEntry{}
	}
	for _, h := range c.Hosts {
		if _, made := g.api.Mirror.Classes.Get(string(h.Class)); !made {
			listed[string(h.Class)] = listed[string(h.Class)]
		}
	}
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		out = append(out, web.Class{Name: exitgate.Class(name), Audit: listed[name].Audit, Origin: web.Origin{Source: g.origin()}})
	}
	return out
}

// fileEntries is what the policy directory held when it was loaded last.
type fileEntries struct {
	grants     []exitgate.Grant
	exemptions []exitgate.Exemption
}

func (g *gateway) fileGrants() []exitgate.Grant         { return g.filed.Load().grants }
func (g *gateway) fileExemptions() []exitgate.Exemption { return g.filed.Load().exemptions }

// noteFiled remembers what the policy has from its directory, and warns of what nobody can use.
func (g *gateway) noteFiled() {
	f := &fileEntries{}
	for _, grant := range g.policy.Grants() {
		if grant.Source != "store" {
			f.grants = append(f.grants, grant)
		}
	}
	for _, x := range g.policy.Exemptions() {
		if x.Source != "store" {
			f.exemptions = append(f.exemptions, x)
		}
	}
	g.filed.Store(f)
}

// warnUnknown tells of grants in files for classes that nobody knows.
func (g *gateway) warnUnknown() {
	for _, grant := range g.fileGrants() {
		if grant.Class == "" {
			continue
		}
		if err := g.api.KnowsClass(grant.Class); err != nil {
			g.log.Warn("a grant is of no use", "grant", grant.ID, "in", grant.Source, "err", err)
		}
	}
}

// load puts in force what the mirror holds of the kinds that have changed. After an error everything is as before.
func (g *gateway) load(ctx context.Context, kinds []string) error {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	c := g.settings()
	if slices.ContainsFunc(kinds, g.policyReads) {
		if err := g.loadPolicy(ctx, c); err != nil {
			return err
		}
	}
	if slices.Contains(kinds, web.KindHost) || slices.Contains(kinds, web.KindClass) {
		return g.loadHosts(c)
	}
	return nil
}

// policyReads reports whether the policy has to be loaded again when something of that kind has changed.
func (g *gateway) policyReads(kind string) bool {
	switch kind {
	case web.KindGrant, web.KindExemption:
		return true
	case web.KindClass:
		return !slices.Equal(g.auditClasses(g.settings()), *g.audited.Load())
	}
	return false
}

// loadPolicy gives the policy what it decides from besides its directory.
func (g *gateway) loadPolicy(ctx context.Context, c *Config) error {
	d := g.data(c)
	if _, err := g.policy.Reload(ctx, d); err != nil {
		return err
	}
	g.audited.Store(&d.AuditClasses)
	g.noteFiled()
	return nil
}

// data is what the policy decides from besides its directory.
func (g *gateway) data(c *Config) policy.Data {
	return policy.Data{
		Grants:       g.leases.Effective(g.api.Mirror.Grants.List()),
		Exemptions:   g.api.Mirror.Exemptions.List(),
		AuditClasses: g.auditClasses(c),
	}
}

// auditClasses returns the classes in audit mode, in order.
func (g *gateway) auditClasses(c *Config) []exitgate.Class {
	out := []exitgate.Class{}
	for name, class := range c.Classes {
		if class.Audit {
			out = append(out, exitgate.Class(name))
		}
	}
	for _, class := range g.api.Mirror.Classes.List() {
		if _, filed := c.Classes[string(class.Name)]; class.Audit && !filed {
			out = append(out, class.Name)
		}
	}
	slices.Sort(out)
	return out
}

// loadHosts gives the engine the hosts that are known, and the metrics the classes.
func (g *gateway) loadHosts(c *Config) error {
	list, lost := registered(c, g.ledgerHosts())
	for _, why := range lost {
		g.log.Error("a host of the store is not as it was registered", "err", why)
	}
	if err := g.hosts.Set(list); err != nil {
		return err
	}
	known := map[exitgate.Class]bool{}
	for _, h := range list {
		known[h.Class] = true
	}
	for name := range c.Classes {
		known[exitgate.Class(name)] = true
	}
	for _, class := range g.api.Mirror.Classes.List() {
		known[class.Name] = true
	}
	g.classes.Store(&known)
	return nil
}

// ledgerHosts returns the hosts of the ledger in the order in which they were written.
func (g *gateway) ledgerHosts() []web.Host {
	list := slices.SortedFunc(maps.Values(g.api.Mirror.Hosts.All()), func(a, b *web.Kept[web.Host]) int {
		return cmp.Compare(a.Version, b.Version)
	})
	out := make([]web.Host, len(list))
	for i, k := range list {
		out[i] = k.Value
	}
	return out
}

// registered is the list of hosts as the engine takes it: the configuration's, and those of the ledger, oldest first,
// without what is taken already. Lost says what that was.
func registered(c *Config, ledger []web.Host) (list []mitm.RegisteredHost, lost []error) {
	names, taken := map[string]bool{}, map[netip.Prefix]string{}
	for _, h := range c.Hosts {
		r := mitm.RegisteredHost{Name: string(h.Name), Class: exitgate.Class(h.Class), Token: h.TokenSHA256.value()}
		for _, p := range h.Addresses {
			r.Addresses = append(r.Addresses, p.value())
			taken[p.value()] = r.Name
		}
		names[r.Name] = true
		list = append(list, r)
	}
	for _, h := range ledger {
		if names[h.Name] {
			lost = append(lost, fmt.Errorf("host %s is in the configuration as well, which holds", h.Name))
			continue
		}
		r := mitm.RegisteredHost{Name: h.Name, Class: h.Class}
		if h.Disabled {
			r.Refused = "it is disabled: " + cmp.Or(h.Reason, "nobody said why")
		}
		for _, p := range h.Addresses {
			if other, ok := taken[p.Prefix]; ok {
				lost = append(lost, fmt.Errorf("host %s does not have %s, which belongs to host %s", h.Name, p, other))
				continue
			}
			taken[p.Prefix] = h.Name
			r.Addresses = append(r.Addresses, p.Prefix)
		}
		list = append(list, r)
	}
	return list, lost
}
