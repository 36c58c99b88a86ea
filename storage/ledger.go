package storage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// The kinds of document that the gateway keeps. A store takes any other kind as well.
const (
	KindGrant     = "grant"
	KindExemption = "exemption"
	KindClass     = "class"
	KindHost      = "host"
	KindHostToken = "host-token"
	KindAPIToken  = "api-token"
	KindRequest   = "request"
)

// ErrConflict says that a document has not the version that an edit expected: somebody changed it meanwhile. Who reads
// it again and decides again loses nothing.
var ErrConflict = errors.New("it was changed meanwhile")

// A Document is one thing that people or machines change while the gateway runs. Kind and ID name it.
type Document struct {
	Kind    string          `json:"kind"` // lower-case letters, digits and dashes; at most 32
	ID      string          `json:"id"`   // printable; at most 512 bytes
	Version int64           `json:"version"`
	Value   json.RawMessage `json:"value"` // a JSON object, byte for byte as it was put but for white space
}

// An Edit puts one document, or removes it.
type Edit struct {
	Kind, ID string
	Value    json.RawMessage // a JSON object of at most MaxValue bytes; nil removes the document
	// If is the version that the document must have: 0 any or none, MustNotExist none.
	If int64
}

// MustNotExist is the If of an Edit that makes a document.
const MustNotExist int64 = -1

const (
	MaxValue = 1 << 20 // bytes of a document
	MaxEdits = 10_000  // of one Apply
)

// A Ledger keeps documents, and who changed each of them, when and why. Never put a secret into a document: its hash at
// most, since the audit trail keeps every value for good.
//
// Every change has a number, which rises by one from change to change in the order in which they became visible, for all
// gateways that share the store. It is the Seq of the entry in the audit trail and the Version of the document that was
// put. So a document that is removed and made again never has a version that it had before.
type Ledger interface {
	// Documents returns all documents of a kind in the order of their ids (by bytes).
	Documents(ctx context.Context, kind string) ([]Document, error)
	// Document returns one document, or ErrNotFound.
	Document(ctx context.Context, kind, id string) (Document, error)
	// Apply makes all edits, in the order given, or none of them, and writes one audit entry for each in the same
	// transaction. It returns the number of the last, so that edit i of n has number seq-n+1+i.
	//
	// An edit whose If does not hold is ErrConflict; to remove what is not there, with an If of 0, is ErrNotFound. Of
	// two calls that expect the same version of a document only one succeeds, whatever process makes them. A document
	// may be named once in a call. After an error of another kind the change may have been made or not; a call whose
	// edits have an If may be repeated all the same, and ErrConflict then says that it had been made.
	//
	// Uses of a document that is removed are forgotten with it.
	Apply(ctx context.Context, c Change, edits ...Edit) (seq int64, err error)
	// Revision returns the number of the last change, 0 when there was none. Who saw revision n finds every change up
	// to n by each read that starts later. It is one look-up in an index: a gateway may ask several times a second.
	Revision(ctx context.Context) (int64, error)
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

// Check returns an error when no store takes e.
func (e Edit) Check() error {
	if err := CheckName(e.Kind, e.ID); err != nil {
		return err
	}
	value := bytes.TrimLeft(e.Value, " \t\r\n")
	switch {
	case e.If < MustNotExist:
		return fmt.Errorf("it expects version %d: the least is %d, which says that there is none", e.If, MustNotExist)
	case e.Value == nil && e.If == MustNotExist:
		return errors.New("it removes a document that it expects not to exist")
	case e.Value == nil:
		return nil
	case len(e.Value) > MaxValue:
		return fmt.Errorf("its value has %d bytes, and at most %d are kept", len(e.Value), MaxValue)
	case !json.Valid(e.Value) || value[0] != '{':
		return errors.New("its value is not a JSON object")
	}
	return nil
}

// CheckName returns an error when kind and id do not name a document.
func CheckName(kind, id string) error {
	if err := CheckKind(kind); err != nil {
		return err
	}
	switch {
	case id == "":
		return errors.New("it has no id")
	case Printable(id, maxShort) != id:
		return errors.New("its id is too long, or is not printable")
	}
	return nil
}

// CheckKind returns an error when kind is not the name of a kind.
func CheckKind(kind string) error {
	const chars = "abcdefghijklmnopqrstuvwxyz0123456789-"
	if kind == "" || len(kind) > 32 || strings.Trim(kind, chars) != "" {
		return fmt.Errorf("%q is not a kind: 1 to 32 lower-case letters, digits and dashes", Printable(kind, 64))
	}
	return nil
}
