package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/exitgate/exitgate"
)

// An Enrolment is what a host says when it enrols.
type Enrolment struct {
	Token     string     // of a HostToken
	Name      string     // "" when the token says it
	Addresses []Range    // that its connections come from
	From      netip.Addr // where it connects from
}

// maxOwnAddresses bounds the addresses that a host registers itself.
const maxOwnAddresses = 32

// hostWho is who makes the changes that a host makes of itself.
func hostWho(name string) string { return "host:" + name }

// Enrol uses a host token once: it counts the use and registers the host, both or neither, whichever gateways are
// asked at the same time. Mint is called before with who the host is; what it returns is worth nothing when Enrol fails.
// An error says exactly why: a secret of 130 random bits is not guessed, so that there is nobody to be misled.
func (a *Admin) Enrol(ctx context.Context, e Enrolment, mint func(Host) error) (h Host, err error) {
	hash := Digest(e.Token)
	err = a.changing(ctx, func(ctx context.Context) error {
		c := Change{At: a.now().Truncate(time.Second)}
		t, version, err := a.redeemable(hash, e, c.At)
		if err != nil {
			return err
		}
		var edits []Edit
		if h, edits, err = a.enrolled(t, e, c.At); err != nil {
			return err
		}
		if err := mint(h); err != nil {
			return fmt.Errorf("enrol host %s: %w", h.Name, err)
		}
		t.Used++
		value, err := json.Marshal(t)
		if err != nil {
			return err
		}
		edits = append(edits, Edit{Kind: KindHostToken, ID: t.ID, Value: value, If: version})
		c.Who, c.Reason = hostWho(h.Name), enrolReason(t)
		if _, err := a.Mirror.Ledger.Apply(ctx, c, edits...); err != nil {
			return err
		}
		a.log().Info("host enrolled", "host", h.Name, "class", h.Class, "token", t.ID, "from", e.From)
		a.Uses.Seen(KindHost, h.Name, c.At)
		if err := a.Mirror.Sync(ctx); err != nil { // it is registered, and the mirror goes on trying
			a.log().Error("a host that enrolled cannot be loaded yet", "host", h.Name, "err", err)
		}
		return nil
	})
	return h, err
}

func enrolReason(t StoredHostToken) string {
	s := fmt.Sprintf("enrolled with token %s of %s: %s", t.ID, t.By, t.Reason)
	return strings.ToValidUTF8(s[:min(len(s), maxReason)], "")
}

// redeemable returns the token of that digest, if it may be used now.
func (a *Admin) redeemable(hash string, e Enrolment, now time.Time) (t StoredHostToken, version int64, err error) {
	for _, k := range a.Mirror.HostTokens.All() {
		if k.Value.Hash == hash { // digests: the time that this takes tells nothing of a secret
			t, version = k.Value, k.Version
		}
	}
	switch {
	case version == 0:
		err = errors.New("the token is not known: it was removed, or it is not one of this gateway")
	case !now.Before(t.Until):
		err = fmt.Errorf("token %s ended %s; ask for another", t.ID, t.Until.Format(time.RFC3339))
	case t.Used >= t.Uses:
		err = fmt.Errorf("token %s is used up (%d of %d); ask for another", t.ID, t.Used, t.Uses)
	case len(t.Networks) > 0 && !within(t.Networks, e.From):
		err = fmt.Errorf("token %s may not be used from %s, only from %s", t.ID, e.From, rangesText(t.Networks))
	}
	if err != nil {
		return t, 0, Forbidden(fmt.Errorf("enrol: %w", err))
	}
	return t, version, nil
}

func within(list []Range, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(r Range) bool { return r.Contains(a) })
}

func rangesText(list []Range) string {
	words := make([]string, len(list))
	for i, r := range list {
		words[i] = r.String()
	}
	return strings.Join(words, ", ")
}

