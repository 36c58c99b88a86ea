package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"
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
	retry int // seconds after which it may go well; 0: not said
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

// Forbidden says that whoever asks may not have or do it: 403.
func Forbidden(err error) *Problem { return problem(http.StatusForbidden, err) }

// Changed says that what is there is not what the client expects: 412.
func Changed(err error) *Problem { return problem(http.StatusPreconditionFailed, err) }

// Unavailable says that it cannot be done now: 503.
func Unavailable(err error) *Problem { return problem(http.StatusServiceUnavailable, err) }

// IsNotFound reports whether err is a NotFound.
func IsNotFound(err error) bool { return hasStatus(err, http.StatusNotFound) }

// IsConflict reports whether err is a Conflict.
func IsConflict(err error) bool { return hasStatus(err, http.StatusConflict) }

func hasStatus(err error, status int) bool {
	p := new(Problem)
	return errors.As(err, &p) && p.Status == status
}

// fail answers with err. An error that is no Problem is the gateway's own and is logged as well.
func fail(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	p := new(Problem)
	switch {
	case errors.As(err, &p):
		if p.retry > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(p.retry))
			w.Header().Set("Connection", "close")
		}
		p = &Problem{Type: p.Type, Title: p.Title, Status: p.Status, Detail: err.Error()}
	case errors.Is(err, context.DeadlineExceeded):
		p = problem(http.StatusServiceUnavailable, err)
	default:
		p = problem(http.StatusInternalServerError, err)
		log.Error("the API failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}

// Answer writes v as JSON.
func Answer(w http.ResponseWriter, status int, v any) { answer(w, status, v) }

// Fail answers with err, as a problem document.
func Fail(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) { fail(w, r, log, err) }

// Decode reads the body of r into v, strictly.
func Decode(w http.ResponseWriter, r *http.Request, v any) error { return decode(w, r, v) }

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
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return problem(http.StatusRequestEntityTooLarge, fmt.Errorf("read the body: it is larger than %d bytes", large.Limit))
	case err != nil:
	case len(b) == 0:
		err = errors.New("it is empty")
	default:
		err = strictly(b, v)
	}
	if err != nil {
		return Invalid(fmt.Errorf("read the body: %w", err))
	}
	return nil
}

// strictly reads one JSON value. What encoding/json takes and different readers understand differently is an error:
// unknown members, two members of one name (in whatever case), bytes that are not UTF-8.
func strictly(b []byte, v any) error {
	if !utf8.Valid(b) {
		return errors.New("it is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON value")
	}
	return distinct(json.NewDecoder(bytes.NewReader(b)))
}

// distinct returns an error when a member of the next value has the name of another, in whatever case.
func distinct(d *json.Decoder) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	open, nested := t.(json.Delim)
	if !nested {
		return nil
	}
	seen := map[string]bool{}
	for d.More() {
		if open == '{' {
			name, err := d.Token()
			if err != nil {
				return err
			}
			low := strings.ToLower(strings.ToUpper(name.(string))) // as encoding/json folds
			if seen[low] {
				return fmt.Errorf("the member %.60q is there twice", name)
			}
			seen[low] = true
		}
		if err := distinct(d); err != nil {
			return err
		}
	}
	_, err = d.Token() // the end
	return err
}
