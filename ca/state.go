package ca

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/exitgate/exitgate/ca/internal/keydir"
)

// A State is what the folder holds, and where a rotation stands. Its certificates must not be changed.
type State struct {
	Phase  Phase
	Root   *x509.Certificate   // leaves chain to it
	Other  *x509.Certificate   // the next root, or the leaving one, as Phase says; nil when it is steady
	Past   []*x509.Certificate // roots that hosts may once have been given, and should trust no more
	Issuer *x509.Certificate   // signs leaves

	// RootKey and IssuerKey say where the keys are: "file", "offline", or the URI of a KMS.
	RootKey, IssuerKey string

	Begun    time.Time // of the rotation, when one is under way
	SwitchAt time.Time // when it switches by itself; zero: when it is told to
	Switched time.Time // when it did
	// Bridged says that a host that knows only the leaving root accepts leaves.
	Bridged bool
	// Concerns are what a person has to see to, each with what to do.
	Concerns []string
}

// Roots returns the roots that hosts should trust now: first the one that leaves chain to.
func (s State) Roots() []*x509.Certificate {
	roots := []*x509.Certificate{s.Root}
	if s.Other != nil {
		roots = append(roots, s.Other)
	}
	return roots
}

// State returns how the authority stands.
func (i *Issuer) State() State {
	g := i.current.Load()
	s := stateOf(g.trust)
	s.Issuer, s.IssuerKey = g.cert, g.pair.where()
	s.Concerns = i.concerns(g, i.now())
	return s
}

func stateOf(t *trust) State {
	s := State{Phase: t.phase(), Root: t.root.cert, Other: t.other.cert, Past: t.past, RootKey: t.root.where(), Bridged: t.bridged()}
	if t.turn != nil {
		s.Begun, s.SwitchAt, s.Switched = t.turn.Begun, t.turn.SwitchAt, t.turn.Switched
	}
	return s
}

// Read returns how the authority in dir stands, from its certificates alone: it uses no key, changes nothing, and says
// nothing of concerns. It is for a folder that no gateway runs on.
func Read(dir string) (State, error) {
	f := folder{dir: keydir.Dir(dir)}
	turn, err := f.readTurn()
	if err != nil {
		return State{}, err
	}
	t := &trust{turn: turn}
	if t.past, err = f.readCerts(pastFile); err != nil {
		return State{}, err
	}
	switch {
	case turn == nil:
		certs, err := f.readCerts(rootCertFile)
		if err != nil {
			return State{}, err
		}
		if len(certs) != 1 {
			return State{}, fmt.Errorf("read %s: it holds %d certificates; there is a root there once a gateway ran, or \"exitgate ca create-root\" did", f.path(rootCertFile), len(certs))
		}
		t.root.cert = certs[0]
	case turn.ended(t.past):
		t.turn = nil
		t.root.cert = turn.old
		if !turn.Switched.IsZero() {
			t.root.cert = turn.new
		}
	case turn.Switched.IsZero():
		t.root.cert, t.other.cert = turn.old, turn.new
	default:
		t.root.cert, t.other.cert = turn.new, turn.old
	}
	s := stateOf(t)
	s.RootKey, s.IssuerKey = "", ""
	s.Issuer, err = f.issuerCert()
	return s, err
}

// issuerCert reads the certificate beside the key of the issuer; nil when there is none.
func (f folder) issuerCert() (*x509.Certificate, error) {
	b, err := f.read(issuerFile, true)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
			if block.Type == "CERTIFICATE" {
				return x509.ParseCertificate(block.Bytes)
			}
		}
		err = errors.New("it holds no certificate")
	}
	return nil, fmt.Errorf("read %s: %w", f.path(issuerFile), err)
}

// How far ahead a person is told of what only a person can do.
const (
	issuerNotice = 21 * day
	rootNotice   = 180 * day
)

// concerns says what a person has to see to, with what to do.
func (i *Issuer) concerns(g *generation, now time.Time) (list []string) {
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	t, offline := g.trust, g.trust.root.where() == Offline
	if offline && !now.Before(notice(g.cert)) {
		add("the interception issuer ends at %s: %v", stamp(g.cert.NotAfter), ErrNoRootKey)
	}
	if offline && !constraintsOf(g.cert).equal(g.want) {
		add("the issuer does not say which names are never intercepted, as the configuration does: the gateway refuses to intercept them, and hosts "+
			"would not notice if it did: %v", ErrNoRootKey)
	}
	if t.phase() == Steady && t.root.cert.NotAfter.Sub(now) < rootNotice {
		add(`the interception root ends at %s: begin with the next one, which every host needs before then: "exitgate ca rotate"`, stamp(t.root.cert.NotAfter))
	}
	if t.phase() == Overlap && t.other.where() == Offline && !i.folder.has(nextIssuerFile) {
		add("there is no issuer under the next root, so nothing can switch to it: %v", ErrNoRootKey)
	} else if t.due(now) {
		add(`the switch to the next root is due and comes with the next leaf that is signed; where it does not, the log says why, and "exitgate ca rotate --switch" tries it now`)
	}
	if t.phase() == Leaving && !now.Before(t.other.cert.NotAfter) {
		add(`the root that is leaving has ended at %s: "exitgate ca rotate --finish"`, stamp(t.other.cert.NotAfter))
	}
	return list
}

// notice returns when a person is told that c, which nothing here can renew, ends: when a third of its life is left,
// and three weeks ahead if it lives for long enough.
func notice(c *x509.Certificate) time.Time {
	life := c.NotAfter.Sub(c.NotBefore)
	return c.NotAfter.Add(-max(life/3, min(issuerNotice, life/2)))
}

// complain logs the concerns.
func (i *Issuer) complain(g *generation, now time.Time) {
	for _, c := range i.concerns(g, now) {
		i.log.Warn("the certificate authority needs a person", "what", c)
	}
}
