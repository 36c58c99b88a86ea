package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/exitgate/exitgate/storage"
)

// A kv keeps keys and values in the table kv of a store. Keys are not printed: one may be a token's.
type kv struct{ *store }

func (s *store) KV() storage.KV { return kv{s} }

// full returns value as the driver takes and gives it: nil would be NULL.
func full(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

// queryer is a database or a transaction.
type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func get(ctx context.Context, q queryer, bucket string, key []byte) (value []byte, err error) {
	err = q.QueryRowContext(ctx, `SELECT "value" FROM kv WHERE "bucket" = ? AND "key" = ?`, bucket, key).Scan(&value)
	if err != nil {
		return nil, absent(err)
	}
	return full(value), nil
}

func put(ctx context.Context, q queryer, bucket string, key, value []byte) error {
	_, err := q.ExecContext(ctx, `INSERT INTO kv VALUES (?, ?, ?, ?)
		ON CONFLICT ("bucket", "key") DO UPDATE SET "value" = excluded."value", "at" = excluded."at"`,
		bucket, key, full(value), time.Now().UnixMicro())
	return err
}

func del(ctx context.Context, q queryer, bucket string, key []byte) error {
	_, err := q.ExecContext(ctx, `DELETE FROM kv WHERE "bucket" = ? AND "key" = ?`, bucket, key)
	return err
}

func (k kv) Get(ctx context.Context, bucket string, key []byte) ([]byte, error) {
	if err := storage.CheckKey(bucket, key); err != nil {
		return nil, err
	}
	value, err := get(ctx, k.ledger, bucket, key)
	if err != nil {
		return nil, k.failed(err, "read a key in bucket %q of", bucket)
	}
	return value, nil
}

func (k kv) Put(ctx context.Context, bucket string, key, value []byte) error {
	return k.change(ctx, bucket, key, func(q queryer) error { return put(ctx, q, bucket, key, value) })
}

func (k kv) Delete(ctx context.Context, bucket string, key []byte) error {
	return k.change(ctx, bucket, key, func(q queryer) error { return del(ctx, q, bucket, key) })
}

func (k kv) CompareAndSwap(ctx context.Context, bucket string, key, old, next []byte) (current []byte, swapped bool, err error) {
	err = k.change(ctx, bucket, key, func(q queryer) error {
		current, err = get(ctx, q, bucket, key)
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		if swapped = (current == nil) == (old == nil) && bytes.Equal(current, old); !swapped {
			return nil
		}
		current = next
		if next == nil {
			return del(ctx, q, bucket, key)
		}
		return put(ctx, q, bucket, key, next)
	})
	if err != nil {
		return nil, false, err
	}
	return current, swapped, nil
}

// change runs f in a transaction that writes, which is alone until it ends.
func (k kv) change(ctx context.Context, bucket string, key []byte, f func(queryer) error) error {
	if err := storage.CheckKey(bucket, key); err != nil {
		return err
	}
	if err := k.tx(ctx, func(tx *sql.Tx) error { return f(tx) }); err != nil {
		return k.failed(err, "change a key in bucket %q of", bucket)
	}
	return nil
}

func (k kv) List(ctx context.Context, bucket string, visit func(key, value []byte) error) error {
	return storage.Pages(func(after []byte, most int) ([]storage.Pair, error) {
		page, err := all(ctx, k.ledger, func(rows *sql.Rows, p *storage.Pair) error {
			err := rows.Scan(&p.Key, &p.Value)
			p.Value = full(p.Value)
			return err
		}, `SELECT "key", "value" FROM kv WHERE "bucket" = ? AND "key" > ? ORDER BY "key" LIMIT ?`, bucket, full(after), most)
		if err != nil {
			return nil, k.failed(err, "list bucket %q of", bucket)
		}
		return page, nil
	}, visit)
}

func (k kv) Prune(ctx context.Context, bucket string, before time.Time) (n int64, err error) {
	err = k.tx(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `DELETE FROM kv WHERE "bucket" = ? AND "at" < ?`, bucket, before.UnixMicro())
		if err == nil {
			n, err = result.RowsAffected()
		}
		return err
	})
	if err != nil {
		return 0, k.failed(err, "prune bucket %q of", bucket)
	}
	return n, nil
}
