package authority

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"

	"github.com/go-chi/chi/v5"
	acmeapi "github.com/smallstep/certificates/acme/api"
	"github.com/smallstep/certificates/api"
	"github.com/smallstep/certificates/errs"

	"github.com/exitgate/exitgate"
)

// The bounds of request bodies, in bytes. ACME verifies signatures by keys that strangers bring, at a cost that grows
// with the square of what they bring.
const (
	maxBody     = 32 << 10
	maxACMEBody = 16 << 10
)

// Handler returns smallstep's HTTP API: at the top, below /1.0/, and, when ACME is on, below /acme/ and /2.0/acme/. It
// answers 404 to everything else. It wants r.TLS.PeerCertificates, and verifies them itself.
func (a *Authority) Handler() http.Handler { return a.routes }

// newRoutes says what is served by whom. Smallstep's own handlers only read; whatever signs or revokes is ours.
func (a *Authority) newRoutes() http.Handler {
	mux := chi.NewRouter()
	mux.Use(a.middleware)
	top := func(r chi.Router) {
		r.Get("/health", api.Health)
		r.Get("/version", api.Version)
		r.Get("/root/{sha}", api.Root)
		r.Get("/roots", api.Roots)
		r.Get("/roots.pem", api.RootsPEM)
		r.Get("/intermediates", api.Intermediates)
		r.Get("/intermediates.pem", api.IntermediatesPEM)
		r.Get("/federation", api.Federation)
		r.Get("/provisioners", api.Provisioners)
		r.Get("/crl", a.serveCRL)
		r.Post("/sign", a.answer(a.sign))
		r.Post("/renew", a.answer(a.renew))
		r.Post("/re-sign", a.answer(a.renew))
		r.Post("/rekey", a.answer(a.rekey))
		r.Post("/revoke", a.answer(a.revoke))
	}
	top(mux)
	mux.Route("/1.0", top)
	if a.o.ACME != nil {
		mux.Route("/acme", func(r chi.Router) { acmeapi.Route(r) })
		mux.Route("/2.0/acme", func(r chi.Router) { acmeapi.Route(r) })
	}
	return mux
}

// middleware bounds the body and puts the generation that is in force into the context.
func (a *Authority) middleware(next http.Handler) http.Handler {
	limit := int64(maxBody)
	if a.o.ACME != nil {
		limit = maxACMEBody
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g, err := a.generation(r.Context())
		if err != nil {
			a.o.Logger.Error("the identity authority cannot sign", "error", err)
			fail(w, refuse(http.StatusServiceUnavailable, err))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, limit)
		ctx := context.WithValue(g.context(r.Context()), generationKey{}, g)
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

type generationKey struct{}

// inForce returns the generation that middleware put there.
func inForce(ctx context.Context) *generation { return ctx.Value(generationKey{}).(*generation) }

// A refusal is an error with the status that renders it.
type refusal struct {
	status int
	error
}

func (r refusal) Unwrap() error { return r.error }

func refuse(status int, err error) error { return refusal{status, err} }

// answer renders what h returns: a refusal as its one line, in the form that step prints; anything else as JSON.
func (a *Authority) answer(h func(*http.Request) (any, int, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, status, err := h(r)
		if err != nil {
			a.o.Logger.Info("the identity authority refused a request", "path", r.URL.Path, "remote", r.RemoteAddr, "error", err)
			fail(w, err)
			return
		}
		writeJSON(w, status, v)
	}
}

func fail(w http.ResponseWriter, err error) {
	status, text := http.StatusInternalServerError, "the authority could not do that; the gateway's log says why"
	var r refusal
	if errors.As(err, &r) {
		status, text = r.status, r.Error()
	}
	writeJSON(w, status, errs.ErrorResponse{Status: status, Message: text})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // a client that has gone is no one's concern
}

// bug logs what went wrong inside and returns what the client is told of it.
func (a *Authority) bug(what, name string, err error) error {
	a.o.Logger.Error("the identity authority failed", "step", what, "host", name, "error", err)
	return fmt.Errorf("%s for %s: %w", what, name, err)
}

// readJSON reads the body into v.
func readJSON(r *http.Request, v any) error {
	err := json.NewDecoder(r.Body).Decode(v)
	var big *http.MaxBytesError
	switch {
	case errors.As(err, &big):
		return refuse(http.StatusRequestEntityTooLarge, fmt.Errorf("the request is longer than %d bytes", big.Limit))
	case err != nil:
		return refuse(http.StatusBadRequest, fmt.Errorf("the request cannot be read: %w", err))
	}
	return nil
}

// checkCSR returns an error when the request is not signed by a key that a certificate may have. Which key that is
// is looked at first: a signature by a key of half a megabit costs seconds.
func checkCSR(c *x509.CertificateRequest) error {
	if c == nil {
		return refuse(http.StatusBadRequest, errors.New("the request holds no certificate signing request"))
	}
	if err := checkKey(c.PublicKey); err != nil {
		return refuse(http.StatusForbidden, err)
	}
	if err := c.CheckSignature(); err != nil {
		return refuse(http.StatusBadRequest, errors.New("the certificate signing request is not signed by the key it is for"))
	}
	return nil
}

// checkKey returns an error when a certificate cannot be for the key.
func checkKey(key any) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < 2048 || n > 4096 || k.E > 1<<24 {
			return fmt.Errorf("the key is RSA of %d bits: use 2048 to 4096, or P-256", n)
		}
		return nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() || k.Curve == elliptic.P521() {
			return nil
		}
	case ed25519.PublicKey:
		return nil
	}
	return errors.New("the key is of a kind that is not used here: use P-256")
}

// signed tells of a new certificate and returns the answer with it.
func (a *Authority) signed(r *http.Request, chain []*x509.Certificate, name string, class exitgate.Class, renewed bool) *api.SignResponse {
	leaf := chain[0]
	remote, _ := netip.ParseAddrPort(r.RemoteAddr) // the zero value when it is not one
	a.o.Issued(Issued{
		Name: name, Class: class, Serial: leaf.SerialNumber.String(), NotAfter: leaf.NotAfter,
		Remote: remote.Addr().Unmap(), Renewed: renewed,
	})
	a.o.Logger.Info("signed an identity", "host", name, "class", class, "serial", leaf.SerialNumber.String(), "ends", leaf.NotAfter,
		"remote", remote.Addr().Unmap(), "renewed", renewed)
	out := &api.SignResponse{ServerPEM: api.NewCertificate(leaf), CaPEM: api.NewCertificate(chain[1]), TLSOptions: inForce(r.Context()).step.GetTLSOptions()}
	for _, c := range chain {
		out.CertChainPEM = append(out.CertChainPEM, api.NewCertificate(c))
	}
	return out
}
