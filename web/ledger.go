package web

import (
	"context"
	"encoding/json"
	"time"

	"github.com/exitgate/exitgate"
)

// The kinds of document that the API changes.
const (
	KindClass     = "class"
	KindHost      = "host"
	KindHostToken = "host-token"
	KindAPIToken  = "api-token"
	KindGrant     = "grant"
	KindExemption = "exemption"
	KindRequest   = "request"
)

// A Document is one entry of the ledger.
type Document struct {
	Kind, ID string
	Version  int64 // the sequence of the change that wrote it; never 0
	Value    json.RawMessage
}

// An Edit writes one document, or removes it when Value is nil.
type Edit struct {
	Kind, ID string
	Value    json.RawMessage
	If       int64 // the version that is expected; 0: any, MustNotExist: none
}

// MustNotExist is the If of an Edit that makes a document.
const MustNotExist = -1

// A Ledger keeps what people and machines change while gateways run, for all gateways together.
type Ledger interface {
	// Documents returns every document of a kind.
	Documents(ctx context.Context, kind string) ([]Document, error)
	// Document returns one, or NotFound.
	Document(ctx context.Context, kind, id string) (Document, error)
	// Apply makes all edits or none, and adds one entry to the audit trail for each. It is ErrChanged when a
	// document has another version than an edit expects. It returns the sequence of the last entry.
	Apply(ctx context.Context, c Change, edits ...Edit) (seq int64, err error)
	// Revision returns the highest sequence of the audit trail; 0 when nothing was changed ever. It is asked
	// several times a second.
	Revision(ctx context.Context) (int64, error)
	// Audit returns entries of the audit trail, newest first.
	Audit(ctx context.Context, f AuditFilter) ([]Entry, error)
}

// An AuditFilter says which entries of the audit trail are wanted. Each field that is not zero narrows it.
type AuditFilter struct {
	Kind, Object, Who string
	After, Before     int64 // only entries with a greater, and a lesser, Seq
	Limit             int   // at most so many
}

// A Change says who changes something, when and why.
type Change struct {
	At     time.Time
	Who    string // never empty
	Reason string // never empty
}

// An Entry is one line of the audit trail.
type Entry struct {
	Seq    int64           `json:"seq"` // rises with each entry; may have gaps
	At     time.Time       `json:"at"`
	Who    string          `json:"who"`
	Action string          `json:"action"` // the kind and what was done: grant.put, host.remove
	Object string          `json:"object"` // the ID of what was changed
	Reason string          `json:"reason"`
	Value  json.RawMessage `json:"value"` // the entry as it was put, or as it was before it was removed
}

// Files tells what stands in files: the API lists it beside what is in the ledger, and refuses to change it. Each
// entry says in its Source which file it is, and they are in the order of their ids. A nil function has nothing.
type Files struct {
	Classes    func() []Class
	Hosts      func() []Host
	Grants     func() []exitgate.Grant
	Exemptions func() []exitgate.Exemption
}
