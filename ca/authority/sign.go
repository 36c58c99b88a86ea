package authority

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/smallstep/certificates/api"
	step "github.com/smallstep/certificates/authority"
	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/smallstep/certificates/errs"
)

// sign gives a host its first identity for a one-time token. All that can be wrong without the token being used is
// found out before it is.
func (a *Authority) sign(r *http.Request) (any, int, error) {
	var body api.SignRequest
	if err := readJSON(r, &body); err != nil {
		return nil, 0, err
	}
	claims, err := a.checkToken(body.OTT, "sign")
	if err == nil {
		err = checkClass(claims.Class)
	}
	if err != nil {
		return nil, 0, refuse(http.StatusUnauthorized, err)
	}
	if err := checkCSR(body.CsrPEM.CertificateRequest); err != nil {
		return nil, 0, err
	}
	if !body.NotBefore.IsZero() {
		return nil, 0, refuse(http.StatusForbidden, errors.New("an identity begins when it is signed: ask without notBefore"))
	}
	if err := a.checkAllowed(r.Context(), claims.Subject, claims.Class); err != nil {
		return nil, 0, refuse(http.StatusForbidden, err)
	}
	g := inForce(r.Context())
	ctx := provisioner.NewContextWithMethod(r.Context(), provisioner.SignMethod)
	opts, err := g.step.Authorize(ctx, body.OTT)
	if err != nil {
		return nil, 0, a.tokenError(claims.Subject, err)
	}
	// What the body says in templateData stays there.
	chain, err := g.step.SignWithContext(ctx, body.CsrPEM.CertificateRequest, provisioner.SignOptions{NotAfter: body.NotAfter}, opts...)
	if err != nil {
		return nil, 0, a.stepError("sign an identity", claims.Subject, err)
	}
	return a.signed(r, chain, claims.Subject, claims.Class, false), http.StatusCreated, nil
}

// tokenError returns what a host is told when smallstep did not take a token that looked good.
func (a *Authority) tokenError(name string, err error) error {
	if errors.Is(err, errTokenUsed) {
		return refuse(http.StatusUnauthorized, fmt.Errorf("%w: it is good for one certificate, so ask for another", errTokenUsed))
	}
	return a.stepError("use the token", name, err)
}

// stepError returns what a host is told of an error of smallstep's: what it did wrong, or that the gateway failed.
func (a *Authority) stepError(what, name string, err error) error {
	var e *errs.Error
	if errors.As(err, &e) && (e.Status/100 == 4 || e.Status == http.StatusNotImplemented) {
		return refuse(e.Status, fmt.Errorf("%s for %s: %s", what, name, stepMessage(e)))
	}
	return a.bug(what, name, err)
}

// stepMessage returns what smallstep says, without its preambles and without sending the reader to a log.
func stepMessage(e *errs.Error) string {
	s := e.Message()
	if strings.Contains(s, "certificate authority logs") {
		s = e.Error()
	}
	s = strings.TrimPrefix(strings.TrimPrefix(s, errs.BadRequestPrefix), errs.ForbiddenPrefix)
	return strings.Join(strings.Fields(s), " ")
}

// renew gives a host another identity for the one that it presents, with the same key.
func (a *Authority) renew(r *http.Request) (any, int, error) { return a.again(r, nil) }

// rekey is renew with the key of a certificate signing request.
func (a *Authority) rekey(r *http.Request) (any, int, error) {
	var body api.RekeyRequest
	if err := readJSON(r, &body); err != nil {
		return nil, 0, err
	}
	if err := checkCSR(body.CsrPEM.CertificateRequest); err != nil {
		return nil, 0, err
	}
	return a.again(r, body.CsrPEM.CertificateRequest.PublicKey)
}

