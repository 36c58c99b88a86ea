package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

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
	rows, _ := s.read.Query(ctx, `SELECT "value" FROM `+table+` ORDER BY "id"`) // CollectRows returns its error
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (v T, err error) {
		var b []byte
		if err := row.Scan(&b); err != nil {
			return v, err
		}
		return v, json.Unmarshal(b, &v)
	})
	if err != nil {
		return nil, fmt.Errorf("list %s of the Postgres store: %w", table, err)
	}
	return all, nil
}

func (s *store) put(ctx context.Context, table, action, id string, v any, c storage.Change) error {
	e, err := storage.NewEntry(action, id, v, c)
	if err == nil {
		err = pgx.BeginFunc(ctx, s.write, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO `+table+` ("id", "value") VALUES ($1, $2)
				ON CONFLICT ("id") DO UPDATE SET "value" = excluded."value"`, id, []byte(e.Value))
			if err != nil {
				return err
			}
			return record(ctx, tx, e)
		})
	}
	if err != nil {
		return fmt.Errorf("%s %q in the Postgres store: %w", action, id, err)
	}
	return nil
}

func (s *store) remove(ctx context.Context, table, action, id string, c storage.Change) error {
	e, err := storage.NewEntry(action, id, nil, c)
	if err == nil {
		err = pgx.BeginFunc(ctx, s.write, func(tx pgx.Tx) error {
			err := tx.QueryRow(ctx, `DELETE FROM `+table+` WHERE "id" = $1 RETURNING "value"`, id).Scan((*[]byte)(&e.Value))
			if errors.Is(err, pgx.ErrNoRows) {
				return storage.ErrNotFound
			}
			if err != nil {
				return err
			}
			return record(ctx, tx, e)
		})
	}
	if err != nil {
		return fmt.Errorf("%s %q in the Postgres store: %w", action, id, err)
	}
	return nil
}

func record(ctx context.Context, tx pgx.Tx, e storage.Entry) error {
	_, err := tx.Exec(ctx, `INSERT INTO audit ("at", "who", "action", "object", "reason", "value") VALUES ($1, $2, $3, $4, $5, $6)`,
		e.At, e.Who, e.Action, e.Object, e.Reason, []byte(e.Value))
	return err
}

func (s *store) Audit(ctx context.Context, before int64, limit int) ([]storage.Entry, error) {
	before, limit = storage.AuditPage(before, limit)
	rows, _ := s.read.Query(ctx, `SELECT "seq", "at", "who", "action", "object", "reason", "value" FROM audit
		WHERE "seq" < $1 ORDER BY "seq" DESC LIMIT $2`, before, limit) // CollectRows returns its error
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e storage.Entry, err error) {
		err = row.Scan(&e.Seq, &e.At, &e.Who, &e.Action, &e.Object, &e.Reason, (*[]byte)(&e.Value))
		e.At = e.At.UTC()
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the audit trail of the Postgres store: %w", err)
	}
	return all, nil
}
