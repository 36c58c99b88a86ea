package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage"
)

// written are the columns that are bound, in the order of insert; the view flows has the rest.
var written = [...]string{"id", "conn", "kind", "begin", "end", "outcome", "way", "host", "class", "dest_host",
	"method", "url", "status", "rule", "revision"}

// rows is how many rows one statement inserts: enough that the cost of a statement no longer matters.
const rows = 64

// An insert holds the statements that write flows.
type insert struct {
	columns   []storage.Column // of a row
	bound     []int            // for each of columns: which of written it is, or -1
	one, many *sql.Stmt
}

func prepare(ctx context.Context, db *sql.DB) (insert, error) {
	in := insert{columns: storage.Columns()}
	for _, c := range in.columns {
		in.bound = append(in.bound, slices.Index(written[:], c.Name))
	}
	var err error
	if in.one, err = db.PrepareContext(ctx, insertSQL(1)); err != nil {
		return in, err
	}
	in.many, err = db.PrepareContext(ctx, insertSQL(rows))
	return in, err
}

func insertSQL(n int) string {
	var names, sets []string
	for _, name := range append(written[:len(written):len(written)], "record", "question") {
		names = append(names, `"`+name+`"`)
		sets = append(sets, fmt.Sprintf(`"%s" = excluded."%s"`, name, name))
	}
	row := "(?" + strings.Repeat(",?", len(names)-1) + ")"
	return "INSERT INTO flow (" + strings.Join(names, ",") + ") VALUES " + row + strings.Repeat(","+row, n-1) +
		` ON CONFLICT ("id") DO UPDATE SET ` + strings.Join(sets, ",") + ` WHERE flow."end" IS NULL`
}

func (in *insert) close() error {
	var errs []error
	for _, st := range []*sql.Stmt{in.one, in.many} {
		if st != nil {
			errs = append(errs, st.Close())
		}
	}
	return errors.Join(errs...)
}

func (s *store) WriteRows(ctx context.Context, batch []storage.Row) error {
	batch = storage.Dedupe(batch)
	if len(batch) == 0 {
		return nil
	}
	err := s.tx(ctx, func(tx *sql.Tx) error {
		one, many := tx.StmtContext(ctx, s.insert.one), tx.StmtContext(ctx, s.insert.many)
		args := make([]any, 0, rows*(len(written)+2))
		for len(batch) > 0 {
			st, n := one, 1
			if len(batch) >= rows {
				st, n = many, rows
			}
			args = args[:0]
			for _, r := range batch[:n] {
				var err error
				if args, err = s.insert.bind(args, r.Fields); err != nil {
					return fmt.Errorf("flow %s: %w", r.ID, err)
				}
			}
			if _, err := st.ExecContext(ctx, args...); err != nil {
				return err
			}
			batch = batch[n:]
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write flows to the SQLite store %s: %w", s.path, err)
	}
	return nil
}

// bind appends the arguments of one row.
func (in *insert) bind(args []any, fields []byte) ([]any, error) {
	n := len(args)
	args = args[:n+len(written)+2]
	var b []byte
	var err error
	for i := range in.columns {
		if b, fields, err = storage.NextField(fields); err != nil {
			return nil, err
		}
		if to := in.bound[i]; to >= 0 {
			if args[n+to], err = in.columns[i].Value(b); err != nil {
				return nil, err
			}
		}
	}
	record, question, err := storage.Parts(fields)
	if err != nil {
		return nil, err
	}
	args[n+len(written)], args[n+len(written)+1] = string(record), string(question)
	return args, nil
}

func dialect() storage.Dialect {
	return storage.Dialect{
		Bind: func(n int) string { return fmt.Sprintf("?%d", n) },
		Suffix: func(column, bind string) string {
			return fmt.Sprintf("substr(%s, -length(%s)) = %s", column, bind, bind)
		},
		Contains: func(column, bind string) string { return fmt.Sprintf("instr(lower(%s), %s) > 0", column, bind) },
		Time:     func(t time.Time) any { return t.UnixMicro() },
	}
}

func (s *store) Flows(ctx context.Context, filter storage.Filter) ([]*exitgate.Flow, error) {
	where, args := filter.SQL(dialect())
	flows, err := s.flows(ctx, where+` ORDER BY "id" DESC LIMIT `+fmt.Sprint(filter.N()), args...)
	if err != nil {
		return nil, fmt.Errorf("search flows in the SQLite store %s: %w", s.path, err)
	}
	return flows, nil
}

func (s *store) Flow(ctx context.Context, id exitgate.ID) (*exitgate.Flow, error) {
	flows, err := s.flows(ctx, `"id" = ?`, id.String())
	if err == nil && len(flows) == 0 {
		err = storage.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read flow %s from the SQLite store %s: %w", id, s.path, err)
	}
	return flows[0], nil
}

func (s *store) flows(ctx context.Context, where string, args ...any) ([]*exitgate.Flow, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT "record", "question" FROM flow WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var flows []*exitgate.Flow
	for rows.Next() {
		var record, question sql.RawBytes
		if err := rows.Scan(&record, &question); err != nil {
			return nil, err
		}
		f, err := storage.DecodeFlow(record, question)
		if err != nil {
			return nil, err
		}
		flows = append(flows, f)
	}
	return flows, rows.Err()
}
