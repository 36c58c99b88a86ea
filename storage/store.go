package storage

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/exitgate/exitgate"
)

// ErrNotFound says that what was asked for, by id, is not in the store.
var ErrNotFound = errors.New("not in the store")

// A FlowWriter takes batches of flows.
type FlowWriter interface {
	// WriteRows stores flows, all or none, and returns when they are durable. A flow that is already stored is
	// replaced if its stored version is open, and left alone if that has ended. A batch may name a flow twice.
	// The rows are neither kept nor changed. Up to 5,000 rows in a batch are reasonable.
	WriteRows(ctx context.Context, rows []Row) error
}

// A FlowReader finds flows.
type FlowReader interface {
	// Flows returns the flows that match, newest (highest id) first, at most Filter.Limit of them.
	Flows(ctx context.Context, filter Filter) ([]*exitgate.Flow, error)
	// Flow returns one flow, or ErrNotFound.
	Flow(ctx context.Context, id exitgate.ID) (*exitgate.Flow, error)
}

// Grants keeps the grants that were made through the API. Grants come back in order of id, with Source "store".
type Grants interface {
	Grants(ctx context.Context) ([]exitgate.Grant, error)
	// PutGrant makes or replaces the grant with g's id, and writes the audit entry in the same transaction.
	PutGrant(ctx context.Context, g exitgate.Grant, c Change) error
	// RemoveGrant removes it, and writes the audit entry in the same transaction; ErrNotFound if there is none.
	RemoveGrant(ctx context.Context, id string, c Change) error
}

// Exemptions keeps the exemptions that were made through the API, as [Grants] does grants.
type Exemptions interface {
	Exemptions(ctx context.Context) ([]exitgate.Exemption, error)
	PutExemption(ctx context.Context, e exitgate.Exemption, c Change) error
	RemoveExemption(ctx context.Context, id string, c Change) error
}

// An Auditor lists who changed what. Entries are added by the calls that change something, and by nothing else;
// no call changes or removes one.
type Auditor interface {
	// Audit returns entries, newest first, at most limit of them (0: 100), and only those older than before
	// when that is not 0.
	Audit(ctx context.Context, before int64, limit int) ([]Entry, error)
}

// A Store is a database that keeps it all. Every method is safe for concurrent use and returns soon after its
// context is done. Errors never hold a password.
type Store interface {
	FlowWriter
	FlowReader
	Grants
	Exemptions
	Auditor
	// Ping reports whether the store would answer now; nil when it would.
	Ping(ctx context.Context) error
	// Close waits for the calls that run and releases the store. What was written stays.
	Close() error
}

// A Change says who changes something, and why.
type Change struct {
	At     time.Time // zero: now
	Who    string    // never empty
	Reason string    // never empty
}

// Check returns an error when c does not say who or why.
func (c Change) Check() error {
	switch {
	case c.Who == "":
		return errors.New("the change does not say who makes it")
	case c.Reason == "":
		return errors.New("the change does not say why: give a reason")
	}
	return nil
}

// The actions of audit entries.
const (
	GrantPut        = "grant.put"
	GrantRemove     = "grant.remove"
	ExemptionPut    = "exemption.put"
	ExemptionRemove = "exemption.remove"
)

// An Entry is one line of the audit trail.
type Entry struct {
	Seq    int64           `json:"seq"` // rises by order of commit within one store; may have gaps
	At     time.Time       `json:"at"`  // UTC, microseconds
	Who    string          `json:"who"`
	Action string          `json:"action"`
	Object string          `json:"object"` // id of the grant or exemption
	Reason string          `json:"reason"`
	Value  json.RawMessage `json:"value"` // the object as it was put, or as it was before it was removed
}
