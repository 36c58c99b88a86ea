package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage"
)

// statements returns what copies a batch into the temporary table, and what moves it from there.
func statements(columns []storage.Column) (copyIn, insert string) {
	var names, quoted, sets []string
	for _, c := range columns {
		names = append(names, c.Name)
	}
	for _, n := range append(names, "record", "question") {
		quoted = append(quoted, `"`+n+`"`)
		sets = append(sets, fmt.Sprintf(`"%s" = excluded."%s"`, n, n))
	}
	list := strings.Join(quoted, ", ")
	return "COPY pg_temp.flows_in (" + list + ") FROM STDIN (FORMAT binary)", "INSERT INTO flows (" + list + ") SELECT " + list + ` FROM pg_temp.flows_in
		ON CONFLICT ("id", "begin") DO UPDATE SET ` + strings.Join(sets, ", ") + ` WHERE flows."end" IS NULL`
}

func (s *store) WriteRows(ctx context.Context, rows []storage.Row) error {
	rows = storage.Dedupe(rows)
	if len(rows) == 0 {
		return nil
	}
	days, err := s.daysOf(rows, time.Now())
	if err == nil {
		err = s.makeDays(ctx, days)
	}
	if err == nil {
		err = pgx.BeginFunc(ctx, s.write, func(tx pgx.Tx) error { return s.copy(ctx, tx, rows) })
	}
	if err != nil {
		return fmt.Errorf("write %d flows to the Postgres store: %w", len(rows), err)
	}
	return nil
}

// copy writes rows by way of the temporary table, which is empty again with the end of the transaction. There they are
// not compressed: that would be done twice.
func (s *store) copy(ctx context.Context, tx pgx.Tx, rows []storage.Row) error {
	if _, err := tx.Exec(ctx, `CREATE TEMPORARY TABLE IF NOT EXISTS flows_in (LIKE flows) WITH (toast_tuple_target = 8160) ON COMMIT DELETE ROWS`); err != nil {
		return err
	}
	source := newCopySource(len(s.columns), rows)
	defer source.stop()
	if _, err := tx.Conn().PgConn().CopyFrom(ctx, source, s.copyIn); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, s.insert)
	return err
}

func dialect() storage.Dialect {
	return storage.Dialect{
		Bind: func(n int) string { return fmt.Sprintf("$%d", n) },
		Suffix: func(column, bind string) string {
			return fmt.Sprintf(`reverse(%s) LIKE %s || '%%'`, column, quoteLike("reverse("+bind+"::text)"))
		},
		Contains: func(column, bind string) string {
			return fmt.Sprintf(`lower(%s COLLATE "C") LIKE '%%' || %s || '%%'`, column, quoteLike(bind+"::text"))
		},
		Time: func(t time.Time) any { return t },
	}
}

// quoteLike takes what is special in a pattern from a text.
func quoteLike(expr string) string {
	return `replace(replace(replace(` + expr + `, '\', '\\'), '%', '\%'), '_', '\_')`
}

func (s *store) Flows(ctx context.Context, filter storage.Filter) ([]*exitgate.Flow, error) {
	where, args := filter.SQL(dialect())
	flows, err := s.flows(ctx, where+fmt.Sprintf(` ORDER BY "id" DESC LIMIT %d`, filter.N()), args...)
	if err != nil {
		return nil, fmt.Errorf("search flows in the Postgres store: %w", err)
	}
	return flows, nil
}

func (s *store) Flow(ctx context.Context, id exitgate.ID) (*exitgate.Flow, error) {
	flows, err := s.flows(ctx, `"id" = $1`, id.String())
	if err == nil && len(flows) == 0 {
		err = storage.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read flow %s from the Postgres store: %w", id, err)
	}
	return flows[0], nil
}

func (s *store) flows(ctx context.Context, where string, args ...any) ([]*exitgate.Flow, error) {
	rows, err := s.read.Query(ctx, `SELECT "record", "question" FROM flows WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*exitgate.Flow, error) {
		var record, question []byte
		if err := row.Scan(&record, &question); err != nil {
			return nil, err
		}
		return storage.DecodeFlow(record, question)
	})
}
