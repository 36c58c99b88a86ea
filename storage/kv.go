package storage

import (
	"context"
	"fmt"
	"time"
)

// A KV keeps bytes under keys, in buckets that need no making. It is for what must be decided once among all gateways
// that share the store (a token that is good once, a certificate that was revoked) and that nobody audits.
//
// A bucket is a printable name of at most 128 bytes, a key has 1 to 1024 bytes. A value that is nil is kept as an empty
// one. Each call is atomic, and sees what every call that returned before it has done, in any process.
type KV interface {
	// Get returns the value under a key, never nil, or ErrNotFound.
	Get(ctx context.Context, bucket string, key []byte) ([]byte, error)
	// Put writes a value, whatever is there.
	Put(ctx context.Context, bucket string, key, value []byte) error
	// Delete removes a key; one that is not there is no error.
	Delete(ctx context.Context, bucket string, key []byte) error
	// CompareAndSwap writes next if the value is old, and reports whether it did. An old that is nil means that the key
	// must be absent, a next that is nil removes it; an empty one is a value. It returns the value that is there after
	// the call, nil when there is none: it differs from old unless it was swapped.
	CompareAndSwap(ctx context.Context, bucket string, key, old, next []byte) (current []byte, swapped bool, err error)
	// List calls visit for each key of a bucket, in the order of its bytes, until visit returns an error, which it
	// then returns. What is changed meanwhile may be seen or not. visit may call the store, and may keep what it gets.
	List(ctx context.Context, bucket string, visit func(key, value []byte) error) error
	// Prune removes what was last written before a time, by the clock of who wrote it, and returns how much that was.
	Prune(ctx context.Context, bucket string, before time.Time) (int64, error)
}

// CheckKey returns an error when no store takes the key in the bucket.
func CheckKey(bucket string, key []byte) error {
	switch {
	case bucket == "" || Printable(bucket, 128) != bucket:
		return fmt.Errorf("the bucket %q is not a printable name of at most 128 bytes", Printable(bucket, 128))
	case len(key) == 0 || len(key) > 1024:
		return fmt.Errorf("a key in bucket %s has %d bytes, and a key has 1 to 1024", bucket, len(key))
	}
	return nil
}

// A Pair is a key and its value.
type Pair struct{ Key, Value []byte }

// Pages calls visit for each pair of the pages that read returns: at most most pairs with keys after the one given (nil:
// from the first) in order. It is how stores list a bucket without holding a connection meanwhile.
func Pages(read func(after []byte, most int) ([]Pair, error), visit func(key, value []byte) error) error {
	const most = 1000
	var after []byte
	for {
		page, err := read(after, most)
		if err != nil {
			return err
		}
		for _, p := range page {
			if err := visit(p.Key, p.Value); err != nil {
				return err
			}
		}
		if len(page) < most {
			return nil
		}
		after = page[len(page)-1].Key
	}
}
