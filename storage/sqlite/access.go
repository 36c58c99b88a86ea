package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage"
)

func (s *store) Grants(ctx context.Context) ([]exitgate.Grant, error) {
	grants, err := list[exitgate.Grant](ctx, s, "grants")
	for i := range grants {
		grants[i].Source = storage.SourceStore
	}
	return grants, err
}

func (s *store) PutGrant(ctx context.Context, g exitgate.Grant, c storage.Change) error {
	g.Source = ""
	return s.put(ctx, "grants", storage.GrantPut, g.ID, g, c)
}

func (s *store) RemoveGrant(ctx context.Context, id string, c storage.Change) error {
	return s.remove(ctx, "grants", storage.GrantRemove, id, c)
}

func (s *store) Exemptions(ctx context.Context) ([]exitgate.Exemption, error) {
	exemptions, err := list[exitgate.Exemption](ctx, s, "exemptions")
	for i := range exemptions {
		exemptions[i].Source = storage.SourceStore
	}
	return exemptions, err
}

func (s *store) PutExemption(ctx context.Context, e exitgate.Exemption, c storage.Change) error {
	e.Source = ""
	return s.put(ctx, "exemptions", storage.ExemptionPut, e.ID, e, c)
}

func (s *store) RemoveExemption(ctx context.Context, id string, c storage.Change) error {
	return s.remove(ctx, "exemptions", storage.ExemptionRemove, id, c)
}

func list[T any](ctx context.Context, s *store, table string) ([]T, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT "value" FROM `+table+` ORDER BY "id"`)
	if err != nil {
		return nil, fmt.Errorf("list %s of the SQLite store %s: %w", table, s.path, err)
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		var b sql.RawBytes
		var v T
		if err := rows.Scan(&b); err != nil {
			return nil, fmt.Errorf("list %s of the SQLite store %s: %w", table, s.path, err)
		}
		if err := json.Unmarshal(b, &v); err != nil {
			return nil, fmt.Errorf("list %s of the SQLite store %s: %w", table, s.path, err)
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

func (s *store) put(ctx context.Context, table, action, id string, v any, c storage.Change) error {
	e, err := storage.NewEntry(action, id, v, c)
	if err == nil {
		err = s.tx(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO `+table+` ("id", "value") VALUES (?, ?)
				ON CONFLICT ("id") DO UPDATE SET "value" = excluded."value"`, id, []byte(e.Value))
			if err != nil {
				return err
			}
			return record(ctx, tx, e)
		})
	}
	if err != nil {
		return fmt.Errorf("%s %q in the SQLite store %s: %w", action, id, s.path, err)
	}
	return nil
}

func (s *store) remove(ctx context.Context, table, action, id string, c storage.Change) error {
	e, err := storage.NewEntry(action, id, nil, c)
	if err == nil {
		err = s.tx(ctx, func(tx *sql.Tx) error {
			err := tx.QueryRowContext(ctx, `DELETE FROM `+table+` WHERE "id" = ? RETURNING "value"`, id).Scan((*[]byte)(&e.Value))
			if errors.Is(err, sql.ErrNoRows) {
				return storage.ErrNotFound
			}
			if err != nil {
				return err
			}
			return record(ctx, tx, e)
		})
	}
	if err != nil {
		return fmt.Errorf("%s %q in the SQLite store %s: %w", action, id, s.path, err)
	}
	return nil
}

func record(ctx context.Context, tx *sql.Tx, e storage.Entry) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO audit ("at", "who", "action", "object", "reason", "value") VALUES (?, ?, ?, ?, ?, ?)`,
		e.At.UnixMicro(), e.Who, e.Action, e.Object, e.Reason, []byte(e.Value))
	return err
}

func (s *store) Audit(ctx context.Context, before int64, limit int) ([]storage.Entry, error) {
	before, limit = storage.AuditPage(before, limit)
	rows, err := s.read.QueryContext(ctx, `SELECT "seq", "at", "who", "action", "object", "reason", "value" FROM audit
		WHERE "seq" < ? ORDER BY "seq" DESC LIMIT ?`, before, limit)
	if err != nil {
		return nil, fmt.Errorf("read the audit trail of the SQLite store %s: %w", s.path, err)
	}
	defer rows.Close()
	var all []storage.Entry
	for rows.Next() {
		var e storage.Entry
		var at int64
		if err := rows.Scan(&e.Seq, &at, &e.Who, &e.Action, &e.Object, &e.Reason, (*[]byte)(&e.Value)); err != nil {
			return nil, fmt.Errorf("read the audit trail of the SQLite store %s: %w", s.path, err)
		}
		e.At = time.UnixMicro(at).UTC()
		all = append(all, e)
	}
	return all, rows.Err()
}
