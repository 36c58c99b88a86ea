package web

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// vault is a CA that notes what it was asked for.
type vault struct {
	asked   []string
	overlap time.Duration
	change  Change
	err     error
}

func (v *vault) State() CAState { return CAState{Phase: "steady", Concerns: []string{}} }

func (v *vault) Rotate(r CARotation, overlap time.Duration, c Change) error {
	v.asked, v.overlap, v.change = append(v.asked, r.Step), overlap, c
	return v.err
}

func (v *vault) Request(c Change) (string, error) {
	v.asked, v.change = append(v.asked, "request"), c
	return "a request", v.err
}

func (v *vault) Install(certificate string, c Change) error {
	v.asked, v.change = append(v.asked, "install "+certificate), c
	return v.err
}

func TestCA(t *testing.T) {
	b := newBench(t)
	v := &vault{}
	b.CA = v
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string // in the answer
		asked              string // of the CA
	}{
		{"GET", "/v1/ca", "", 200, `"phase":"steady"`, ""},
		{"POST", "/v1/ca/rotate", `{"step":"root","overlap":"720h","reason":"r"}`, 200, "steady", "root"},
		{"POST", "/v1/ca/rotate", `{"step":"issuer","reason":"r"}`, 200, "steady", "issuer"},
		{"POST", "/v1/ca/rotate", `{"step":"switch","reason":"r"}`, 200, "steady", "switch"},
		{"POST", "/v1/ca/rotate", `{"step":"finish","reason":"r"}`, 200, "steady", "finish"},
		{"POST", "/v1/ca/rotate", `{"step":"cancel","reason":"r"}`, 200, "steady", "cancel"},
		{"POST", "/v1/ca/rotate", `{"step":"root"}`, 400, "reason", ""},
		{"POST", "/v1/ca/rotate", `{"step":"root","reason":" "}`, 400, "reason", ""},
		{"POST", "/v1/ca/rotate", `{"reason":"r"}`, 400, "none of root", ""},
		{"POST", "/v1/ca/rotate", `{"step":"burn","reason":"r"}`, 400, "none of root", ""},
		{"POST", "/v1/ca/rotate", `{"step":"switch","overlap":"1h","reason":"r"}`, 400, "neither overlap", ""},
		{"POST", "/v1/ca/rotate", `{"step":"root","overlap":"soon","reason":"r"}`, 400, "time span", ""},
		{"POST", "/v1/ca/rotate", `{"step":"root","overlap":"-1h","reason":"r"}`, 400, "time span", ""},
		{"POST", "/v1/ca/rotate", `{"step":"root","colour":"red","reason":"r"}`, 400, "colour", ""},
		{"POST", "/v1/ca/rotate", ``, 400, "empty", ""},
		{"POST", "/v1/ca/rotate", `{"step":"` + strings.Repeat("x", MaxBody) + `"}`, 413, "larger", ""},
		{"POST", "/v1/ca/request", "", 200, `"request":"a request"`, "request"},
		{"POST", "/v1/ca/issuer", `{"certificate":"PEM","reason":"r"}`, 200, "steady", "install PEM"},
		{"POST", "/v1/ca/issuer", `{"certificate":"PEM"}`, 400, "reason", ""},
		{"GET", "/v1/ca/rotate", "", 405, "takes POST", ""},
	} {
		v.asked = nil
		status, _, out := b.ask(t, c.method, c.path, c.body)
		if status != c.status || !strings.Contains(out, c.want) || strings.Join(v.asked, ",") != c.asked {
			t.Errorf("%s %s %.80s: %d %.200s, the CA was asked for %q", c.method, c.path, c.body, status, out, v.asked)
		}
	}
	if _, _, _ = b.ask(t, "POST", "/v1/ca/rotate", `{"step":"root","overlap":"720h","reason":"r"}`); v.overlap != 720*time.Hour || v.change.Who == "" || v.change.Reason != "r" || v.change.At.IsZero() {
		t.Errorf("overlap %v, change %+v", v.overlap, v.change)
	}
	v.err = Conflict(fmt.Errorf("not now"))
	for path, body := range map[string]string{"rotate": `{"step":"switch","reason":"r"}`, "request": "", "issuer": `{"certificate":"PEM","reason":"r"}`} {
		if status, _, out := b.ask(t, "POST", "/v1/ca/"+path, body); status != http.StatusConflict || !strings.Contains(out, "not now") {
			t.Errorf("%s: %d %s", path, status, out)
		}
	}
	v.err = errors.New("broken")
	if status, _, _ := b.ask(t, "POST", "/v1/ca/rotate", `{"step":"switch","reason":"r"}`); status != http.StatusInternalServerError {
		t.Errorf("a bug is %d", status)
	}
	b.CA = nil
	for _, path := range []string{"GET /v1/ca", "POST /v1/ca/rotate", "POST /v1/ca/request", "POST /v1/ca/issuer"} {
		method, path, _ := strings.Cut(path, " ")
		if status, _, _ := b.ask(t, method, path, "{}"); status != http.StatusNotFound {
			t.Errorf("%s without a CA: %d", path, status)
		}
	}
}
