package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/exitgate/exitgate"
)

// SourceStore is the Source of a grant or exemption that comes from a store.
const SourceStore = "store"

// Values returns the documents of a kind, read as T, in the order of their ids.
func Values[T any](ctx context.Context, l Ledger, kind string) ([]T, error) {
	docs, err := l.Documents(ctx, kind)
	if err != nil {
		return nil, err
	}
	all := make([]T, len(docs))
	for i, d := range docs {
		if all[i], err = Value[T](d); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Value reads a document as T. Members that T does not have are left out.
func Value[T any](d Document) (v T, err error) {
	if err := json.Unmarshal(d.Value, &v); err != nil {
		return v, fmt.Errorf("read the stored %s %q: %w", d.Kind, d.ID, err)
	}
	return v, nil
}

// Put returns the edit that makes v the value of a document, if it has the version given (see [Edit]).
func Put(kind, id string, v any, version int64) (Edit, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return Edit{}, fmt.Errorf("write %s %q: %w", kind, id, err)
	}
	return Edit{Kind: kind, ID: id, Value: b, If: version}, nil
}

// Update has f change the value of a document and applies that, over again from the newest value when somebody else
// changed the document meanwhile: f may be called several times. It returns the value that was put and its version. An
// error of f ends it and is returned as it is; ErrNotFound says that there is no such document.
func Update[T any](ctx context.Context, l Ledger, kind, id string, c Change, f func(*T) error) (v T, version int64, err error) {
	for {
		d, err := l.Document(ctx, kind, id)
		if err != nil {
			return v, 0, err
		}
		if v, err = Value[T](d); err != nil {
			return v, 0, err
		}
		if err := f(&v); err != nil {
			return v, 0, err
		}
		edit, err := Put(kind, id, v, d.Version)
		if err != nil {
			return v, 0, err
		}
		if version, err = l.Apply(ctx, c, edit); !errors.Is(err, ErrConflict) {
			return v, version, err
		}
	}
}

// Remove removes a document, whatever version it has; ErrNotFound if there is none.
func Remove(ctx context.Context, l Ledger, kind, id string, c Change) error {
	_, err := l.Apply(ctx, c, Edit{Kind: kind, ID: id})
	return err
}

func put(ctx context.Context, l Ledger, kind, id string, v any, c Change) error {
	edit, err := Put(kind, id, v, 0)
	if err == nil {
		_, err = l.Apply(ctx, c, edit)
	}
	return err
}

// Grants returns the grants of the ledger, with Source [SourceStore].
func Grants(ctx context.Context, l Ledger) ([]exitgate.Grant, error) {
	all, err := Values[exitgate.Grant](ctx, l, KindGrant)
	for i := range all {
		all[i].Source = SourceStore
	}
	return all, err
}

// PutGrant makes or replaces the grant with g's id.
func PutGrant(ctx context.Context, l Ledger, g exitgate.Grant, c Change) error {
	g.Source = ""
	return put(ctx, l, KindGrant, g.ID, g, c)
}

// Exemptions returns the exemptions of the ledger, with Source [SourceStore].
func Exemptions(ctx context.Context, l Ledger) ([]exitgate.Exemption, error) {
	all, err := Values[exitgate.Exemption](ctx, l, KindExemption)
	for i := range all {
		all[i].Source = SourceStore
	}
	return all, err
}

// PutExemption makes or replaces the exemption with e's id.
func PutExemption(ctx context.Context, l Ledger, e exitgate.Exemption, c Change) error {
	e.Source = ""
	return put(ctx, l, KindExemption, e.ID, e, c)
}