// again signs an identity in the place of the one that the connection presents. Smallstep renews any certificate
// of its root that lacks its own extension, without asking anyone; what is renewed here was verified first, as it is
// for a connection to the proxy.
func (a *Authority) again(r *http.Request, key crypto.PublicKey) (any, int, error) {
	id, err := a.Verify(r.Context(), peers(r))
	if err != nil {
		return nil, 0, refuseIdentity(r, err)
	}
	chain, err := inForce(r.Context()).step.RenewContext(r.Context(), peers(r)[0], key)
	if err != nil {
		return nil, 0, a.stepError("renew the identity", id.Name, err)
	}
	return a.signed(r, chain, id.Name, id.Class, true), http.StatusCreated, nil
}

// peers returns the chain that the client presented.
func peers(r *http.Request) []*x509.Certificate {
	if r.TLS == nil {
		return nil
	}
	return r.TLS.PeerCertificates
}

// refuseIdentity returns the refusal of a certificate.
func refuseIdentity(r *http.Request, err error) error {
	switch {
	case errors.Is(err, ErrUnknown):
		return refuse(http.StatusServiceUnavailable, err)
	case errors.Is(err, ErrNone) && r.Header.Get("Authorization") != "":
		return refuse(http.StatusUnauthorized, fmt.Errorf("%w: this gateway does not renew by token", err))
	case errors.Is(err, ErrNone):
		return refuse(http.StatusBadRequest, err)
	case errors.Is(err, ErrDisabled):
		return refuse(http.StatusForbidden, err)
	}
	return refuse(http.StatusUnauthorized, err)
}

// revoke revokes the certificate that the connection presents, or any for a one-time token.
func (a *Authority) revoke(r *http.Request) (any, int, error) {
	var body api.RevokeRequest
	if err := readJSON(r, &body); err != nil {
		return nil, 0, err
	}
	if err := body.Validate(); err != nil {
		return nil, 0, a.stepError("revoke", "a certificate", err)
	}
	opts := &step.RevokeOptions{Serial: body.Serial, Reason: body.Reason, ReasonCode: body.ReasonCode, PassiveOnly: body.Passive, OTT: body.OTT}
	ctx := provisioner.NewContextWithMethod(r.Context(), provisioner.RevokeMethod)
	err := a.mayRevoke(ctx, r, opts)
	if err == nil {
		err = a.withdraw(ctx, opts)
	}
	if err != nil {
		return nil, 0, err
	}
	return api.RevokeResponse{Status: "ok"}, http.StatusOK, nil
}

// mayRevoke returns an error unless the token is for this serial, or the connection presents its certificate. A
// host that is not allowed an identity any more may still give up its own.
func (a *Authority) mayRevoke(ctx context.Context, r *http.Request, opts *step.RevokeOptions) error {
	if opts.OTT != "" {
		claims, err := a.checkToken(opts.OTT, "revoke")
		if err == nil && claims.Subject != opts.Serial {
			err = fmt.Errorf("the token is for certificate %.60q, not for %s", claims.Subject, opts.Serial)
		}
		if err != nil {
			return refuse(http.StatusUnauthorized, err)
		}
		if _, err := inForce(ctx).step.Authorize(ctx, opts.OTT); err != nil {
			return a.tokenError(opts.Serial, err)
		}
		return nil
	}
	id, err := a.authenticate(peers(r), a.o.Now())
	if err != nil {
		return refuseIdentity(r, err)
	}
	if id.Serial != opts.Serial {
		return refuse(http.StatusForbidden, fmt.Errorf("the certificate presented is %s, not %s: a host revokes its own only", id.Serial, opts.Serial))
	}
	opts.Crt, opts.MTLS = peers(r)[0], true
	return nil
}

// withdraw revokes a certificate, at this gateway at once.
func (a *Authority) withdraw(ctx context.Context, opts *step.RevokeOptions) error {
	err := inForce(ctx).step.Revoke(ctx, opts)
	if alreadyRevoked(err) {
		a.revoked(opts.Serial)
		return refuse(http.StatusBadRequest, fmt.Errorf("certificate %s is revoked already", opts.Serial))
	}
	if err != nil {
		return a.stepError("revoke", opts.Serial, err)
	}
	a.revoked(opts.Serial)
	a.o.Logger.Info("revoked a certificate", "serial", opts.Serial, "reason", opts.Reason, "by_host", opts.MTLS)
	return nil
}
