package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/exitgate/exitgate/storage"
)

// failed says what was attempted, in which file.
func (s *store) failed(err error, format string, args ...any) error {
	return fmt.Errorf("%s the SQLite store %s: %w", fmt.Sprintf(format, args...), s.path, err)
}

// all runs a query that reads, and scan for each of its rows.
func all[T any](ctx context.Context, db *sql.DB, scan func(*sql.Rows, *T) error, query string, args ...any) ([]T, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		var v T
		if err := scan(rows, &v); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

func (s *store) Documents(ctx context.Context, kind string) ([]storage.Document, error) {
	if err := storage.CheckKind(kind); err != nil {
		return nil, err
	}
	docs, err := all(ctx, s.ledger, func(rows *sql.Rows, d *storage.Document) error {
		d.Kind = kind
		return rows.Scan(&d.ID, &d.Version, (*[]byte)(&d.Value))
	}, `SELECT "id", "version", "value" FROM documents WHERE "kind" = ? ORDER BY "id"`, kind)
	if err != nil {
		return nil, s.failed(err, "list the documents of kind %q in", kind)
	}
	return docs, nil
}

const oneDocument = `SELECT "version", "value" FROM documents WHERE "kind" = ? AND "id" = ?`

func (s *store) Document(ctx context.Context, kind, id string) (storage.Document, error) {
	d := storage.Document{Kind: kind, ID: id}
	err := storage.CheckName(kind, id)
	if err == nil {
		err = s.ledger.QueryRowContext(ctx, oneDocument, kind, id).Scan(&d.Version, (*[]byte)(&d.Value))
	}
	if err != nil {
		return storage.Document{}, s.failed(absent(err), "read %s %q in", kind, id)
	}
	return d, nil
}

// absent gives the driver's word for no row the store's.
func absent(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return storage.ErrNotFound
	}
	return err
}

const lastChange = `SELECT coalesce(max("seq"), 0) FROM audit`

func (s *store) Revision(ctx context.Context) (seq int64, err error) {
	if err := s.ledger.QueryRowContext(ctx, lastChange).Scan(&seq); err != nil {
		return 0, s.failed(err, "read the revision of")
	}
	return seq, nil
}

func (s *store) Apply(ctx context.Context, c storage.Change, edits ...storage.Edit) (seq int64, err error) {
	plan, err := storage.NewPlan(c, edits)
	if err == nil {
		err = s.tx(ctx, func(tx *sql.Tx) error { // one at a time: it takes the file's only lock of writers first
			if err := tx.QueryRowContext(ctx, lastChange).Scan(&seq); err != nil {
				return err
			}
			for i := range plan.Edits {
				seq++
				if err := edit(ctx, tx, plan, i, seq); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		return 0, s.failed(err, "change the ledger of")
	}
	return seq, nil
}

// edit makes edit i of the plan, as change seq.
func edit(ctx context.Context, tx *sql.Tx, plan *storage.Plan, i int, seq int64) error {
	e := plan.Edits[i]
	there := storage.Document{Kind: e.Kind, ID: e.ID}
	err := tx.QueryRowContext(ctx, oneDocument, e.Kind, e.ID).Scan(&there.Version, (*[]byte)(&there.Value))
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	entry, err := plan.Entry(i, seq, there)
	if err != nil {
		return err
	}
	if e.Value == nil {
		err = remove(ctx, tx, e)
	} else {
		_, err = tx.ExecContext(ctx, `INSERT INTO documents VALUES (?, ?, ?, ?)
			ON CONFLICT ("kind", "id") DO UPDATE SET "version" = excluded."version", "value" = excluded."value"`, e.Kind, e.ID, seq, []byte(e.Value))
	}
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO audit ("seq", "at", "who", "action", "object", "reason", "value") VALUES (?, ?, ?, ?, ?, ?, ?)`,
		seq, entry.At.UnixMicro(), entry.Who, entry.Action, entry.Object, entry.Reason, []byte(entry.Value))
	return err
}

// remove removes a document, and what is known of its use.
func remove(ctx context.Context, tx *sql.Tx, e storage.Edit) error {
	for _, table := range []string{"documents", "uses"} {
		if _, err := tx.ExecContext(ctx, `DELETE FROM `+table+` WHERE "kind" = ? AND "id" = ?`, e.Kind, e.ID); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) Audit(ctx context.Context, f storage.AuditFilter) ([]storage.Entry, error) {
	where, args, err := f.Where(func(int) string { return "?" })
	if err != nil {
		return nil, err
	}
	trail, err := all(ctx, s.ledger, func(rows *sql.Rows, e *storage.Entry) error {
		var at int64
		err := rows.Scan(&e.Seq, &at, &e.Who, &e.Action, &e.Object, &e.Reason, (*[]byte)(&e.Value))
		e.At = time.UnixMicro(at).UTC()
		return err
	}, `SELECT "seq", "at", "who", "action", "object", "reason", "value" FROM audit
		WHERE `+where+` ORDER BY "seq" DESC LIMIT `+strconv.Itoa(f.Most()), args...)
	if err != nil {
		return nil, s.failed(err, "read the audit trail of")
	}
	return trail, nil
}
