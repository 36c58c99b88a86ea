package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net/url"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/mitm"
	"github.com/exitgate/exitgate/web/hostapi"
)

// look fills in what the gateway sees of a URL (hostapi.Handler.Look).
func (g *gateway) look(ctx context.Context, u *url.URL) hostapi.View {
	return viewOf(g.proxy.Look(ctx, u))
}

func viewOf(l mitm.Look) hostapi.View {
	v := hostapi.View{Own: l.Own, Parent: l.Parent, TLS: l.TLS, ALPN: l.ALPN}
	for _, a := range l.Answers {
		v.Addresses = append(v.Addresses, a.String())
	}
	for _, b := range l.Barred {
		v.Barred = append(v.Barred, hostapi.Barred{Address: b.Addr.String(), Why: b.Why})
	}
	if l.Dialled.IsValid() {
		v.Dialled = l.Dialled.String()
	}
	for _, c := range l.Chain {
		v.Chain = append(v.Chain, certificateOf(c))
	}
	v.Step, v.Type, v.Error = wentWrong(l.Err)
	return v
}

func certificateOf(c *x509.Certificate) hostapi.Certificate {
	sum := sha256.Sum256(c.Raw)
	return hostapi.Certificate{Subject: c.Subject.String(), Issuer: c.Issuer.String(), SHA256: hex.EncodeToString(sum[:]), NotBefore: c.NotBefore, NotAfter: c.NotAfter}
}

// wentWrong says at which step a look ended, and why.
func wentWrong(err error) (step, typ, text string) {
	var f *exitgate.Fault
	var r *exitgate.Refusal
	switch {
	case err == nil:
		return "", "", ""
	case errors.As(err, &f):
		return f.Step, f.Type, f.Reason
	case errors.As(err, &r) && r.Verdict.Rule == exitgate.RuleAddress:
		return "guard", "destination_ip_prohibited", r.Verdict.Reason
	case errors.As(err, &r):
		return "request", "", r.Verdict.Reason
	}
	return "gateway", "proxy_internal_error", "the gateway failed: " + err.Error()
}
