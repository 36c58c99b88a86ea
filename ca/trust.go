package ca

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"go.step.sm/crypto/keyutil"
)

// A trust is what the folder says about roots at one moment. It is never changed.
type trust struct {
	root  pair                // leaves chain to it
	turn  *turn               // the rotation that is under way; nil when there is none
	other pair                // before the switch the next root, after it the leaving one, then without a key; zero without a turn
	past  []*x509.Certificate // roots that hosts may once have been given, and should trust no more
}

// A turn is the rotation that is under way, as rotationFile holds it: all that is public of it, so that one rename
// begins it, and one is the switch.
type turn struct {
	Old      []byte    `json:"old"` // DER
	New      []byte    `json:"new"` // DER
	Bridge   []byte    `json:"bridge,omitempty"`
	Offline  bool      `json:"offline,omitempty"` // the key of the new root is not here
	Begun    time.Time `json:"begun"`
	SwitchAt time.Time `json:"switch_at,omitzero"`
	Switched time.Time `json:"switched,omitzero"`

	old, new, bridge *x509.Certificate
}

// all returns every root that this folder has or ever had.
func (t *trust) all() []*x509.Certificate { return append(t.published(), t.past...) }

// published returns the roots that hosts should trust now.
func (t *trust) published() []*x509.Certificate {
	roots := []*x509.Certificate{t.root.cert}
	if t.turn != nil {
		roots = append(roots, t.other.cert)
	}
	return roots
}

func (t *trust) phase() Phase {
	switch {
	case t.turn == nil:
		return Steady
	case t.turn.Switched.IsZero():
		return Overlap
	}
	return Leaving
}

// id tells t from what it was before and will be: no two steps leave the same behind.
func (t *trust) id() string {
	id := fmt.Sprintf("%s %d", t.phase(), len(t.past))
	if t.turn != nil {
		id += " " + t.turn.new.SerialNumber.Text(16)
	}
	return id
}

// switchAt returns when the overlap ends by itself; zero: it does not, or there is none.
func (t *trust) switchAt() time.Time {
	if t.phase() != Overlap {
		return time.Time{}
	}
	return t.turn.SwitchAt
}

// due reports whether it is time for the switch: as it was set, or because the root has ended.
func (t *trust) due(now time.Time) bool {
	at := t.switchAt()
	return !at.IsZero() && !now.Before(at) || t.phase() == Overlap && !now.Before(t.root.cert.NotAfter)
}

// afterSwitch returns what t will be.
func (t *trust) afterSwitch(now time.Time) *trust {
	turn := *t.turn
	turn.Switched = now.UTC()
	return &trust{root: t.other, turn: &turn, other: pair{cert: t.root.cert}, past: t.past}
}

// bridged reports whether hosts that know only the leaving root accept leaves.
func (t *trust) bridged() bool { return t.phase() == Leaving && t.turn.bridge != nil }

// openTrust reads what the folder says about roots. It completes a rotation whose end was cut off, and publishes what
// hosts should trust. The folder is locked.
func (i *Issuer) openTrust(now time.Time) (*trust, error) {
	past, err := i.folder.readCerts(pastFile)
	if err != nil {
		return nil, err
	}
	turn, err := i.folder.readTurn()
	if err == nil && turn != nil && turn.ended(past) {
		turn, err = nil, i.clear(turn, past)
	}
	if err != nil {
		return nil, err
	}
	t := &trust{turn: turn, past: past}
	if turn == nil {
		t.root, err = i.openRoot(now)
	} else {
		err = i.openTurn(t)
	}
	if err != nil {
		return nil, err
	}
	return t, i.publish(t)
}

// openTurn finds the keys of both roots.
func (i *Issuer) openTurn(t *trust) (err error) {
	next := pair{cert: t.turn.new}
	if !t.turn.Offline {
		if next, err = i.keyOf(nextFile, t.turn.new); err != nil {
			return err
		}
	}
	if t.phase() == Leaving {
		t.root, t.other = next, pair{cert: t.turn.old}
		return nil
	}
	t.root, t.other = pair{cert: t.turn.old}, next
	if !i.keys.offline || i.folder.has(rootFile) {
		t.root, err = i.keyOf(rootFile, t.turn.old)
	}
	return err
}

