package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// An IdentityCA is the authority of hosts' identities, as the API shows and changes it. A step that does not fit what is
// there is a Conflict.
type IdentityCA interface {
	State() IdentityState
	// Rotate does one step of a rotation.
	Rotate(ctx context.Context, r IdentityRotation) error
	// Revoke makes an identity invalid, by its serial; what was renewed from it has another.
	Revoke(ctx context.Context, serial, reason string) error
}

// IdentityState says what the identity authority holds, and where a rotation stands.
type IdentityState struct {
	Roots       []IdentityRoot `json:"roots"` // that are trusted now; first the one in force
	IssuerEnds  time.Time      `json:"issuer_not_after"`
	Rotating    bool           `json:"rotating"`
	Since       time.Time      `json:"since,omitzero"`        // of the rotation that is under way
	FinishAfter time.Time      `json:"finish_after,omitzero"` // from when finishing it cuts off no host
}

// An IdentityRoot is a root of hosts' identities.
type IdentityRoot struct {
	Subject     string    `json:"subject"`
	Fingerprint string    `json:"fingerprint"` // SHA-256 in lower-case hex: what hosts enrol with
	NotAfter    time.Time `json:"not_after"`
	InForce     bool      `json:"in_force"`
	KeyAway     string    `json:"key_away,omitempty"` // why its key cannot be used now
}

// IdentityRotation asks for one step of a rotation of the identity root.
type IdentityRotation struct {
	Step   string `json:"step"`            // root, issuer or finish
	Key    string `json:"key,omitempty"`   // URI of the next root's key; "": as the configuration says
	Force  bool   `json:"force,omitempty"` // finish before every identity under the old root has ended
	Reason string `json:"reason"`
}

// IdentityRevocation takes an identity back.
type IdentityRevocation struct {
	Serial string `json:"serial"` // decimal
	Reason string `json:"reason"`
}

// KindIdentityCA is the kind of the document that says how the identity authority was left by the last change.
const KindIdentityCA = "identity-ca"

func errNoIdentityCA() error {
	return NotFound(errors.New("this gateway gives no identities: set listen.enroll or listen.tls_proxy"))
}

func (a *Admin) identityState(w http.ResponseWriter, _ *http.Request) error {
	if a.IdentityCA == nil {
		return errNoIdentityCA()
	}
	answer(w, http.StatusOK, a.IdentityCA.State())
	return nil
}

func (a *Admin) identityRotate(w http.ResponseWriter, r *http.Request) error {
	var in IdentityRotation
	return a.identityChange(w, r, &in, func() (string, any) { return in.Reason, in }, func(ctx context.Context) error {
		switch in.Step {
		case "root", "issuer", "finish":
			return a.IdentityCA.Rotate(ctx, in)
		}
		return Invalid(fmt.Errorf("rotate the identity root: step %.20q is none of root, issuer, finish", in.Step))
	})
}

func (a *Admin) identityRevoke(w http.ResponseWriter, r *http.Request) error {
	var in IdentityRevocation
	return a.identityChange(w, r, &in, func() (string, any) { return in.Reason, in }, func(ctx context.Context) error {
		if in.Serial == "" || len(in.Serial) > 64 {
			return Invalid(errors.New("revoke an identity: say its serial, as exitgate host list -o json has it"))
		}
		return a.IdentityCA.Revoke(ctx, in.Serial, in.Reason)
	})
}

// identityChange reads in, checks who changes what and why, does it, and writes it to the audit trail.
func (a *Admin) identityChange(w http.ResponseWriter, r *http.Request, in any, said func() (reason string, what any), do func(context.Context) error) error {
	if a.IdentityCA == nil {
		return errNoIdentityCA()
	}
	c, err := a.caAuthor(r)
	if err != nil {
		return err
	}
	if err := decode(w, r, in); err != nil {
		return err
	}
	reason, what := said()
	c.Reason = reason
	if err := checkReason(reason); err != nil {
		return Invalid(fmt.Errorf("change the identity authority: %w", err))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 30*time.Second)
	defer cancel()
	a.change.Lock()
	defer a.change.Unlock()
	if err := do(ctx); err != nil {
		return err
	}
	value, err := json.Marshal(map[string]any{"change": what, "state": a.IdentityCA.State()})
	if err == nil {
		_, err = a.Mirror.Ledger.Apply(ctx, c, Edit{Kind: KindIdentityCA, ID: "identity", Value: value})
	}
	if err != nil {
		return fmt.Errorf("the identity authority was changed, and the audit trail does not say so: %w", err)
	}
	answer(w, http.StatusOK, a.IdentityCA.State())
	return nil
}