// enrolled returns the host that a token makes, and the edit that registers it. A host that there is already is only
// enrolled anew by a token that names it: else whoever has a token for a class could become any host of it.
func (a *Admin) enrolled(t StoredHostToken, e Enrolment, now time.Time) (h Host, edits []Edit, err error) {
	name := e.Name
	if name == "" {
		name = t.Host
	}
	switch {
	case name == "":
		return h, nil, Invalid(errors.New("enrol: say under which name"))
	case t.Host != "" && name != t.Host:
		return h, nil, Forbidden(fmt.Errorf("enrol: token %s is for host %s, not %.64q", t.ID, t.Host, name))
	}
	if err := checkHostName(name); err != nil {
		return h, nil, Invalid(fmt.Errorf("enrol: %w", err))
	}
	old, known := a.HostNamed(name)
	switch {
	case known && t.Host == "":
		return h, nil, Conflict(fmt.Errorf("enrol: host %s is registered already; choose another name, or ask for a token that names it (exitgate host token --class %s --host %s)", name, old.Class, name))
	case known && old.Class != t.Class:
		return h, nil, Conflict(fmt.Errorf("enrol: host %s is of class %s, and token %s is for class %s", name, old.Class, t.ID, t.Class))
	case known && old.Disabled:
		return h, nil, Forbidden(fmt.Errorf("enrol: host %s is disabled: %s", name, old.Reason))
	}
	if known && isFile(old.Source) {
		return old, nil, nil // what it is stands in the file
	}
	h = old
	if !known {
		h = Host{Name: name, Class: t.Class, Networks: t.Networks, Origin: Origin{By: hostWho(name)}}
	}
	k, version := a.Mirror.Hosts.All()[name], int64(MustNotExist)
	if k != nil {
		version = k.Version
	}
	if !known { // one that somebody else made stays that one's
		h.At, h.Reason = now, enrolReason(t)
	}
	if err := a.ownAddresses(&h, e); err != nil {
		return h, nil, err
	}
	if err := a.checkHost(&h, hostPointer(old, known)); err != nil {
		return h, nil, asProblem(fmt.Errorf("enrol: %w", err))
	}
	value, err := json.Marshal(h)
	return h, []Edit{{Kind: KindHost, ID: name, Value: value, If: version}}, err
}

func hostPointer(h Host, ok bool) *Host {
	if !ok {
		return nil
	}
	return &h
}

// asProblem makes an error that is no Problem an Invalid.
func asProblem(err error) error {
	if p := new(Problem); errors.As(err, &p) {
		return err
	}
	return Invalid(err)
}

// isFile reports whether an entry of that source stands in a file.
func isFile(source string) bool { return source != "" && source != "store" }

// ownAddresses gives h the addresses that it says of itself. Those that somebody gave it stay as they are.
func (a *Admin) ownAddresses(h *Host, e Enrolment) error {
	if len(h.Addresses) > 0 && !h.OwnAddresses {
		return nil
	}
	if len(e.Addresses) > maxOwnAddresses {
		return Invalid(fmt.Errorf("register host %s: %d addresses; at most %d", h.Name, len(e.Addresses), maxOwnAddresses))
	}
	for _, r := range e.Addresses {
		if err := ownAddress(h, r, e.From); err != nil {
			return Invalid(fmt.Errorf("register host %s: %w", h.Name, err))
		}
	}
	h.Addresses, h.OwnAddresses = e.Addresses, true
	return nil
}

// ownAddress says why a host cannot have an address. A host that claims the gateway's own loopback would be every
// process of the gateway's machine, unless it is on it.
func ownAddress(h *Host, r Range, from netip.Addr) error {
	switch addr := r.Addr(); {
	case !r.IsValid() || !r.IsSingleIP():
		return fmt.Errorf("%s is not a single address", r)
	case addr.IsLoopback() && !from.IsLoopback(), addr.IsUnspecified(), addr.IsMulticast(), addr.IsLinkLocalUnicast():
		return fmt.Errorf("%s is no address that the gateway could know it by", r)
	case len(h.Networks) > 0 && !within(h.Networks, addr):
		return fmt.Errorf("%s is outside of %s, which its token was for", r, rangesText(h.Networks))
	}
	return nil
}

