package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
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
	columns   []storage.Column // of written
	one, many *sql.Stmt
}

func prepare(ctx context.Context, db *sql.DB) (insert, error) {
	var in insert
	for _, name := range written {
		for _, c := range storage.Columns() {
			if c.Name == name {
				in.columns = append(in.columns, c)
			}
		}
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

func (s *store) WriteFlows(ctx context.Context, flows []*exitgate.Flow) error {
	flows = storage.Dedupe(flows)
	if len(flows) == 0 {
		return nil
	}
	err := s.tx(ctx, func(tx *sql.Tx) error {
		one, many := tx.StmtContext(ctx, s.insert.one), tx.StmtContext(ctx, s.insert.many)
		var b binding
		for len(flows) > 0 {
			st, n := one, 1
			if len(flows) >= rows {
				st, n = many, rows
			}
			if _, err := st.ExecContext(ctx, b.bind(s.insert.columns, flows[:n])...); err != nil {
				return err
			}
			flows = flows[n:]
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write flows to the SQLite store %s: %w", s.path, err)
	}
	return nil
}

// A binding holds the arguments of one statement, to be used again for the next: a flow would else leave four times its
// size as garbage.
type binding struct {
	args []any
	json []byte
	ends []int // of each record and question in json
}

func (b *binding) bind(columns []storage.Column, flows []*exitgate.Flow) []any {
	b.args, b.json, b.ends = b.args[:0], b.json[:0], b.ends[:0]
	for _, f := range flows {
		b.json = storage.AppendRecord(b.json, f)
		b.ends = append(b.ends, len(b.json))
		b.json = storage.AppendQuestion(b.json, &f.Question)
		b.ends = append(b.ends, len(b.json))
	}
	text, at := string(b.json), 0
	for i, f := range flows {
		for _, c := range columns {
			b.args = append(b.args, value(c, f))
		}
		record, question := b.ends[2*i], b.ends[2*i+1]
		b.args = append(b.args, text[at:record], text[record:question])
		at = question
	}
	return b.args
}

func value(c storage.Column, f *exitgate.Flow) any {
	switch c.Kind {
	case storage.IntColumn:
		return c.Int(f)
	case storage.TimeColumn:
		if t := c.Time(f); !t.IsZero() || c.Name != "end" {
			return t.UnixMicro()
		}
		return nil
	}
	return c.Text(f)
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
