package web

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/exitgate/exitgate"
)

// What is particular about each kind of entry.

func (o *Origin) pointers() origin { return origin{&o.Reason, &o.By, &o.Source, &o.At} }

func (a *Admin) classes() resource[Class] {
	return resource[Class]{
		a: a, kind: KindClass, noun: "class", shelf: &a.Mirror.Classes, files: a.Files.Classes,
		named:   func(c *Class) *string { return (*string)(&c.Name) },
		origin:  func(c *Class) origin { return c.Origin.pointers() },
		touches: func(c *Class) []exitgate.Class { return []exitgate.Class{c.Name} },
		check:   func(c, old *Class, _ Change) error { return a.checkClass(c, old) },
		removal: a.classIsFree,
	}
}

func (a *Admin) checkClass(c, old *Class) error {
	if c.Name == exitgate.ClassUnknown {
		return errors.New("unknown is what hosts are that nobody registered; it cannot be made")
	}
	if other := a.otherCase(string(c.Name), a.classNames()); old == nil && other != "" {
		return Conflict(fmt.Errorf("class %s: there is %s, which differs only in its case", c.Name, other))
	}
	if err := checkText(c.Description, maxReason); err != nil {
		return fmt.Errorf("the description: %w", err)
	}
	return nil
}

// otherCase returns the one of names that is s but for the case of its letters.
func (a *Admin) otherCase(s string, names []string) string {
	i := slices.IndexFunc(names, func(n string) bool { return n != s && strings.EqualFold(n, s) })
	if i < 0 {
		return ""
	}
	return names[i]
}

