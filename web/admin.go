package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/exitgate/exitgate"
)

// Flows finds what was recorded.
type Flows interface {
	// Find returns at most limit flows that the query matches and that began before the one named, newest
	// first; the zero ID is after all. A query that cannot be read is Invalid.
	Find(ctx context.Context, query string, limit int, before exitgate.ID) ([]*exitgate.Flow, error)
	// Flow returns one flow, or NotFound.
	Flow(ctx context.Context, id exitgate.ID) (*exitgate.Flow, error)
	// Follow calls emit for each flow that ends from now on and that the query matches, until ctx ends or emit
	// fails. It calls ready once, when nothing that ends from then on is missed.
	Follow(ctx context.Context, query string, ready func(), emit func(*exitgate.Flow) error) error
}

// An Explanation says why a question was answered as it was. It is rendered as JSON, or as a page of text.
type Explanation interface {
	WriteText(w io.Writer) error
}

// Admin is the administrative API. All functions are required but where it says otherwise.
type Admin struct {
	Mirror *Mirror // opened
	Files  Files
	// CheckGrant and CheckExemption bring an entry that is made now into its one form, or say what is wrong with
	// it.
	CheckGrant     func(g *exitgate.Grant, now time.Time) error
	CheckExemption func(x *exitgate.Exemption, now time.Time) error
	// GrantFor makes the grant that covers a URL and nothing else; its subject, methods and origin are empty.
	GrantFor func(url string) (exitgate.Grant, error)

	Flows   Flows
	Explain func(context.Context, *exitgate.Question) (Explanation, error)

	Status     func(context.Context) Status
	Reload     func(context.Context) error // of configuration and policy, as SIGHUP does
	Trust      func(context.Context) (Trust, error)
	Proxy      func(context.Context) (ProxySettings, error)
	Uses       *Uses       // nil: none are told
	Identities *Identities // nil: none are told
	CA         CA          // nil: none
	IdentityCA IdentityCA  // nil: none

	Logger *slog.Logger     // nil: slog.Default
	Now    func() time.Time // nil: time.Now

	change   sync.Mutex // held for a whole change: they come one after the other
	failures Limiter    // of tokens that are not valid
}

// Trust is what a host has to trust.
type Trust struct {
	Roots        string   `json:"roots"`        // the interception roots in force, PEM; during a rotation both
	Fingerprints []string `json:"fingerprints"` // of each, SHA-256 of the DER in hex
	Identity     string   `json:"identity"`     // fingerprint of the identity root, by which a host knows the gateway; "" none
	Enroll       string   `json:"enroll"`       // URL of the listener that hosts enrol with; "" none
}

// ProxySettings are what a host sets to use the gateway.
type ProxySettings struct {
	HTTP    string   `json:"http"`  // URL of the proxy for http destinations
	HTTPS   string   `json:"https"` // for https destinations
	PACURL  string   `json:"pac_url"`
	NoProxy []string `json:"no_proxy"`
}

// Serve answers on l, a Unix socket, until ctx ends, and then gives requests that are under way a moment to end. Who
// connects may do everything, and is who the kernel says.
func (a *Admin) Serve(ctx context.Context, l net.Listener) error {
	h := a.handler(func(r *http.Request) (Principal, error) {
		return Principal{Who: peer(r.Context()), Role: RoleAdmin, Local: true}, nil
	})
	return a.serve(ctx, l, h)
}

// ServeRemote answers on l, a TLS listener, whoever presents an API token, within its role.
func (a *Admin) ServeRemote(ctx context.Context, l net.Listener) error {
	return a.serve(ctx, l, a.Remote())
}

// Remote is the handler of ServeRemote.
func (a *Admin) Remote() http.Handler { return a.handler(a.bearer) }

func (a *Admin) serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{
		Handler:           h,
		ConnContext:       withPeer,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(a.log().Handler(), slog.LevelDebug),
	}
	return serveUntil(ctx, s, l)
}

// serveUntil serves until ctx ends, then drains for at most two seconds.
func serveUntil(ctx context.Context, s *http.Server, l net.Listener) error {
	done := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		err := s.Shutdown(grace)
		if err != nil {
			s.Close()
		}
		done <- nil
	})
	err := s.Serve(l)
	if !stop() {
		return <-done
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve on %s: %w", l.Addr(), err)
}

func (a *Admin) reload(w http.ResponseWriter, r *http.Request) error {
	if err := a.Reload(r.Context()); err != nil {
		return Conflict(err)
	}
	answer(w, http.StatusOK, a.Status(r.Context()))
	return nil
}

func (a *Admin) audit(w http.ResponseWriter, r *http.Request) error {
	limit, err := limitOf(r, 100)
	if err != nil {
		return err
	}
	var before int64
	if s := r.URL.Query().Get("before"); s != "" {
		if before, err = strconv.ParseInt(s, 10, 64); err != nil || before < 1 {
			return Invalid(fmt.Errorf("before %.20q: it is the seq of an entry", s))
		}
	}
	q := r.URL.Query()
	list, err := a.Mirror.Ledger.Audit(r.Context(), AuditFilter{Kind: q.Get("kind"), Object: q.Get("object"), Who: q.Get("who"), Before: before, Limit: limit})
	if err != nil {
		return err
	}
	if list == nil {
		list = []Entry{}
	}
	answer(w, http.StatusOK, list)
	return nil
}

// limitOf reads ?limit=, from 1 to 10,000.
func limitOf(r *http.Request, def int) (int, error) {
	s := r.URL.Query().Get("limit")
	if s == "" {
		return def, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 10000 {
		return 0, Invalid(fmt.Errorf("limit %.20q: it is a number from 1 to 10000", s))
	}
	return n, nil
}

func (a *Admin) log() *slog.Logger {
	if a.Logger != nil {
		return a.Logger
	}
	return slog.Default()
}

func (a *Admin) now() time.Time {
	if a.Now != nil {
		return a.Now().UTC()
	}
	return time.Now().UTC()
}
