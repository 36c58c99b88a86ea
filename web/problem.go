package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
)

// MaxBody bounds the body of a request to the API, in bytes.
const MaxBody = 1 << 20

// A Problem is an error with the HTTP status that says what kind it is; see [Invalid], [NotFound] and [Conflict]. It
// is rendered as RFC 9457 says.
type Problem struct {
	Type   string `json:"type"`   // always "about:blank": the status says the kind
	Title  string `json:"title"`  // the status in words
	Status int    `json:"status"` // the HTTP status
	Detail string `json:"detail"` // what was attempted, on what, and why it failed

	cause error
}

func (p *Problem) Error() string { return p.Detail }

// Unwrap returns the cause, if there is one.
func (p *Problem) Unwrap() error { return p.cause }

func problem(status int, err error) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: err.Error(), cause: err}
}

// Invalid says that what the client asked for cannot be: 400.
func Invalid(err error) *Problem { return problem(http.StatusBadRequest, err) }

// NotFound says that there is no such thing: 404.
func NotFound(err error) *Problem { return problem(http.StatusNotFound, err) }

// Conflict says that what is there already stands against it: 409.
func Conflict(err error) *Problem { return problem(http.StatusConflict, err) }

// fail answers with err. An error that is no Problem is the gateway's own and is logged as well.
func fail(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	p := new(Problem)
	switch {
	case errors.As(err, &p):
		p = &Problem{Type: p.Type, Title: p.Title, Status: p.Status, Detail: err.Error()}
	case errors.Is(err, context.DeadlineExceeded):
		p = problem(http.StatusServiceUnavailable, err)
	default:
		p = problem(http.StatusInternalServerError, err)
		log.Error("the admin API failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}

// answer writes v as JSON.
func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// decode reads the body of r into v, strictly.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	if ct := r.Header.Get("Content-Type"); ct != "" {
		if t, _, err := mime.ParseMediaType(ct); err != nil || t != "application/json" {
			return problem(http.StatusUnsupportedMediaType, fmt.Errorf("read the body: its type is %.60q; the API takes application/json", ct))
		}
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, MaxBody))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = errors.New("something follows the JSON value")
		}
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return problem(http.StatusRequestEntityTooLarge, fmt.Errorf("read the body: it is larger than %d bytes", large.Limit))
	case errors.Is(err, io.EOF):
		err = errors.New("it is empty")
	}
	return Invalid(fmt.Errorf("read the body: %w", err))
}
