package postgres

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/exitgate/exitgate/storage"
)

// entries are audit entries as arrays, by column.
type entries struct {
	seqs                            []int64
	ats                             []time.Time
	whos, actions, objects, reasons []string
	values                          [][]byte
}

func (t *entries) add(e storage.Entry) {
	t.seqs, t.ats, t.whos = append(t.seqs, e.Seq), append(t.ats, e.At), append(t.whos, e.Who)
	t.actions, t.objects = append(t.actions, e.Action), append(t.objects, e.Object)
	t.reasons, t.values = append(t.reasons, e.Reason), append(t.values, e.Value)
}

func (s *store) Audit(ctx context.Context, f storage.AuditFilter) ([]storage.Entry, error) {
	where, args, err := f.Where(func(n int) string { return "$" + strconv.Itoa(n) })
	if err != nil {
		return nil, err
	}
	rows, _ := s.ledger.Query(ctx, `SELECT "seq", "at", "who", "action", "object", "reason", "value" FROM audit
		WHERE `+where+` ORDER BY "seq" DESC LIMIT `+strconv.Itoa(f.Most()), args...) // CollectRows returns its error
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