// classIsFree says what still needs a class.
func (a *Admin) classIsFree(c *Class) error {
	var needed []string
	add := func(n int, what string) {
		if n > 0 {
			needed = append(needed, fmt.Sprintf("%d %s", n, what))
		}
	}
	hosts, tokens, grants, exemptions := 0, 0, 0, 0
	for _, h := range a.AllHosts() {
		hosts += one(h.Class == c.Name)
	}
	for _, t := range a.Mirror.HostTokens.List() {
		tokens += one(t.Class == c.Name && a.now().Before(t.Until))
	}
	for _, g := range a.Mirror.Grants.List() {
		grants += one(g.Class == c.Name)
	}
	for _, x := range a.Mirror.Exemptions.List() {
		exemptions += one(x.Class == c.Name)
	}
	add(hosts, "hosts")
	add(tokens, "host tokens")
	add(grants, "grants")
	add(exemptions, "exemptions")
	if len(needed) > 0 {
		return fmt.Errorf("it has %s; remove them first", strings.Join(needed, ", "))
	}
	return nil
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// classNames returns every class that is known: those of files, of the hosts in files, and of the ledger.
func (a *Admin) classNames() []string {
	seen := map[string]bool{}
	for _, c := range a.classes().all() {
		seen[string(c.Name)] = true
	}
	if a.Files.Hosts != nil {
		for _, h := range a.Files.Hosts() {
			seen[string(h.Class)] = true
		}
	}
	out := make([]string, 0, len(seen))
	for name := range seen {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// KnowsClass returns an error that names the nearest class when nobody knows c.
func (a *Admin) KnowsClass(c exitgate.Class) error {
	names := a.classNames()
	if slices.Contains(names, string(c)) {
		return nil
	}
	if near := Nearest(string(c), names); near != "" {
		return fmt.Errorf("class %.64q is not known; did you mean %s?", c, near)
	}
	return fmt.Errorf("class %.64q is not known; make it first (exitgate class add, or PUT /v1/classes/NAME)", c)
}

func (a *Admin) hosts() resource[Host] {
	return resource[Host]{
		a: a, kind: KindHost, noun: "host", shelf: &a.Mirror.Hosts, files: a.Files.Hosts,
		named:   func(h *Host) *string { return &h.Name },
		origin:  func(h *Host) origin { return h.Origin.pointers() },
		touches: func(h *Host) []exitgate.Class { return []exitgate.Class{h.Class} },
		wire:    a.hostView,
		complete: func(h, old *Host, _ Change) string {
			h.Seen, h.Identity, h.Trust = time.Time{}, nil, nil
			own := old != nil && old.OwnAddresses
			if own && len(h.Addresses) == 0 {
				h.Addresses = old.Addresses
			}
			h.OwnAddresses = own && sameAddresses(h.Addresses, old.Addresses)
			return ""
		},
		check:   func(h, old *Host, _ Change) error { return a.checkHost(h, old) },
		matches: func(h *Host, q url.Values) bool { return match(q, "class", string(h.Class)) },
		won:     a.holdsAddresses,
	}
}

// match reports whether a list that is asked with ?key= has what is of that value.
func match(q url.Values, key, value string) bool { return !q.Has(key) || q.Get(key) == value }

// hostView adds what the gateways have seen of a host.
func (a *Admin) hostView(h *Host) any {
	n := a.Identities.of(h.Name)
	h.Seen, h.Identity, h.Trust = a.Uses.of(KindHost, h.Name).Last, n.Identity, n.Trust
	if h.Addresses == nil {
		h.Addresses = []Range{}
	}
	return h
}

// maxAddresses bounds the addresses of one host.
const maxAddresses = 1000

func (a *Admin) checkHost(h, old *Host) error {
	if h.Class == exitgate.ClassUnknown || h.Class == "" {
		return errors.New("it needs a class: what it was provisioned as")
	}
	if err := a.KnowsClass(h.Class); err != nil {
		return err
	}
	if old == nil {
		var names []string
		for _, other := range a.AllHosts() {
			names = append(names, other.Name)
		}
		if other := a.otherCase(h.Name, names); other != "" {
			return Conflict(fmt.Errorf("host %s: there is %s, which differs only in its case", h.Name, other))
		}
	}
	var err error
	if h.Addresses, err = sortedRanges(h.Addresses, maxAddresses); err != nil {
		return err
	}
	if h.Networks, err = sortedRanges(h.Networks, maxAddresses); err != nil {
		return err
	}
	if len(h.Networks) == 0 {
		h.Networks = nil
	}
	return a.addressesAreFree(h)
}

// sortedRanges brings ranges into their one form.
func sortedRanges(list []Range, most int) ([]Range, error) {
	if len(list) > most {
		return nil, fmt.Errorf("%d addresses; at most %d", len(list), most)
	}
	out := append([]Range{}, list...)
	for _, r := range out {
		if !r.IsValid() {
			return nil, errors.New("an address is empty")
		}
	}
	slices.SortFunc(out, func(a, b Range) int { return cmp.Or(a.Addr().Compare(b.Addr()), a.Bits()-b.Bits()) })
	return slices.Compact(out), nil
}

// addressesAreFree says which address of h is another host's.
func (a *Admin) addressesAreFree(h *Host) error {
	taken := map[Range]*Host{}
	all := a.AllHosts()
	for i := range all {
		if all[i].Name == h.Name {
			continue
		}
		for _, r := range all[i].Addresses {
			taken[r] = &all[i]
		}
	}
	for _, r := range h.Addresses {
		if other := taken[r]; other != nil {
			where := ""
			if other.Source != "" && other.Source != "store" {
				where = " (" + other.Source + ")"
			}
			return Conflict(fmt.Errorf("host %s: %s belongs to host %s already%s", h.Name, r, other.Name, where))
		}
	}
	return nil
}

// holdsAddresses is addressesAreFree for a host that was written while another gateway wrote: the first to be
// written holds.
func (a *Admin) holdsAddresses(h *Host) error {
	mine, ok := a.Mirror.Hosts.Get(h.Name)
	if !ok {
		return nil
	}
	for name, other := range a.Mirror.Hosts.All() {
		if name == h.Name || other.Version > mine.Version {
			continue
		}
		for _, r := range other.Value.Addresses {
			if slices.Contains(h.Addresses, r) {
				return fmt.Errorf("%s belongs to host %s, which was registered at the same time", r, name)
			}
		}
	}
	return nil
}

// AllHosts returns every host that is known, in the order of their names. A host that stands in a file takes the
// place of one of the same name in the ledger.
func (a *Admin) AllHosts() []Host { return a.hosts().all() }

// Bounds of tokens.
const (
	maxUses       = 100_000
	maxTokenLife  = 366 * 24 * time.Hour
	hostTokenLife = 24 * time.Hour
	apiTokenLife  = 90 * 24 * time.Hour
)

func (a *Admin) hostTokens() resource[StoredHostToken] {
	return resource[StoredHostToken]{
		a: a, kind: KindHostToken, noun: "host token", shelf: &a.Mirror.HostTokens, prefix: "t",
		named:   func(t *StoredHostToken) *string { return &t.ID },
		origin:  func(t *StoredHostToken) origin { return t.Origin.pointers() },
		wire:    func(t *StoredHostToken) any { return &t.HostToken },
		touches: func(t *StoredHostToken) []exitgate.Class { return []exitgate.Class{t.Class} },
		matches: func(t *StoredHostToken, q url.Values) bool {
			return match(q, "class", string(t.Class)) && match(q, "host", t.Host)
		},
		complete: func(t, old *StoredHostToken, c Change) (secret string) {
			t.Secret, t.Used, t.Uses = "", 0, cmp.Or(t.Uses, 1)
			until := c.At.Add(hostTokenLife)
			if old != nil {
				t.Hash, t.Used, until = old.Hash, old.Used, old.Until
			} else {
				secret, t.Hash = newSecret(hostTokenPrefix)
			}
			if t.Until.IsZero() {
				t.Until = until
			}
			return secret
		},
		check: func(t, old *StoredHostToken, c Change) error { return a.checkHostToken(t, c) },
	}
}

func (a *Admin) checkHostToken(t *StoredHostToken, c Change) error {
	if err := a.KnowsClass(t.Class); err != nil {
		return err
	}
	if t.Host != "" {
		if err := checkHostName(t.Host); err != nil {
			return err
		}
		if h, ok := a.HostNamed(t.Host); ok && h.Class != t.Class {
			return Conflict(fmt.Errorf("host %s is of class %s, and the token is for class %s", t.Host, h.Class, t.Class))
		}
	}
	if t.Uses < 1 || t.Uses > maxUses {
		return fmt.Errorf("uses %d: it is a number from 1 to %d", t.Uses, maxUses)
	}
	var err error
	if t.Networks, err = sortedRanges(t.Networks, 100); err != nil {
		return err
	}
	return checkUntil(&t.Until, c.At)
}

// checkHostName says what is wrong with a name that a host enrols under: it becomes a DNS name in its certificate.
func checkHostName(s string) error {
	if err := checkName(s); err != nil {
		return fmt.Errorf("host %w", err)
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz"+digits+"-") != "" || label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("host %q: a host that enrols has a name of lower-case letters, digits, dashes and dots, as in DNS", s)
		}
	}
	return nil
}

func checkUntil(until *time.Time, now time.Time) error {
	*until = until.UTC().Truncate(time.Second)
	switch {
	case !until.After(now):
		return fmt.Errorf("until %s: it has passed", until.Format(time.RFC3339))
	case until.After(now.Add(maxTokenLife)):
		return fmt.Errorf("until %s: a token lives a year at most", until.Format(time.RFC3339))
	}
	return nil
}

func (a *Admin) apiTokens() resource[StoredAPIToken] {
	return resource[StoredAPIToken]{
		a: a, kind: KindAPIToken, noun: "API token", shelf: &a.Mirror.APITokens, prefix: "k",
		named:  func(t *StoredAPIToken) *string { return &t.ID },
		origin: func(t *StoredAPIToken) origin { return t.Origin.pointers() },
		wire: func(t *StoredAPIToken) any {
			t.Used = a.Uses.of(KindAPIToken, t.ID).Last
			return &t.APIToken
		},
		complete: func(t, old *StoredAPIToken, c Change) (secret string) {
			t.Secret, t.Used = "", time.Time{}
			until := c.At.Add(apiTokenLife)
			if old != nil {
				t.Hash, until = old.Hash, old.Until
			} else {
				secret, t.Hash = newSecret(apiTokenPrefix)
			}
			if t.Until.IsZero() {
				t.Until = until
			}
			return secret
		},
		check: func(t, _ *StoredAPIToken, c Change) error { return a.checkAPIToken(t, c) },
	}
}

func (a *Admin) checkAPIToken(t *StoredAPIToken, c Change) error {
	if err := checkName(t.Name); err != nil {
		return fmt.Errorf("its name: %w", err)
	}
	for _, other := range a.Mirror.APITokens.List() {
		if other.ID != t.ID && strings.EqualFold(other.Name, t.Name) {
			return Conflict(fmt.Errorf("the name %s is taken by API token %s: changes are told apart by it", t.Name, other.ID))
		}
	}
	if err := t.Role.check(); err != nil {
		return err
	}
	if len(t.Classes) > 0 && t.Role != RoleProvisioner && t.Role != RoleEditor {
		return fmt.Errorf("classes bound what a provisioner or an editor may change; the role %s is not bound by them", t.Role)
	}
	t.Classes = slices.Compact(slices.Sorted(slices.Values(t.Classes)))
	if t.Classes == nil {
		t.Classes = []exitgate.Class{}
	}
	for _, class := range t.Classes {
		if err := a.KnowsClass(class); err != nil {
			return err
		}
	}
	return checkUntil(&t.Until, c.At)
}

func (a *Admin) grants() resource[exitgate.Grant] {
	return resource[exitgate.Grant]{
		a: a, kind: KindGrant, noun: "grant", shelf: &a.Mirror.Grants, files: a.Files.Grants, prefix: "g",
		named:  func(g *exitgate.Grant) *string { return &g.ID },
		origin: func(g *exitgate.Grant) origin { return origin{&g.Reason, &g.By, &g.Source, &g.At} },
		touches: func(g *exitgate.Grant) []exitgate.Class {
			return []exitgate.Class{a.classOf(g.Class, g.Host)}
		},
		matches: func(g *exitgate.Grant, q url.Values) bool {
			return match(q, "class", string(g.Class)) && match(q, "host", g.Host)
		},
		check: func(g, _ *exitgate.Grant, c Change) error {
			return cmp.Or(a.CheckGrant(g, c.At), a.checkSubject(g.Class))
		},
	}
}

func (a *Admin) exemptions() resource[exitgate.Exemption] {
	return resource[exitgate.Exemption]{
		a: a, kind: KindExemption, noun: "exemption", shelf: &a.Mirror.Exemptions, files: a.Files.Exemptions, prefix: "x",
		named:  func(x *exitgate.Exemption) *string { return &x.ID },
		origin: func(x *exitgate.Exemption) origin { return origin{&x.Reason, &x.By, &x.Source, &x.At} },
		touches: func(x *exitgate.Exemption) []exitgate.Class {
			return []exitgate.Class{a.classOf(x.Class, x.Host)}
		},
		matches: func(x *exitgate.Exemption, q url.Values) bool {
			return match(q, "class", string(x.Class)) && match(q, "host", x.Host)
		},
		check: func(x, _ *exitgate.Exemption, c Change) error {
			return cmp.Or(a.CheckExemption(x, c.At), a.checkSubject(x.Class))
		},
	}
}

func (a *Admin) checkSubject(c exitgate.Class) error {
	if c == "" {
		return nil // a host may be granted something before it enrols
	}
	return a.KnowsClass(c)
}

// classOf returns the class that a grant is about: of a host that is not known, none.
func (a *Admin) classOf(c exitgate.Class, host string) exitgate.Class {
	if c != "" || host == "" {
		return c
	}
	h, _ := a.HostNamed(host)
	return h.Class
}

// HostNamed returns the host of that name.
func (a *Admin) HostNamed(name string) (Host, bool) {
	s := a.hosts()
	if h, ok := s.fromFile(name); ok {
		return h, true
	}
	if k, ok := s.shelf.Get(name); ok {
		return k.Value, true
	}
	return Host{}, false
}
