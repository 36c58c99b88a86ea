package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/exitgate/exitgate/ca"
	"github.com/exitgate/exitgate/web"
)

var _ web.CA = caAPI{}

// caOptions are those of the interception CA that the configuration means.
func caOptions(c *Config) (o ca.Options, err error) {
	o = ca.Options{
		Dir: inData(c, "ca"), Gateway: c.Gateway,
		NeverIntercept: c.CA.NeverIntercept, OnlyIntercept: c.CA.OnlyIntercept,
		RootKey: string(c.CA.RootKey), IssuerKey: string(c.CA.IssuerKey),
	}
	if o.RootPassphrase, err = c.CA.RootPassphrase.value(); err != nil {
		return o, fmt.Errorf("ca.root_passphrase: %w", err)
	}
	if o.IssuerPassphrase, err = c.CA.IssuerPassphrase.value(); err != nil {
		return o, fmt.Errorf("ca.issuer_passphrase: %w", err)
	}
	return o, nil
}

// caMeters tells of the CA when metrics are scraped.
func (g *gateway) caMeters(m *web.Metrics) {
	m.Gauge("ca_concerns", "What the CA needs a person for; exitgate ca status says what.", func() float64 { return float64(len(g.issuer.State().Concerns)) })
	m.Gauge("ca_rotation_roots", "Roots that hosts should trust: 2 while one is being replaced.", func() float64 { return float64(len(g.issuer.Roots())) })
	m.Gauge("ca_rotation_switch_timestamp_seconds", "When the rotation under way switches by itself; 0 when it does not, or there is none.", func() float64 {
		if s := g.issuer.State(); s.Phase == ca.Overlap && !s.SwitchAt.IsZero() {
			return float64(s.SwitchAt.Unix())
		}
		return 0
	})
	m.Gauge("ca_root_key_available", "Whether the root's key can be used from here, so that issuers renew themselves: 1 or 0.", func() float64 {
		if g.issuer.State().RootKey == ca.Offline {
			return 0
		}
		return 1
	})
}

// caAPI is the issuer as the API takes it.
type caAPI struct {
	issuer *ca.Issuer
	log    *slog.Logger
}

// State implements web.CA.
func (a caAPI) State() web.CAState { return caState(a.issuer.State()) }

// Rotate implements web.CA.
func (a caAPI) Rotate(r web.CARotation, overlap time.Duration, c web.Change) error {
	return a.change("rotate "+r.Step, c, func() error {
		switch r.Step {
		case web.CARotateIssuer:
			return a.issuer.Renew()
		case web.CASwitch:
			return a.issuer.Switch()
		case web.CAFinish:
			return a.issuer.Finish()
		case web.CACancel:
			return a.issuer.Cancel()
		}
		next := ca.Rotation{Overlap: overlap, Key: r.Key}
		var err error
		if next.Certificate, err = oneCertificate("the next root", r.Certificate); err != nil {
			return web.Invalid(fmt.Errorf("rotate the CA: %w", err))
		}
		if next.Bridge, err = oneCertificate("the bridge", r.Bridge); err != nil {
			return web.Invalid(fmt.Errorf("rotate the CA: %w", err))
		}
		return a.issuer.Rotate(next)
	})
}

// oneCertificate reads PEM; "" is none.
func oneCertificate(what, text string) (*x509.Certificate, error) {
	if text == "" {
		return nil, nil
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%s is not one certificate in PEM", what)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	return c, nil
}

// Request implements web.CA.
func (a caAPI) Request(web.Change) (string, error) {
	b, err := a.issuer.Request()
	return string(b), err
}

// Install implements web.CA.
func (a caAPI) Install(certificate string, c web.Change) error {
	return a.change("install an issuer", c, func() error { return a.issuer.Install([]byte(certificate)) })
}

// change does what changes the CA, and logs who did it and why.
func (a caAPI) change(what string, c web.Change, do func() error) error {
	if err := do(); err != nil {
		return caProblem(err)
	}
	a.log.Info("the CA was changed", "step", what, "by", c.Who, "reason", c.Reason)
	return nil
}

// caProblem makes what does not fit the state of the CA, or needs a key that is not here, the asker's and not the
// gateway's own error.
func caProblem(err error) error {
	var state *ca.StateError
	if errors.As(err, &state) || errors.Is(err, ca.ErrNoRootKey) {
		return web.Conflict(err)
	}
	return err
}

// caState writes s as the API shows it.
func caState(s ca.State) web.CAState {
	w := web.CAState{Phase: string(s.Phase), Past: []web.CACertificate{}, RootKey: s.RootKey, Key: s.IssuerKey, Begun: s.Begun, SwitchAt: s.SwitchAt,
		Switched: s.Switched, Bridged: s.Bridged, Concerns: append([]string{}, s.Concerns...)}
	w.Roots = append(w.Roots, caCertificate("current", s.Root))
	if s.Other != nil {
		w.Roots = append(w.Roots, caCertificate(map[ca.Phase]string{ca.Overlap: "next", ca.Leaving: "leaving"}[s.Phase], s.Other))
	}
	for _, c := range s.Past {
		w.Past = append(w.Past, caCertificate("past", c))
	}
	if s.Issuer != nil {
		c := caCertificate("issuer", s.Issuer)
		w.Issuer = &c
	}
	return w
}

func caCertificate(role string, c *x509.Certificate) web.CACertificate {
	return web.CACertificate{Role: role, Subject: c.Subject.String(), Fingerprint: ca.Fingerprint(c), NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(),
		Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))}
}
