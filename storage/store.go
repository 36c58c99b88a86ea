package storage

import (
	"context"
	"errors"

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

// A Store is a database that keeps it all. Every method is safe for concurrent use and returns soon after its
// context is done. Errors never hold a password.
type Store interface {
	FlowWriter
	FlowReader
	Ledger
	Auditor
	Uses
	// KV returns the keys and values of this store; they close with it.
	KV() KV
	// Ping reports whether the store would answer now; nil when it would.
	Ping(ctx context.Context) error
	// Close waits for the calls that run and releases the store. What was written stays.
	Close() error
}
