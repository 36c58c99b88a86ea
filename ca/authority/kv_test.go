package authority

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smallstep/nosql/database"
)

// A memKV is a KV in memory, for one process.
type memKV struct {
	mu   sync.Mutex // guards what follows
	data map[string]map[string][]byte
	fail error // of every operation, when it is set
	gets int
	gate chan struct{} // every operation waits until it is closed, when it is set
}

func newMemKV() *memKV { return &memKV{data: map[string]map[string][]byte{}} }

// enter returns an error when the operation must fail, and else with k.mu held.
func (k *memKV) enter(ctx context.Context) error {
	k.mu.Lock()
	if gate := k.gate; gate != nil {
		k.mu.Unlock()
		select {
		case <-gate:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		k.mu.Lock()
	}
	if k.fail != nil {
		k.mu.Unlock()
		return k.fail
	}
	return ctx.Err()
}

func (k *memKV) Get(ctx context.Context, bucket string, key []byte) ([]byte, bool, error) {
	if err := k.enter(ctx); err != nil {
		return nil, false, err
	}
	defer k.mu.Unlock()
	k.gets++
	v, ok := k.data[bucket][string(key)]
	return bytes.Clone(v), ok, nil
}

func (k *memKV) CompareAndSwap(ctx context.Context, bucket string, key, old, next []byte) ([]byte, bool, error) {
	if err := k.enter(ctx); err != nil {
		return nil, false, err
	}
	defer k.mu.Unlock()
	have, ok := k.data[bucket][string(key)]
	if ok != (old != nil) || !bytes.Equal(have, old) {
		return bytes.Clone(have), false, nil
	}
	if next == nil {
		delete(k.data[bucket], string(key))
		return nil, true, nil
	}
	if k.data[bucket] == nil {
		k.data[bucket] = map[string][]byte{}
	}
	k.data[bucket][string(key)] = bytes.Clone(next)
	return next, true, nil
}

func (k *memKV) List(ctx context.Context, bucket string, visit func(key, value []byte) error) error {
	if err := k.enter(ctx); err != nil {
		return err
	}
	all := maps.Clone(k.data[bucket])
	k.mu.Unlock()
	for key, v := range all {
		if err := visit([]byte(key), bytes.Clone(v)); err != nil {
			return err
		}
	}
	return nil
}

func (k *memKV) size(bucket string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.data[bucket])
}

func (k *memKV) setFail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail = err
}

// TestNoSQL holds the adapter to what smallstep's packages rely on.
func TestNoSQL(t *testing.T) {
	s := nosqlKV{newMemKV()}
	b, key := []byte("bucket"), []byte("key")
	if _, err := s.Get(b, key); !database.IsErrNotFound(err) {
		t.Errorf("nothing there: %v", err)
	}
	if _, err := s.Get(b, make([]byte, maxKey+1)); !database.IsErrNotFound(err) {
		t.Errorf("a key that is too long: %v", err)
	}
	if err := s.Set(b, key, []byte("1")); err != nil {
		t.Error(err)
	}
	if v, ok, err := s.CmpAndSwap(b, key, nil, []byte("2")); ok || err != nil || string(v) != "1" {
		t.Errorf("a swap of nothing where something is: %s %v %v", v, ok, err)
	}
	if v, ok, err := s.CmpAndSwap(b, key, []byte("1"), []byte("2")); !ok || err != nil || string(v) != "2" {
		t.Errorf("a swap: %s %v %v", v, ok, err)
	}
	if err := s.Set(b, key, []byte("3")); err != nil {
		t.Error(err)
	}
	if l, err := s.List(b); err != nil || len(l) != 1 || string(l[0].Value) != "3" {
		t.Errorf("list: %v %v", l, err)
	}
	for range 2 { // what is not there can be removed
		if err := s.Del(b, key); err != nil {
			t.Error(err)
		}
	}
	if err := s.Update(&database.Tx{Operations: []*database.TxEntry{{Cmd: database.CmpOrRollback}}}); !database.IsErrOpNotSupported(err) {
		t.Errorf("an operation that no one uses: %v", err)
	}
}

// A meetKV lets no one go on from Get before all who are expected have read.
type meetKV struct {
	*memKV
	expected *sync.WaitGroup
}

func (k meetKV) Get(ctx context.Context, bucket string, key []byte) ([]byte, bool, error) {
	v, found, err := k.memKV.Get(ctx, bucket, key)
	k.expected.Done()
	k.expected.Wait()
	return v, found, err
}