// keyOf reads the file that must hold the key of the root c.
func (i *Issuer) keyOf(name string, c *x509.Certificate) (pair, error) {
	p, err := i.readSecret(name, i.keys.rootPhrase)
	if err == nil && !p.cert.Equal(c) {
		err = fmt.Errorf("it is not the root that %s names: bring both files back from one backup", rotationFile)
	}
	if err != nil {
		return p, fmt.Errorf("open the interception root %s: %w", i.folder.path(name), err)
	}
	return p, nil
}

func (i *Issuer) publish(t *trust) error {
	if err := i.folder.publish(rootCertFile, []*x509.Certificate{t.root.cert}, t.all()); err != nil {
		return err
	}
	return i.folder.publish(rootsFile, t.published(), t.all())
}

// readTurn returns the rotation that is under way, nil when there is none.
func (f folder) readTurn() (*turn, error) {
	b, err := f.read(rotationFile, true)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var t *turn
	if err == nil {
		t, err = parseTurn(b)
	}
	if err != nil {
		return nil, fmt.Errorf("read the rotation that is under way, %s: %w; bring it back from a backup", f.path(rotationFile), err)
	}
	return t, nil
}

// writeTurn is the moment at which a rotation begins, or its switch happens.
func (f folder) writeTurn(t *turn) error {
	b, err := json.MarshalIndent(t, "", "  ")
	if err == nil {
		err = f.write(rotationFile, append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", f.path(rotationFile), err)
	}
	return nil
}

// parseTurn reads what writeTurn wrote.
func parseTurn(b []byte) (*turn, error) {
	t := new(turn)
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(t); err != nil {
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("it is damaged: something follows")
	}
	for _, c := range []struct {
		der []byte
		to  **x509.Certificate
	}{{t.Old, &t.old}, {t.New, &t.new}, {t.Bridge, &t.bridge}} {
		if c.to == &t.bridge && len(c.der) == 0 {
			continue
		}
		var err error
		if *c.to, err = x509.ParseCertificate(c.der); err != nil {
			return nil, fmt.Errorf("it is damaged: a certificate in it cannot be read: %w", err)
		}
	}
	return t, t.check()
}

// check returns an error when what t says does not belong together.
func (t *turn) check() error {
	for _, c := range []*x509.Certificate{t.old, t.new} {
		if err := checkRoot(c); err != nil {
			return fmt.Errorf("a root in it %w", err)
		}
	}
	switch {
	case keyutil.Equal(t.old.PublicKey, t.new.PublicKey):
		return errors.New("it is damaged: it leads from a root to the same")
	case t.bridge != nil && checkBridge(t.bridge, t.old, t.new) != nil:
		return checkBridge(t.bridge, t.old, t.new)
	case t.Begun.IsZero():
		return errors.New("it is damaged: it does not say when it began")
	}
	return nil
}

// ended reports whether the root that a rotation leaves behind is among those of the past: then it is over, whatever
// is still lying around.
func (t *turn) ended(past []*x509.Certificate) bool {
	return slices.ContainsFunc(past, t.behind().Equal)
}

// behind returns the root that is left behind when t ends now: the old one after the switch, and before it the new one.
func (t *turn) behind() *x509.Certificate {
	if t.Switched.IsZero() {
		return t.new
	}
	return t.old
}

// clear removes what is left of a rotation that is over. It may be cut off anywhere, and begun again.
func (i *Issuer) clear(t *turn, past []*x509.Certificate) error {
	f := i.folder
	steps := []func() error{func() error { return f.remove(nextIssuerFile) }}
	if t.Switched.IsZero() {
		steps = append(steps, func() error { return f.remove(nextFile) })
	} else {
		kept := &trust{root: pair{cert: t.new}, past: past}
		steps = append(steps, func() error { return i.publish(kept) }, i.promote(t))
	}
	steps = append(steps, func() error { return f.remove(rotationFile) })
	for _, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("end the rotation in %s: %w", f.path(""), err)
		}
	}
	return nil
}

// promote returns the step that puts the new root's key in the place of the old one's, which is lost with it.
func (i *Issuer) promote(t *turn) func() error {
	return func() error {
		if i.folder.has(nextFile) {
			return i.folder.rename(nextFile, rootFile)
		}
		if t.Offline {
			return i.folder.remove(rootFile)
		}
		return nil // it was done before
	}
}
