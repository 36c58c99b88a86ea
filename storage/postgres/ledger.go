package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/exitgate/exitgate/storage"
)

// ledgerKey is the advisory lock under which changes get their numbers.
const ledgerKey = lockKey + 1

// takeTurn waits for the lock of changes, which is held until the transaction ends: so numbers become visible in their
// order. A gateway that freezes while it holds the lock loses its transaction, not everybody else theirs.
const takeTurn = `SELECT set_config('idle_in_transaction_session_timeout', '10s', true), pg_advisory_xact_lock($1)`

func (s *store) Documents(ctx context.Context, kind string) ([]storage.Document, error) {
	if err := storage.CheckKind(kind); err != nil {
		return nil, err
	}
	rows, _ := s.ledger.Query(ctx, `SELECT "id", "version", "value" FROM documents WHERE "kind" = $1 ORDER BY "id"`,
		kind) // CollectRows returns its error
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (storage.Document, error) {
		d := storage.Document{Kind: kind}
		return d, row.Scan(&d.ID, &d.Version, (*[]byte)(&d.Value))
	})
	if err != nil {
		return nil, fmt.Errorf("list the documents of kind %q in the Postgres store: %w", kind, err)
	}
	return all, nil
}

func (s *store) Document(ctx context.Context, kind, id string) (storage.Document, error) {
	d := storage.Document{Kind: kind, ID: id}
	err := storage.CheckName(kind, id)
	if err == nil {
		err = s.ledger.QueryRow(ctx, `SELECT "version", "value" FROM documents WHERE "kind" = $1 AND "id" = $2`, kind, id).
			Scan(&d.Version, (*[]byte)(&d.Value))
	}
	if err != nil {
		return storage.Document{}, fmt.Errorf("read %s %q in the Postgres store: %w", kind, id, absent(err))
	}
	return d, nil
}

// absent gives the driver's word for no row the store's.
func absent(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return storage.ErrNotFound
	}
	return err
}

func (s *store) Revision(ctx context.Context) (seq int64, err error) {
	if err := s.ledger.QueryRow(ctx, lastChange).Scan(&seq); err != nil {
		return 0, fmt.Errorf("read the revision of the Postgres store: %w", err)
	}
	return seq, nil
}

const lastChange = `SELECT coalesce(max("seq"), 0) FROM audit`

func (s *store) Apply(ctx context.Context, c storage.Change, edits ...storage.Edit) (seq int64, err error) {
	plan, err := storage.NewPlan(c, edits)
	if err == nil {
		// Each statement must see what was committed before it, also where the database's default is another level.
		err = pgx.BeginTxFunc(ctx, s.ledger, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
			seq, err = apply(ctx, tx, plan)
			return err
		})
	}
	if err != nil {
		return 0, fmt.Errorf("change the ledger of the Postgres store: %w", err)
	}
	return seq, nil
}

// apply makes the change and returns the number of its last edit.
func apply(ctx context.Context, tx pgx.Tx, plan *storage.Plan) (int64, error) {
	if _, err := tx.Exec(ctx, takeTurn, ledgerKey); err != nil {
		return 0, err
	}
	var last int64
	if err := tx.QueryRow(ctx, lastChange).Scan(&last); err != nil {
		return 0, err
	}
	there, err := named(ctx, tx, plan.Edits)
	if err != nil {
		return 0, err
	}
	var put, gone docs
	var trail entries
	for i, e := range plan.Edits {
		last++
		entry, err := plan.Entry(i, last, there[name{e.Kind, e.ID}])
		if err != nil {
			return 0, err
		}
		trail.add(entry)
		if e.Value == nil {
			gone.add(e, last)
		} else {
			put.add(e, last)
		}
	}
	return last, write(ctx, tx, put, gone, trail)
}

// write makes every edit with one statement of each sort, whatever their number.
func write(ctx context.Context, tx pgx.Tx, put, gone docs, trail entries) error {
	var b pgx.Batch
	if len(put.ids) > 0 {
		b.Queue(`INSERT INTO documents SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[])
			ON CONFLICT ("kind", "id") DO UPDATE SET "version" = excluded."version", "value" = excluded."value"`,
			put.kinds, put.ids, put.versions, put.values)
	}
	if len(gone.ids) > 0 {
		b.Queue(`DELETE FROM documents WHERE ("kind", "id") IN (SELECT * FROM unnest($1::text[], $2::text[]))`, gone.kinds, gone.ids)
		b.Queue(forget, gone.kinds, gone.ids)
	}
	b.Queue(`INSERT INTO audit ("seq", "at", "who", "action", "object", "reason", "value")
		SELECT * FROM unnest($1::bigint[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[])`,
		trail.seqs, trail.ats, trail.whos, trail.actions, trail.objects, trail.reasons, trail.values)
	return tx.SendBatch(ctx, &b).Close()
}

type name struct{ kind, id string }

// docs are documents as arrays, by column.
type docs struct {
	kinds, ids []string
	versions   []int64
	values     [][]byte
}

func (d *docs) add(e storage.Edit, version int64) {
	d.kinds, d.ids = append(d.kinds, e.Kind), append(d.ids, e.ID)
	d.versions, d.values = append(d.versions, version), append(d.values, e.Value)
}

// named returns the documents that edits name, those that are there.
func named(ctx context.Context, tx pgx.Tx, edits []storage.Edit) (map[name]storage.Document, error) {
	var asked docs
	for _, e := range edits {
		asked.add(e, 0)
	}
	rows, _ := tx.Query(ctx, `SELECT "kind", "id", "version", "value" FROM documents
		JOIN unnest($1::text[], $2::text[]) AS asked ("kind", "id") USING ("kind", "id")`, asked.kinds, asked.ids) // CollectRows returns its error
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d storage.Document, err error) {
		return d, row.Scan(&d.Kind, &d.ID, &d.Version, (*[]byte)(&d.Value))
	})
	there := make(map[name]storage.Document, len(all))
	for _, d := range all {
		there[name{d.Kind, d.ID}] = d
	}
	return there, err
}