// Standing returns a host that showed its identity certificate, or why it may not do so any more.
func (a *Admin) Standing(name string, class exitgate.Class) (Host, error) {
	h, ok := a.HostNamed(name)
	switch {
	case !ok:
		return h, Forbidden(fmt.Errorf("host %.64q is not registered any more: it has to enrol anew", name))
	case h.Disabled:
		return h, Forbidden(fmt.Errorf("host %s is disabled: %s", name, h.Reason))
	case h.Class != class:
		return h, Forbidden(fmt.Errorf("host %s is of class %s, and its certificate says %s: it has to enrol anew", name, h.Class, class))
	}
	return h, nil
}

// Register takes note of the addresses that a host, which is in good standing, has now.
func (a *Admin) Register(ctx context.Context, h Host, e Enrolment) (Host, error) {
	a.Uses.Seen(KindHost, h.Name, a.now())
	if isFile(h.Source) || sameAddresses(h.Addresses, e.Addresses) {
		return h, nil
	}
	err := a.changing(ctx, func(ctx context.Context) error {
		now, err := a.Standing(h.Name, h.Class)
		if err != nil {
			return err
		}
		k, ok := a.Mirror.Hosts.Get(h.Name)
		if !ok {
			return nil
		}
		if err := a.ownAddresses(&now, e); err != nil {
			return err
		}
		if err := a.checkHost(&now, &k.Value); err != nil {
			return asProblem(fmt.Errorf("register: %w", err))
		}
		if h = now; sameAddresses(now.Addresses, k.Value.Addresses) {
			return nil
		}
		value, err := json.Marshal(h)
		if err != nil {
			return err
		}
		c := Change{At: a.now().Truncate(time.Second), Who: hostWho(h.Name), Reason: "the host registered its addresses"}
		return a.hosts().commit(ctx, c, Edit{Kind: KindHost, ID: h.Name, Value: value, If: k.Version}, &k.Value)
	})
	return h, err
}

func sameAddresses(a, b []Range) bool {
	a, aerr := sortedRanges(a, maxAddresses)
	b, berr := sortedRanges(b, maxAddresses)
	return aerr == nil && berr == nil && slices.Equal(a, b)
}

// Leave takes a host out that enrolled itself. One that somebody else made stays, without the addresses that it
// registered: who made it would make it again.
func (a *Admin) Leave(ctx context.Context, h Host) error {
	return a.changing(ctx, func(ctx context.Context) error {
		k, ok := a.Mirror.Hosts.Get(h.Name)
		if !ok {
			return nil
		}
		edit := Edit{Kind: KindHost, ID: h.Name, If: k.Version}
		if left := k.Value; left.By != hostWho(h.Name) {
			if !left.OwnAddresses {
				return nil
			}
			left.Addresses, left.OwnAddresses = nil, false
			value, err := json.Marshal(left)
			if err != nil {
				return err
			}
			edit.Value = value
		}
		c := Change{At: a.now().Truncate(time.Second), Who: hostWho(h.Name), Reason: "the host left"}
		return a.hosts().commit(ctx, c, edit, &k.Value)
	})
}

// FileFor files a request of a host for itself.
func (a *Admin) FileFor(ctx context.Context, h Host, ask Ask) (Request, bool, error) {
	if ask.Flow != "" {
		if id, err := exitgate.ParseID(ask.Flow); err == nil {
			if f, err := a.Flows.Flow(ctx, id); err != nil || f.Question.Host.Name != h.Name {
				return Request{}, false, NotFound(fmt.Errorf("file a request: host %s has no flow %s", h.Name, id))
			}
		}
		ask = Ask{Flow: ask.Flow, Reason: ask.Reason}
	} else {
		ask.Host, ask.Class = h.Name, ""
	}
	return a.File(ctx, Principal{Who: hostWho(h.Name)}, ask)
}

// RequestOf returns a request that a host filed.
func (a *Admin) RequestOf(h Host, id string) (Request, error) {
	k, ok := a.Mirror.Requests.Get(id)
	if !ok || k.Value.Host != h.Name {
		return Request{}, a.requests().none("read", id)
	}
	return k.Value, nil
}
