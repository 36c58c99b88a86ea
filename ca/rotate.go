package ca

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"go.step.sm/crypto/keyutil"
)

// A Phase says where a rotation of the root stands.
type Phase string

// The phases, in the order in which they follow one another.
const (
	Steady  Phase = "steady"  // there is one root
	Overlap Phase = "overlap" // hosts should trust the next root too; leaves still chain to the old one
	Leaving Phase = "leaving" // leaves chain to the new root; hosts may still trust the old one
)

// A StateError says that a step of a rotation does not fit what the folder holds, and which one does.
type StateError struct{ reason string }

func (e *StateError) Error() string { return e.reason }

func notNow(format string, args ...any) error {
	return &StateError{fmt.Sprintf(format, args...)}
}

// A Rotation says how a root is followed by the next. Its zero value makes the next root as Options say.
type Rotation struct {
	// Overlap is how long hosts have to learn of the next root before leaves chain to it. 0: until Switch.
	Overlap time.Duration
	// Key is the URI of the next root's key in a KMS; empty: as Options.RootKey says.
	Key string
	// Certificate is the next root when its key is offline.
	Certificate *x509.Certificate
	// Bridge leads from the current root, when its key is offline, to Certificate: what SignBridge returned. Without
	// one, hosts that know only the current root are cut off at the switch.
	Bridge *x509.Certificate
}

// Rotate begins the rotation of the root: from when it returns, Roots and RootsFile hold the next one beside the
// current one, to which leaves still chain until the switch. Where the current root can sign it, a bridge is made:
// the next root's certificate, signed by the current one, which leaves carry after the switch, so that a host that
// knows only the current root accepts them until Finish.
//
// A step that does not fit is a *StateError. With an error nothing has changed; a process that dies within has
// either begun the rotation or not, and so with the other steps.
func (i *Issuer) Rotate(r Rotation) error {
	return i.step(func(t *trust, now time.Time) (*generation, error) {
		switch {
		case t.turn != nil:
			return nil, notNow("rotate the root: a rotation is under way since %s: complete it with --switch and --finish, or take it back with --cancel", stamp(t.turn.Begun))
		case r.Overlap < 0:
			return nil, notNow("rotate the root: an overlap of %v is over before it begins", r.Overlap)
		}
		next, err := i.nextRoot(t, r, now)
		if err != nil {
			return nil, fmt.Errorf("rotate the root: %w", err)
		}
		return i.begin(t, next, r, now)
	})
}

// nextRoot returns the root that r asks for.
func (i *Issuer) nextRoot(t *trust, r Rotation, now time.Time) (next pair, err error) {
	switch {
	case r.Certificate != nil && r.Key != "":
		return next, notNow("name the next root's key or bring its certificate, not both")
	case r.Certificate != nil:
		next = pair{cert: r.Certificate}
	case i.keys.offline:
		return next, notNow(`the root's key is offline: make the next root there with "exitgate ca create-root", and bring its certificate with --certificate`)
	default:
		uri := r.Key
		if uri == "" {
			uri = i.keys.root
		}
		if next, err = i.newRoot(now, uri); err != nil {
			return next, err
		}
	}
	return next, checkNext(next.cert, t, now)
}

// checkNext returns an error when c cannot follow the root of t.
func checkNext(c *x509.Certificate, t *trust, now time.Time) error {
	if err := checkRoot(c); err != nil {
		return notNow("the next root %v", err)
	}
	if err := checkValidity(c, now); err != nil {
		return notNow("the next root %v", err)
	}
	for _, root := range t.all() {
		if keyutil.Equal(c.PublicKey, root.PublicKey) {
			return notNow("the next root has the key of %q, which hosts were given before: it needs a key of its own (--key)", root.Subject.CommonName)
		}
	}
	return nil
}

// begin writes the next root's key, and then, which is the moment, the rotation.
func (i *Issuer) begin(t *trust, next pair, r Rotation, now time.Time) (*generation, error) {
	bridge, err := r.Bridge, error(nil)
	if bridge == nil {
		bridge, err = i.bridge(t.root, next.cert)
	} else if wrong := checkBridge(bridge, t.root.cert, next.cert); wrong != nil {
		return nil, notNow("rotate the root: %v", wrong)
	}
	if err != nil {
		return nil, fmt.Errorf("rotate the root: sign the bridge: %w", err)
	}
	turn := &turn{Old: t.root.cert.Raw, New: next.cert.Raw, old: t.root.cert, new: next.cert, bridge: bridge, Begun: now.UTC(), Offline: r.Certificate != nil}
	if bridge != nil {
		turn.Bridge = bridge.Raw
	}
	if r.Overlap > 0 {
		turn.SwitchAt = now.Add(r.Overlap).UTC()
	}
	if !turn.Offline {
		if err := i.folder.writePair(nextFile, next, i.keys.rootPhrase); err != nil {
			return nil, fmt.Errorf("rotate the root: write %s: %w", i.folder.path(nextFile), err)
		}
	}
	if err := i.folder.writeTurn(turn); err != nil {
		return nil, fmt.Errorf("rotate the root: %w", err)
	}
	i.log.Info("began to rotate the interception root", "next", next.cert.Subject.CommonName, "switch_at", turn.SwitchAt, "bridge", bridge != nil)
	return i.settle(&trust{root: t.root, turn: turn, other: next, past: t.past}, now)
}

