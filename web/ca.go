package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// A CA is the interception CA, as the API shows and changes it. A step that does not fit what is there is a Conflict.
type CA interface {
	State() CAState
	// Rotate does one step of a rotation.
	Rotate(r CARotation, overlap time.Duration, c Change) error
	// Request returns a certificate signing request, as PEM, for an issuer that is signed elsewhere.
	Request(c Change) (string, error)
	// Install takes the certificate, as PEM, that was signed for Request.
	Install(certificate string, c Change) error
}

// CAState says what the CA holds, and where a rotation stands.
type CAState struct {
	Phase    string          `json:"phase"` // steady, overlap or leaving
	Roots    []CACertificate `json:"roots"` // that hosts should trust now: first the one that leaves chain to
	Past     []CACertificate `json:"past"`  // that hosts may once have been given, and should trust no more
	Issuer   *CACertificate  `json:"issuer"`
	RootKey  string          `json:"root_key"` // file, offline, or the URI of a KMS
	Key      string          `json:"issuer_key"`
	Begun    time.Time       `json:"begun,omitzero"`     // of the rotation that is under way
	SwitchAt time.Time       `json:"switch_at,omitzero"` // when it switches by itself
	Switched time.Time       `json:"switched,omitzero"`
	Bridged  bool            `json:"bridged"`  // a host that knows only the leaving root accepts leaves
	Concerns []string        `json:"concerns"` // what a person has to see to, with what to do
}

// CACertificate is a certificate of the CA.
type CACertificate struct {
	Role        string    `json:"role"` // current, next, leaving, past or issuer
	Subject     string    `json:"subject"`
	Fingerprint string    `json:"fingerprint"` // SHA-256 in lower-case hex
	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
	Certificate string    `json:"certificate"` // PEM
}

// The steps of a rotation.
const (
	CARotateRoot   = "root"   // make the next root, and publish it beside the current one
	CARotateIssuer = "issuer" // make a new issuer under the current root; no host notices
	CASwitch       = "switch" // leaves chain to the next root from now on
	CAFinish       = "finish" // the old root is no longer published
	CACancel       = "cancel" // before the switch: the next root is no longer published
)

// CARotation asks for one step of a rotation.
type CARotation struct {
	Step string `json:"step"`
	// Overlap is the time span after which a root's rotation switches by itself, such as 720h; "": when it is told to.
	Overlap string `json:"overlap,omitempty"`
	// Key is the URI of the next root's key; "": as the configuration says.
	Key string `json:"key,omitempty"`
	// Certificate is the next root, as PEM, when its key is offline.
	Certificate string `json:"certificate,omitempty"`
	// Bridge, as PEM, was signed for it by the current root, whose key is offline too.
	Bridge string `json:"bridge,omitempty"`
	Reason string `json:"reason"`
}

// CAIssuer brings an issuer that was signed elsewhere.
type CAIssuer struct {
	Certificate string `json:"certificate"`
	Reason      string `json:"reason"`
}

// CARequest is a certificate signing request.
type CARequest struct {
	Request string `json:"request"`
}

func (a *Admin) caState(w http.ResponseWriter, _ *http.Request) error {
	if a.CA == nil {
		return errNoCA()
	}
	answer(w, http.StatusOK, a.CA.State())
	return nil
}

func errNoCA() error { return NotFound(errors.New("this gateway has no interception CA")) }

func (a *Admin) caRotate(w http.ResponseWriter, r *http.Request) error {
	var in CARotation
	return a.caChange(w, r, &in, func() string { return in.Reason }, func(c Change) error {
		overlap, err := in.check()
		if err != nil {
			return Invalid(fmt.Errorf("rotate the CA: %w", err))
		}
		return a.CA.Rotate(in, overlap, c)
	})
}

// check returns the overlap that is asked for.
func (r CARotation) check() (time.Duration, error) {
	switch r.Step {
	case CARotateRoot:
	case CARotateIssuer, CASwitch, CAFinish, CACancel:
		if r.Overlap+r.Key+r.Certificate+r.Bridge != "" {
			return 0, fmt.Errorf("step %s takes neither overlap nor key nor certificate", r.Step)
		}
	default:
		return 0, fmt.Errorf("step %.20q is none of root, issuer, switch, finish, cancel", r.Step)
	}
	if r.Overlap == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(r.Overlap)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("overlap %.20q is not a time span such as 720h", r.Overlap)
	}
	return d, nil
}

func (a *Admin) caInstall(w http.ResponseWriter, r *http.Request) error {
	var in CAIssuer
	return a.caChange(w, r, &in, func() string { return in.Reason }, func(c Change) error {
		return a.CA.Install(in.Certificate, c)
	})
}

func (a *Admin) caRequest(w http.ResponseWriter, r *http.Request) error {
	if a.CA == nil {
		return errNoCA()
	}
	c, err := a.caAuthor(r)
	if err != nil {
		return err
	}
	request, err := a.CA.Request(c)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, CARequest{request})
	return nil
}

// caChange reads in, checks who changes what and why, and answers with the state after do.
func (a *Admin) caChange(w http.ResponseWriter, r *http.Request, in any, reason func() string, do func(Change) error) error {
	if a.CA == nil {
		return errNoCA()
	}
	c, err := a.caAuthor(r)
	if err != nil {
		return err
	}
	if err := decode(w, r, in); err != nil {
		return err
	}
	c.Reason = reason()
	if err := checkReason(c.Reason); err != nil {
		return Invalid(fmt.Errorf("change the CA: %w", err))
	}
	a.change.Lock()
	defer a.change.Unlock()
	if err := do(c); err != nil {
		return err
	}
	state := a.CA.State()
	if err := a.noteCA(context.WithoutCancel(r.Context()), c, state); err != nil {
		return fmt.Errorf("the CA was changed, and the audit trail does not say so: %w", err)
	}
	answer(w, http.StatusOK, state)
	return nil
}

// KindCA is the kind of the document that says how the CA was left by the last change: the audit trail has them all.
const KindCA = "ca"

func (a *Admin) noteCA(ctx context.Context, c Change, state CAState) error {
	value, err := json.Marshal(state)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err = a.Mirror.Ledger.Apply(ctx, c, Edit{Kind: KindCA, ID: "interception", Value: value})
	return err
}

// caAuthor returns who changes the CA, and when.
func (a *Admin) caAuthor(r *http.Request) (c Change, err error) {
	c.At = a.now().Truncate(time.Second)
	c.Who, err = principal(r).change()
	return c, err
}