// TestNonceOnce takes one nonce many times at once, after all have seen it: one of them gets it.
func TestNonceOnce(t *testing.T) {
	const n = 8
	mem := newMemKV()
	b, key := []byte("nonces"), []byte("n")
	if err := (nosqlKV{mem}).Set(b, key, []byte("x")); err != nil {
		t.Fatal(err)
	}
	s := nosqlKV{meetKV{mem, new(sync.WaitGroup)}}
	s.kv.(meetKV).expected.Add(n)
	taken := 0
	for _, err := range together(n, func() error {
		tx := new(database.Tx)
		tx.Operations = []*database.TxEntry{{Bucket: b, Key: key, Cmd: database.Get}, {Bucket: b, Key: key, Cmd: database.Delete}}
		return s.Update(tx)
	}) {
		if err == nil {
			taken++
		} else if !database.IsErrNotFound(err) {
			t.Errorf("an unexpected error: %v", err)
		}
	}
	if taken != 1 {
		t.Errorf("%d took the nonce", taken)
	}
}

// together runs f n times at once and returns what each returned.
func together(n int, f func() error) []error {
	errs, start := make([]error, n), make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = f()
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// TestStoreFails opens, signs, renews, revokes and lists with a store that fails: nothing is signed or allowed.
func TestStoreFails(t *testing.T) {
	e := newEnv(t)
	host := e.enrol(t, "web-01.hosts.example", "app")
	ott := e.token(t, "web-02.hosts.example", "app")
	e.kv.setFail(errors.New("the disk is full"))
	if _, err := e.try(t, ott); err == nil || !bytes.Contains([]byte(err.Error()), []byte("log says why")) {
		t.Errorf("signed: %v", err)
	}
	if _, err := e.renew(host); err == nil {
		t.Error("renewed while revocations are unknown")
	}
	if err := e.a.Revoke(t.Context(), host.serial(), "test"); err == nil {
		t.Error("revoked, says the authority")
	}
	if _, err := e.get("/crl"); err == nil {
		t.Error("a list of revocations was served")
	}
	if _, _, err := e.a.Identify(host.chain, time.Now()); !errors.Is(err, ErrUnknown) {
		t.Errorf("a host that was not seen before: %v", err)
	}
	if _, err := e.a.Prune(t.Context()); err == nil {
		t.Error("cleaned")
	}
	e.kv.setFail(nil)
	if _, err := e.try(t, ott); err != nil {
		t.Errorf("the token was used up by a store that failed: %v", err)
	}
}

// TestPrune leaves what is valid and removes what has ended.
func TestPrune(t *testing.T) {
	e := newEnv(t)
	host := e.enrol(t, "web-01.hosts.example", "app")
	if err := e.a.Revoke(t.Context(), host.serial(), "test"); err != nil {
		t.Fatal(err)
	}
	if n, err := e.a.Prune(t.Context()); n != 0 || err != nil {
		t.Errorf("removed %d: %v", n, err)
	}
	e.skew(30 * day)
	n, err := e.a.Prune(t.Context())
	if left := e.kv.size(bucketUsed) + e.kv.size(bucketCerts) + e.kv.size(bucketRevoked); n != 3 || left != 0 || err != nil {
		t.Errorf("removed %d, left %d: %v", n, left, err)
	}
}

// TestRun cleans at once and every hour, and ends with its context.
func TestRun(t *testing.T) {
	o := testOptions(t)
	kv := newMemKV()
	o.KV = kv
	synctest.Test(t, func(t *testing.T) {
		begun, base := time.Now(), time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
		o.Now = func() time.Time { return base.Add(time.Since(begun)) }
		a := mustOpen(t, o)
		s := nosqlKV{kv}
		use := func(id string) {
			if err := s.Set([]byte(bucketUsed), []byte(id), []byte(o.Now().Add(-2*day).Format(time.RFC3339))); err != nil {
				t.Error(err)
			}
		}
		use("1")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { a.Run(ctx); close(done) }()
		synctest.Wait()
		if n := kv.size(bucketUsed); n != 0 {
			t.Errorf("%d left at once", n)
		}
		use("2")
		time.Sleep(pruneEvery)
		synctest.Wait()
		if n := kv.size(bucketUsed); n != 0 {
			t.Errorf("%d left after an hour", n)
		}
		kv.setFail(errors.New("away"))
		time.Sleep(pruneEvery)
		issuer := a.State().IssuerNotAfter
		time.Sleep(61 * day)
		synctest.Wait()
		if !a.State().IssuerNotAfter.After(issuer) {
			t.Error("an issuer that is due was not replaced")
		}
		cancel()
		<-done
	})
}
