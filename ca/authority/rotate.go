package authority

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"go.step.sm/crypto/keyutil"
)

// Rotate begins to replace the identity root: from when it returns, all is signed under a new root, and both are
// trusted, published and served, until Finish. Hosts that know only the old root go on as before, since the
// old root signs the new one for them; they learn of the new one from /roots.
//
// The new root has the key at the KMS URI keyAt, or at Options.RootKey, which must not be the key of the old root; with
// neither, a new one in the folder. The key of the old root is needed once. A rotation that was cut short is
// completed by the next Open.
func (a *Authority) Rotate(ctx context.Context, keyAt string) error {
	return a.change(ctx, "rotate the identity root", func(now time.Time) error {
		m := a.current.Load().material
		switch {
		case m.old != nil:
			return fmt.Errorf("a rotation is under way since %s: finish it first", stamp(m.since))
		case m.root.Key == nil:
			return fmt.Errorf("the key of the old root is needed to sign the next one: %w; bring it back until the rotation is under way", m.root.away)
		}
		if keyAt == "" {
			keyAt = a.o.RootKey
		}
		if keyAt != "" {
			key, err := a.keys.makeKey(ctx, keyAt)
			if err != nil {
				return err
			}
			if keyutil.Equal(key.Public(), m.root.Cert.PublicKey) {
				return fmt.Errorf("%s is the key of the old root: give the next root another", keyAt)
			}
		}
		_, err := a.makeRoot(ctx, nextPrefix, keyAt, now)
		return err
	})
}

// RotateIssuer replaces the issuer under the root in force. What the old issuer signed stays good.
func (a *Authority) RotateIssuer(ctx context.Context) error {
	return a.change(ctx, "replace the identity issuer", func(now time.Time) error {
		m := a.current.Load().material
		_, err := a.makeIssuer(ctx, a.prefix(), m.root, now)
		return err
	})
}

// ErrTooEarly is the error of a Finish that would cut off hosts which may not have heard of the new root.
var ErrTooEarly = errors.New("hosts may not know the new root yet")

// Finish ends a rotation: the old root is no longer trusted, and its key, if it is in the folder, is removed. Before
// every identity that was signed under the old root has ended, Finish is ErrTooEarly, unless it is forced.
func (a *Authority) Finish(ctx context.Context, force bool) error {
	return a.change(ctx, "finish the rotation of the identity root", func(now time.Time) error {
		m := a.current.Load().material
		if m.old == nil {
			return errors.New("none is under way")
		}
		if at := a.finishAfter(m); now.Before(at) && !force {
			return fmt.Errorf("%w: wait until %s, when the last identity under the old root has been renewed or has ended, or force it", ErrTooEarly, stamp(at))
		}
		return a.beginFinish()
	})
}

// finishAfter returns from when no identity under the old root is valid.
func (a *Authority) finishAfter(m *material) time.Time { return m.since.Add(a.o.Lifetimes.Identity) }

// Reload reads the folder again: after the key of a root was brought back, or another process rotated.
func (a *Authority) Reload(ctx context.Context) error {
	return a.change(ctx, "read the folder again", func(time.Time) error { return nil })
}

// change does work in the locked folder, and then puts what the folder holds in force.
func (a *Authority) change(ctx context.Context, what string, work func(now time.Time) error) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	unlock, err := a.keys.dir.Open()
	if err != nil {
		return err
	}
	defer unlock()
	now := a.o.Now()
	if err := work(now); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	m, err := a.load(ctx, now)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return a.install(m)
}

// beginFinish writes down which files are to take the place of which, and does it. Whenever the process dies, the
// next one goes on from the list: each step can be done again.
func (a *Authority) beginFinish() error {
	var list []string
	for _, name := range []string{rootFile, rootCertFile, issuerFile} {
		if a.keys.dir.Has(nextPrefix + name) {
			list = append(list, "move "+name)
		} else {
			list = append(list, "drop "+name) // the next root's key is elsewhere, and the old root's goes
		}
	}
	if err := a.keys.dir.Write(finishFile, []byte(strings.Join(list, "\n")), 0o600); err != nil {
		return err
	}
	return a.resumeFinish()
}

// resumeFinish does what the list of beginFinish says, if there is one.
func (a *Authority) resumeFinish() error {
	b, err := a.keys.dir.Read(finishFile, true)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		if err == nil {
			err = a.finishStep(strings.TrimSpace(line))
		}
	}
	if err == nil {
		err = a.keys.dir.Remove(crossFile)
	}
	if err == nil {
		err = a.keys.dir.Remove(finishFile)
	}
	if err != nil {
		return fmt.Errorf("finish the rotation in %s: %w", a.keys.dir.Path(finishFile), err)
	}
	return nil
}

func (a *Authority) finishStep(line string) error {
	what, name, _ := strings.Cut(line, " ")
	known := name == rootFile || name == rootCertFile || name == issuerFile
	switch {
	case what == "drop" && known:
		return a.keys.dir.Remove(name)
	case what == "move" && known && a.keys.dir.Has(nextPrefix+name):
		return a.keys.dir.Rename(nextPrefix+name, name)
	case what == "move" && known:
		return nil // done before
	}
	return fmt.Errorf("%.40q is not a step: restore the folder from a backup", line)
}

// A State tells how the identity root and issuer stand.
type State struct {
	Roots          []RootState // that in force first
	IssuerNotAfter time.Time   // renewed well before, if the key of the root is here
	IssuerRenewAt  time.Time
	Rotating       bool
	RotatingSince  time.Time // zero: none is under way
	FinishAfter    time.Time // from when Finish cuts off no one
}

// A RootState tells of one identity root that is trusted.
type RootState struct {
	Subject     string
	Fingerprint string // SHA-256, lower-case hex
	NotAfter    time.Time
	InForce     bool
	KeyAway     string // why its key cannot be used now; "" when it can, and for a root that is not in force
}

// State returns how things stand now.
func (a *Authority) State() State {
	m := a.current.Load().material
	s := State{IssuerNotAfter: m.issuer.Cert.NotAfter, IssuerRenewAt: renewIssuerAt(m.issuer.Cert, m.root.Cert)}
	for i, c := range m.roots() {
		r := RootState{Subject: c.Subject.String(), Fingerprint: fingerprint(c), NotAfter: c.NotAfter, InForce: i == 0}
		if r.InForce && m.root.away != nil {
			r.KeyAway = m.root.away.Error()
		}
		s.Roots = append(s.Roots, r)
	}
	if m.old != nil {
		s.Rotating, s.RotatingSince, s.FinishAfter = true, m.since, a.finishAfter(m)
	}
	return s
}
