package sqlite

import (
	"context"
	"database/sql"
	"time"

	"github.com/exitgate/exitgate/storage"
)

func (s *store) Used(ctx context.Context, uses []storage.Use) error {
	merged, err := storage.MergeUses(uses)
	if err != nil || len(merged) == 0 {
		return err
	}
	err = s.tx(ctx, func(tx *sql.Tx) error {
		for _, u := range merged {
			if _, err := tx.ExecContext(ctx, `INSERT INTO uses VALUES (?, ?, ?, ?)
				ON CONFLICT ("kind", "id") DO UPDATE SET "last" = max("last", excluded."last"), "count" = "count" + excluded."count"`,
				u.Kind, u.ID, u.Last.UnixMicro(), u.Count); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return s.failed(err, "add %d uses to", len(merged))
	}
	return nil
}

func (s *store) Uses(ctx context.Context, kind string) (map[string]storage.Use, error) {
	if err := storage.CheckKind(kind); err != nil {
		return nil, err
	}
	list, err := all(ctx, s.ledger, func(rows *sql.Rows, u *storage.Use) error {
		var last int64
		err := rows.Scan(&u.ID, &last, &u.Count)
		u.Kind, u.Last = kind, time.UnixMicro(last).UTC()
		return err
	}, `SELECT "id", "last", "count" FROM uses WHERE "kind" = ?`, kind)
	if err != nil {
		return nil, s.failed(err, "read the uses of kind %q in", kind)
	}
	byID := make(map[string]storage.Use, len(list))
	for _, u := range list {
		byID[u.ID] = u
	}
	return byID, nil
}
