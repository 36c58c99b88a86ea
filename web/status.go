package web

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"
)

// Status says how a running gateway stands.
type Status struct {
	Version     string       `json:"version"`
	Gateway     string       `json:"gateway"`     // its name
	PID         int          `json:"pid"`         // of its process
	Since       time.Time    `json:"since"`       // when it started
	Data        string       `json:"data"`        // its data directory
	Config      string       `json:"config"`      // its configuration file; "" none
	Listen      []string     `json:"listen"`      // way and address of each listener
	Connections int          `json:"connections"` // accepted and open
	Hosts       int          `json:"hosts"`       // registered
	Grants      int          `json:"grants"`
	Exemptions  int          `json:"exemptions"`
	Revision    string       `json:"revision"` // of the policy
	Reload      string       `json:"reload"`   // what is wrong with the last reload; "" nothing
	Root        string       `json:"root"`     // file of the CA certificate that hosts trust
	Fingerprint string       `json:"fingerprint"`
	Journal     JournalState `json:"journal"`
	Checks      []Check      `json:"checks"`
}

// JournalState says how far the store is behind the journal.
type JournalState struct {
	Bytes    int64 `json:"bytes"`     // kept on disk until the store has them
	MaxBytes int64 `json:"max_bytes"` // at which nothing more is carried
}

// A Check is one thing that has to be right for the gateway to be ready.
type Check struct {
	Name string `json:"name"`
	// Wrong says what is wrong and what follows from it; "" nothing.
	Wrong string `json:"wrong"`
}

// Health serves metrics, /livez and /readyz on the admin listener, which is plain HTTP for machines: it changes
// nothing and names no host and no destination.
type Health struct {
	Metrics *Metrics
	// Ready checks what the gateway needs to carry traffic. It must answer within a second.
	Ready  func(context.Context) []Check
	Logger *slog.Logger
}

// Serve answers on l until ctx ends.
func (h *Health) Serve(ctx context.Context, l net.Listener) error {
	s := &http.Server{
		Handler:           h.Handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(h.Logger.Handler(), slog.LevelDebug),
	}
	return serveUntil(ctx, s, l)
}

// Handler returns the three pages.
func (h *Health) Handler() http.Handler {
	m := http.NewServeMux()
	m.Handle("GET /metrics", h.Metrics.Handler())
	m.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "alive")
	})
	m.HandleFunc("GET /readyz", h.ready)
	return m
}

// ready answers 200 when every check passes and 503 otherwise, with one line a check (or JSON, when asked).
func (h *Health) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	checks, status := h.Ready(ctx), http.StatusOK
	for _, c := range checks {
		if c.Wrong != "" {
			status = http.StatusServiceUnavailable
		}
	}
	w.Header().Set("Cache-Control", "no-store")
	if strings.HasPrefix(r.Header.Get("Accept"), "application/json") {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(checks)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	for _, c := range checks {
		if c.Wrong == "" {
			fmt.Fprintf(w, "ok    %s\n", c.Name)
		} else {
			fmt.Fprintf(w, "WRONG %s: %s\n", c.Name, c.Wrong)
		}
	}
}
