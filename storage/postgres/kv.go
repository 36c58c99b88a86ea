package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/exitgate/exitgate/storage"
)

// A kv keeps keys and values in the table kv. Each step of it is one statement, which Postgres makes atomic.
type kv struct{ pool *pgxpool.Pool }

func (s *store) KV() storage.KV { return kv{s.ledger} }

// failed says what was attempted, on which bucket. A key is not printed: it may be a token's.
func failed(what, bucket string, err error) error {
	return fmt.Errorf("%s bucket %q of the Postgres store: %w", what, bucket, err)
}

// full returns value as the driver takes it: nil would be NULL.
func full(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

func (k kv) Get(ctx context.Context, bucket string, key []byte) (value []byte, err error) {
	if err := storage.CheckKey(bucket, key); err != nil {
		return nil, err
	}
	err = k.pool.QueryRow(ctx, `SELECT "value" FROM kv WHERE "bucket" = $1 AND "key" = $2`, bucket, key).Scan(&value)
	if err != nil {
		return nil, failed("read a key in", bucket, absent(err))
	}
	return full(value), nil
}

const putKey = `INSERT INTO kv VALUES ($1, $2, $3, now()) ON CONFLICT ("bucket", "key") `

func (k kv) Put(ctx context.Context, bucket string, key, value []byte) error {
	_, err := k.do(ctx, bucket, key, putKey+`DO UPDATE SET "value" = excluded."value", "at" = excluded."at"`, full(value))
	return err
}

func (k kv) Delete(ctx context.Context, bucket string, key []byte) error {
	_, err := k.do(ctx, bucket, key, `DELETE FROM kv WHERE "bucket" = $1 AND "key" = $2`)
	return err
}

// do makes a statement that changes at most the row of the key, and reports whether it did.
func (k kv) do(ctx context.Context, bucket string, key []byte, statement string, values ...any) (bool, error) {
	if err := storage.CheckKey(bucket, key); err != nil {
		return false, err
	}
	tag, err := k.pool.Exec(ctx, statement, append([]any{bucket, key}, values...)...)
	if err != nil {
		return false, failed("change a key in", bucket, err)
	}
	return tag.RowsAffected() == 1, nil
}

func (k kv) CompareAndSwap(ctx context.Context, bucket string, key, old, next []byte) ([]byte, bool, error) {
	for {
		if old != nil || next != nil {
			if done, err := k.swap(ctx, bucket, key, old, next); done || err != nil {
				return next, done, err
			}
		}
		current, err := k.Get(ctx, bucket, key)
		if errors.Is(err, storage.ErrNotFound) {
			current, err = nil, nil
		}
		switch same := (current == nil) == (old == nil) && bytes.Equal(current, old); {
		case err != nil || !same:
			return current, false, err
		case old == nil && next == nil:
			return nil, true, nil
		} // it was not old for a moment, and is again
	}
}

// swap tries once. The statements look at the row when they have its lock, not before: whoever comes second sees what the
// first has written.
func (k kv) swap(ctx context.Context, bucket string, key, old, next []byte) (bool, error) {
	switch {
	case old == nil:
		return k.do(ctx, bucket, key, putKey+`DO NOTHING`, next)
	case next == nil:
		return k.do(ctx, bucket, key, `DELETE FROM kv WHERE "bucket" = $1 AND "key" = $2 AND "value" = $3`, old)
	}
	return k.do(ctx, bucket, key, `UPDATE kv SET "value" = $4, "at" = now() WHERE "bucket" = $1 AND "key" = $2 AND "value" = $3`, old, next)
}

func (k kv) List(ctx context.Context, bucket string, visit func(key, value []byte) error) error {
	return storage.Pages(func(after []byte, most int) ([]storage.Pair, error) {
		rows, _ := k.pool.Query(ctx, `SELECT "key", "value" FROM kv WHERE "bucket" = $1 AND "key" > $2 ORDER BY "key" LIMIT $3`,
			bucket, full(after), most) // CollectRows returns its error
		page, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p storage.Pair, err error) {
			err = row.Scan(&p.Key, &p.Value)
			p.Value = full(p.Value)
			return p, err
		})
		if err != nil {
			return nil, failed("list", bucket, err)
		}
		return page, nil
	}, visit)
}

func (k kv) Prune(ctx context.Context, bucket string, before time.Time) (int64, error) {
	tag, err := k.pool.Exec(ctx, `DELETE FROM kv WHERE "bucket" = $1 AND "at" < $2`, bucket, before)
	if err != nil {
		return 0, failed("prune", bucket, err)
	}
	return tag.RowsAffected(), nil
}
