package authority

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/smallstep/certificates/db"
	"github.com/smallstep/nosql/database"
)

// A KV keeps bytes under keys in buckets, for all gateways that share it. A bucket is a short lower-case name and
// needs no making, a key has 1 to 1024 bytes. Neither side changes a value after it was handed over.
type KV interface {
	// Get returns the value under key, and whether there is one.
	Get(ctx context.Context, bucket string, key []byte) (value []byte, found bool, err error)
	// CompareAndSwap puts next under key if what is there is exactly old, in one step that no other reader or
	// writer, on any gateway, can come between; nil as old means that nothing is there, nil as next removes. It
	// returns what is there then, only when that would survive the death of the process.
	CompareAndSwap(ctx context.Context, bucket string, key, old, next []byte) (current []byte, swapped bool, err error)
	// List calls visit for each key of the bucket, in any order, until visit returns an error, which it returns.
	List(ctx context.Context, bucket string, visit func(key, value []byte) error) error
}

// The buckets of the KV that smallstep's database uses and that are cleaned (prune.go).
const (
	bucketUsed    = "used_ott"           // tokens that were redeemed, by their id: when
	bucketCerts   = "x509_certs"         // certificates by decimal serial: DER
	bucketRevoked = "revoked_x509_certs" // revocations by decimal serial: JSON
)

// maxKey bounds a key, in bytes. Longer ones come from strangers only, who ask for what cannot be there.
const maxKey = 1024

// kvTimeout bounds one operation, since smallstep's interface carries no context.
const kvTimeout = 5 * time.Second

// errTokenUsed says that a one-time token was redeemed before.
var errTokenUsed = errors.New("the token was used before")

// A nosqlKV is the KV as smallstep's packages want it.
type nosqlKV struct{ kv KV }

var _ database.DB = nosqlKV{}

func kvContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), kvTimeout)
}

// Get implements database.DB.
func (s nosqlKV) Get(bucket, key []byte) ([]byte, error) {
	if len(key) == 0 || len(key) > maxKey {
		return nil, database.ErrNotFound
	}
	ctx, cancel := kvContext()
	defer cancel()
	v, found, err := s.kv.Get(ctx, string(bucket), key)
	if err == nil && !found {
		err = database.ErrNotFound
	}
	return v, err
}

// CmpAndSwap implements database.DB. An empty old value and none are one, as smallstep has it.
func (s nosqlKV) CmpAndSwap(bucket, key, old, next []byte) ([]byte, bool, error) {
	ctx, cancel := kvContext()
	defer cancel()
	if len(old) == 0 {
		old = nil
	}
	return s.kv.CompareAndSwap(ctx, string(bucket), key, old, next)
}

// maxSwaps bounds how often an unconditional write is tried against others that write the same key.
const maxSwaps = 16

// Set implements database.DB.
func (s nosqlKV) Set(bucket, key, value []byte) error { return s.put(bucket, key, value) }

// Del implements database.DB.
func (s nosqlKV) Del(bucket, key []byte) error { return s.put(bucket, key, nil) }

// put writes next whatever is there; nil removes.
func (s nosqlKV) put(bucket, key, next []byte) error {
	ctx, cancel := kvContext()
	defer cancel()
	have, found, err := s.kv.Get(ctx, string(bucket), key)
	if err != nil || !found && next == nil {
		return err
	}
	if !found {
		have = nil
	}
	for range maxSwaps {
		var swapped bool
		if have, swapped, err = s.kv.CompareAndSwap(ctx, string(bucket), key, have, next); swapped || err != nil {
			return err
		}
		if have == nil && next == nil {
			return nil
		}
	}
	return fmt.Errorf("write %s of bucket %s: others changed it %d times meanwhile", key, bucket, maxSwaps)
}

// List implements database.DB.
func (s nosqlKV) List(bucket []byte) (entries []*database.Entry, err error) {
	ctx, cancel := kvContext()
	defer cancel()
	err = s.kv.List(ctx, string(bucket), func(k, v []byte) error {
		entries = append(entries, &database.Entry{Bucket: bucket, Key: k, Value: v})
		return nil
	})
	return entries, err
}

// Update implements database.DB for the two shapes that smallstep uses: writes, which are done one after the other
// (each alone leaves the bucket as it should be), and a read that is followed by the removal of the same key, which
// removes exactly the value that was read or fails with database.ErrNotFound: so a nonce is good for one request.
func (s nosqlKV) Update(tx *database.Tx) error {
	var read *database.TxEntry
	for _, op := range tx.Operations {
		var err error
		switch {
		case op.Cmd == database.Get:
			op.Result, err = s.Get(op.Bucket, op.Key)
			read = op
		case op.Cmd == database.Set:
			err = s.Set(op.Bucket, op.Key, op.Value)
		case op.Cmd == database.Delete && read != nil && bytes.Equal(read.Key, op.Key):
			err = s.take(op.Bucket, op.Key, read.Result)
		case op.Cmd == database.Delete:
			err = s.Del(op.Bucket, op.Key)
		default:
			err = fmt.Errorf("%s: %w", op.Cmd, database.ErrOpNotSupported)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// take removes have from under key, if no one else did.
func (s nosqlKV) take(bucket, key, have []byte) error {
	_, swapped, err := s.CmpAndSwap(bucket, key, have, nil)
	if err == nil && !swapped {
		err = database.ErrNotFound
	}
	return err
}

// Open, Close, CreateTable and DeleteTable implement database.DB; the KV's owner opens and closes it.
func (s nosqlKV) Open(string, ...database.Option) error { return nil }

// Close implements database.DB.
func (s nosqlKV) Close() error { return nil }

// CreateTable implements database.DB.
func (s nosqlKV) CreateTable([]byte) error { return nil }

// DeleteTable implements database.DB.
func (s nosqlKV) DeleteTable([]byte) error { return database.ErrOpNotSupported }

// An authDB is smallstep's own use of its database, but for two things: what is kept of a token that was redeemed is
// not the token, and of a certificate nothing is kept but itself.
type authDB struct {
	*db.DB
	now func() time.Time
}

// UseToken implements db.AuthDB. A token that was used before is errTokenUsed.
func (d authDB) UseToken(id, _ string) (bool, error) {
	_, swapped, err := d.CmpAndSwap([]byte(bucketUsed), []byte(id), nil, []byte(d.now().UTC().Format(time.RFC3339)))
	if err == nil && !swapped {
		err = errTokenUsed
	}
	return swapped, err
}

// StoreCertificateChain replaces the method of db.DB.
func (d authDB) StoreCertificateChain(_ provisioner.Interface, chain ...*x509.Certificate) error {
	return d.StoreCertificate(chain[0])
}

// StoreRenewedCertificate replaces the method of db.DB.
func (d authDB) StoreRenewedCertificate(_ *x509.Certificate, chain ...*x509.Certificate) error {
	return d.StoreCertificate(chain[0])
}