// settle returns the generation after a step that led to t, as the next start would have it.
func (i *Issuer) settle(t *trust, now time.Time) (*generation, error) {
	g, err := i.openGeneration(now, i.want)
	if err != nil { // the step is done all the same
		i.log.Error("a step of the rotation is done, but not all of its files are written; the next start does it", "error", err)
		g, err = i.newGeneration(i.current.Load().pair, t, i.want)
	}
	return g, err
}

// Switch ends the overlap: from when it returns, leaves chain to the next root, and the old one is leaving.
func (i *Issuer) Switch() error {
	return i.step(func(t *trust, now time.Time) (*generation, error) {
		if p := t.phase(); p != Overlap {
			return nil, notNow("switch to the next root: %s", map[Phase]string{
				Steady: `there is none: begin with "exitgate ca rotate"`, Leaving: "that was done at " + stamp(switchedAt(t))}[p])
		}
		return i.switchOver(t, now, i.want)
	})
}

func switchedAt(t *trust) time.Time {
	if t.turn == nil {
		return time.Time{}
	}
	return t.turn.Switched
}

// switchOver makes the next root of t the one that leaves chain to. The issuer is made first, since without one there
// is nothing to switch to. The folder is locked.
func (i *Issuer) switchOver(t *trust, now time.Time, want constraints) (*generation, error) {
	next := t.afterSwitch(now)
	p, err := i.readInstalled(next.root.cert, now)
	if errors.Is(err, fs.ErrNotExist) {
		p, err = i.makeIssuer(next, now, want)
	}
	var g *generation
	if err == nil {
		g, err = i.newGeneration(p, next, want)
	}
	if err == nil {
		err = i.folder.writeTurn(next.turn)
	}
	if err != nil {
		return nil, fmt.Errorf("switch to the next root: %w", err)
	}
	if err := errors.Join(i.putIssuer(p), i.publish(next)); err != nil {
		i.log.Warn("the switch happened, but its files are not complete; the next start does it", "error", err)
	}
	i.log.Info("switched to the next interception root", "root", next.root.cert.Subject.CommonName, "leaving", next.other.cert.Subject.CommonName)
	return g, nil
}

// Finish ends a rotation after its switch: the old root is no longer published, its key is removed, and leaves carry no
// bridge. It stays known as one of the gateway's own.
func (i *Issuer) Finish() error {
	return i.step(func(t *trust, now time.Time) (*generation, error) {
		switch {
		case t.turn == nil:
			return nil, notNow(`finish the rotation: none is under way: begin with "exitgate ca rotate"`)
		case t.phase() == Overlap:
			return nil, notNow("finish the rotation: leaves still chain to the old root: --switch first, or take it back with --cancel")
		case t.turn.Offline && !i.keys.offline:
			return nil, notNow("finish the rotation: the new root's key is offline: set ca.root_key to offline and restart first, or the next start would miss the key")
		}
		return i.end(t, now)
	})
}

// Cancel takes a rotation back before its switch: the next root is no longer published, and its key is removed. It
// stays known as one of the gateway's own, since hosts may have it.
func (i *Issuer) Cancel() error {
	return i.step(func(t *trust, now time.Time) (*generation, error) {
		switch {
		case t.turn == nil:
			return nil, notNow("cancel the rotation: none is under way")
		case t.phase() == Leaving:
			return nil, notNow("cancel the rotation: leaves chain to the new root since %s: go on to --finish, and rotate again if you want another", stamp(t.turn.Switched))
		}
		return i.end(t, now)
	})
}

// end puts the root that is left behind among those of the past, which is the moment, and clears the rest away.
func (i *Issuer) end(t *trust, now time.Time) (*generation, error) {
	past := append(slices.Clone(t.past), t.turn.behind())
	if err := i.folder.write(pastFile, encodeCerts(past), 0o644); err != nil {
		return nil, fmt.Errorf("end the rotation: write %s: %w", i.folder.path(pastFile), err)
	}
	if err := i.clear(t.turn, past); err != nil {
		i.log.Warn("the rotation is over, but its files are not cleared away; the next start does it", "error", err)
	}
	i.log.Info("ended the rotation of the interception root", "root", t.root.cert.Subject.CommonName, "left_behind", t.turn.behind().Subject.CommonName)
	return i.settle(&trust{root: t.root, past: past}, now)
}

// Renew replaces the issuer by a new one under the same root, with a new key.
func (i *Issuer) Renew() error {
	return i.step(func(t *trust, now time.Time) (*generation, error) {
		return i.makeGeneration(t, now, i.want)
	})
}

// step does one step of a rotation, under both locks, and puts the generation in force that comes of it.
func (i *Issuer) step(do func(*trust, time.Time) (*generation, error)) error {
	i.renewing.Lock()
	defer i.renewing.Unlock()
	unlock, err := i.folder.open()
	if err != nil {
		return err
	}
	defer unlock()
	now := i.now()
	t, err := i.openTrust(now)
	if err != nil {
		return err
	}
	g, err := do(t, now)
	if err != nil {
		return err
	}
	i.retry = retry{}
	i.replace(g)
	return nil
}
