package web

import (
	"context"
	"encoding/json"
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

// A Ledger keeps what somebody may change while the gateway runs: grants or exemptions. The store's part of it is
// written by Put and Remove; List also returns what stands in files.
type Ledger[T any] interface {
	// List returns all that the policy has loaded, in the order of their IDs.
	List(ctx context.Context) ([]T, error)
	// Put writes one entry, new or in place of the entry of the same ID.
	Put(ctx context.Context, entry T, c Change) error
	// Remove removes the entry of that ID. An entry that stands in a file is a Conflict whose error names the
	// file; one that is nowhere is NotFound.
	Remove(ctx context.Context, id string, c Change) error
}

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

// A Change says who changes something, when and why.
type Change struct {
	At     time.Time
	Who    string // the user of the process that asked for it; never empty
	Reason string // never empty
}

// An Entry is one line of the audit trail.
type Entry struct {
	Seq    int64           `json:"seq"` // rises with each entry; may have gaps
	At     time.Time       `json:"at"`
	Who    string          `json:"who"`
	Action string          `json:"action"` // grant.put, grant.remove, exemption.put, exemption.remove
	Object string          `json:"object"` // the ID of what was changed
	Reason string          `json:"reason"`
	Value  json.RawMessage `json:"value"` // the entry as it was put, or as it was before it was removed
}

// Admin is the administrative API. All functions and ledgers are required but for CA, Logger and Now.
type Admin struct {
	Grants     Ledger[exitgate.Grant]
	Exemptions Ledger[exitgate.Exemption]
	// CheckGrant and CheckExemption bring an entry that is made now into its one form, or say what is wrong with
	// it.
	CheckGrant     func(g *exitgate.Grant, now time.Time) error
	CheckExemption func(x *exitgate.Exemption, now time.Time) error
	// Apply loads what the ledgers hold into the policy. After an error the policy is as before.
	Apply func(context.Context) error

	Flows   Flows
	Explain func(context.Context, *exitgate.Question) (Explanation, error)
	// Host returns the host of that name.
	Host func(name string) (exitgate.Host, bool)

	Status func(context.Context) Status
	Reload func(context.Context) error // of configuration and policy, as SIGHUP does
	Audit  func(ctx context.Context, limit int) ([]Entry, error)
	CA     CA // nil: none

	Logger *slog.Logger     // nil: slog.Default
	Now    func() time.Time // nil: time.Now

	change sync.Mutex // held from a ledger's write to the end of its Apply: changes come one after the other
}

// Serve answers on l, a Unix socket, until ctx ends, and then gives requests that are under way a moment to end.
func (a *Admin) Serve(ctx context.Context, l net.Listener) error {
	s := &http.Server{
		Handler:           a.Handler(),
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

// Handler returns the API.
func (a *Admin) Handler() http.Handler {
	m := http.NewServeMux()
	route := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "no-store")
			if err := h(w, r); err != nil {
				fail(w, r, a.log(), err)
			}
		})
	}
	grants, exemptions := a.grantBook(), a.exemptionBook()
	route("GET /v1/grants", grants.list)
	route("POST /v1/grants", grants.add)
	route("DELETE /v1/grants/{id}", grants.remove)
	route("GET /v1/exemptions", exemptions.list)
	route("POST /v1/exemptions", exemptions.add)
	route("DELETE /v1/exemptions/{id}", exemptions.remove)
	route("GET /v1/flows", a.flows)
	route("GET /v1/flows/{id}", a.flow)
	route("POST /v1/explain", a.explain)
	route("GET /v1/status", func(w http.ResponseWriter, r *http.Request) error {
		answer(w, http.StatusOK, a.Status(r.Context()))
		return nil
	})
	route("POST /v1/reload", a.reload)
	route("GET /v1/audit", a.audit)
	route("GET /v1/ca", a.caState)
	route("POST /v1/ca/rotate", a.caRotate)
	route("POST /v1/ca/request", a.caRequest)
	route("POST /v1/ca/issuer", a.caInstall)
	route("/", func(_ http.ResponseWriter, r *http.Request) error {
		return NotFound(fmt.Errorf("%s %.200q: the API has no such path and method", r.Method, r.URL.Path))
	})
	return m
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
	list, err := a.Audit(r.Context(), limit)
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
