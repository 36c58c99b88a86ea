package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/exitgate/exitgate/storage"
)

// forget removes the uses of documents. It locks rows in the order in which Used does, so that they cannot wait for each
// other.
const forget = `DELETE FROM uses WHERE ("kind", "id") IN (SELECT u."kind", u."id" FROM uses u
	JOIN unnest($1::text[], $2::text[]) AS gone ("kind", "id") USING ("kind", "id") ORDER BY 1, 2 FOR UPDATE OF u)`

func (s *store) Used(ctx context.Context, uses []storage.Use) error {
	all, err := storage.MergeUses(uses)
	if err != nil || len(all) == 0 {
		return err
	}
	var kinds, ids []string
	var lasts []time.Time
	var counts []int64
	for _, u := range all {
		kinds, ids = append(kinds, u.Kind), append(ids, u.ID)
		lasts, counts = append(lasts, u.Last), append(counts, u.Count)
	}
	_, err = s.ledger.Exec(ctx, `INSERT INTO uses SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::bigint[])
		ON CONFLICT ("kind", "id") DO UPDATE SET "last" = greatest(uses."last", excluded."last"), "count" = uses."count" + excluded."count"`,
		kinds, ids, lasts, counts)
	if err != nil {
		return fmt.Errorf("add %d uses to the Postgres store: %w", len(all), err)
	}
	return nil
}

func (s *store) Uses(ctx context.Context, kind string) (map[string]storage.Use, error) {
	if err := storage.CheckKind(kind); err != nil {
		return nil, err
	}
	rows, _ := s.ledger.Query(ctx, `SELECT "id", "last", "count" FROM uses WHERE "kind" = $1`, kind) // ForEachRow returns its error
	all := map[string]storage.Use{}
	u := storage.Use{Kind: kind}
	_, err := pgx.ForEachRow(rows, []any{&u.ID, &u.Last, &u.Count}, func() error {
		u.Last = u.Last.UTC()
		all[u.ID] = u
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the uses of kind %q in the Postgres store: %w", kind, err)
	}
	return all, nil
}
