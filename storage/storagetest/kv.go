package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/exitgate/exitgate/storage"
)

// wantKey fails t when the value under the key is not want; nil means that there is none.
func wantKey(t *testing.T, kv storage.KV, bucket, key string, want []byte) {
	t.Helper()
	got, err := kv.Get(t.Context(), bucket, []byte(key))
	switch {
	case want == nil && !errors.Is(err, storage.ErrNotFound):
		t.Errorf("%s %q: %q, %v, want ErrNotFound", bucket, key, got, err)
	case want != nil && (err != nil || got == nil || !bytes.Equal(got, want)):
		t.Errorf("%s %q: %q, %v, want %q", bucket, key, got, err, want)
	}
}

func keys(t *testing.T, s storage.Store) {
	kv, ctx := s.KV(), t.Context()
	every := []byte("'; DROP TABLE kv; --")
	for c := range 256 {
		every = append(every, byte(c))
	}
	long := string(bytes.Repeat([]byte{0}, 1024))
	for _, key := range []string{"a", "\x00", "\xff\xfe", string(every), long} {
		wantKey(t, kv, "certs", key, nil)
		for _, value := range [][]byte{every, {}, bytes.Repeat([]byte{0xff}, 1<<20)} {
			if err := kv.Put(ctx, "certs", []byte(key), value); err != nil {
				t.Fatal(err)
			}
			wantKey(t, kv, "certs", key, value)
		}
		wantKey(t, kv, "cert", key, nil)
	}
	if err := kv.Put(ctx, "certs", []byte("a"), nil); err != nil {
		t.Error(err)
	}
	wantKey(t, kv, "certs", "a", []byte{})
	for range 2 {
		if err := kv.Delete(ctx, "certs", []byte("a")); err != nil {
			t.Error(err)
		}
		wantKey(t, kv, "certs", "a", nil)
	}
	for _, bad := range [][2]string{{"", "k"}, {"b\x00", "k"}, {strings.Repeat("b", 129), "k"}, {"b", ""}, {"b", long + "x"}} {
		_, getErr := kv.Get(ctx, bad[0], []byte(bad[1]))
		putErr, delErr := kv.Put(ctx, bad[0], []byte(bad[1]), nil), kv.Delete(ctx, bad[0], []byte(bad[1]))
		_, _, casErr := kv.CompareAndSwap(ctx, bad[0], []byte(bad[1]), nil, every)
		for i, err := range []error{getErr, putErr, delErr, casErr} {
			if err == nil || errors.Is(err, storage.ErrNotFound) {
				t.Errorf("call %d with bucket %q and key %.10q: %v", i, bad[0], bad[1], err)
			}
		}
	}
}

func compareAndSwap(t *testing.T, s storage.Store) {
	kv := s.KV()
	a, b, empty := []byte("a"), []byte("b"), []byte{}
	for i, c := range []struct {
		there, old, new []byte
		swapped         bool
	}{
		{nil, nil, a, true}, {nil, nil, empty, true}, {nil, nil, nil, true},
		{nil, a, b, false}, {nil, empty, b, false}, {nil, a, nil, false},
		{a, a, b, true}, {a, a, a, true}, {a, a, empty, true}, {a, a, nil, true},
		{a, nil, b, false}, {a, nil, nil, false}, {a, b, nil, false}, {a, b, a, false}, {a, empty, b, false},
		{empty, empty, a, true}, {empty, nil, a, false}, {empty, empty, nil, true}, {empty, a, b, false},
	} {
		key := fmt.Sprint(i)
		if c.there != nil {
			if err := kv.Put(t.Context(), "b", []byte(key), c.there); err != nil {
				t.Fatal(err)
			}
		}
		after := c.there
		if c.swapped {
			after = c.new
		}
		current, swapped, err := kv.CompareAndSwap(t.Context(), "b", []byte(key), c.old, c.new)
		if err != nil || swapped != c.swapped || !bytes.Equal(current, after) || (current == nil) != (after == nil) {
			t.Errorf("%q, from %q to %q: %q, %v, %v", c.there, c.old, c.new, current, swapped, err)
		}
		wantKey(t, kv, "b", key, after)
	}
}

func listKeys(t *testing.T, s storage.Store) {
	kv, ctx := s.KV(), t.Context()
	var want []string
	for i := range 2003 { // more than two pages
		key := []byte{byte(i >> 8), byte(i)}
		want = append(want, string(key)+"="+fmt.Sprint(i))
		if err := kv.Put(ctx, "b", key, []byte(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := kv.Put(ctx, "c", []byte("other"), nil); err != nil {
		t.Fatal(err)
	}
	var got []string
	all := map[string][]byte{}
	err := kv.List(ctx, "b", func(key, value []byte) error {
		got = append(got, string(key)+"="+string(value))
		all[string(key)] = key
		return kv.Delete(ctx, "b", key) // while it is listed
	})
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%d keys, %v, want %d in order", len(got), err, len(want))
	}
	for key, kept := range all {
		if key != string(kept) {
			t.Fatalf("key %q was overwritten with %q", key, kept)
		}
	}
	enough := errors.New("enough")
	if err := kv.List(ctx, "c", func(_, value []byte) error {
		if value == nil {
			t.Error("an empty value is nil")
		}
		return enough
	}); err != enough {
		t.Errorf("%v, want the error of the function", err)
	}
	if err := kv.List(ctx, "b", func(key, _ []byte) error { return fmt.Errorf("%q is there still", key) }); err != nil {
		t.Error(err)
	}
}

func prune(t *testing.T, s storage.Store) {
	kv, ctx := s.KV(), t.Context()
	for _, bucket := range []string{"b", "c"} {
		if err := kv.Put(ctx, bucket, []byte("k"), nil); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := kv.Prune(ctx, "b", time.Now().Add(-time.Hour)); err != nil || n != 0 {
		t.Errorf("%d removed that were just written, %v", n, err)
	}
	if n, err := kv.Prune(ctx, "b", time.Now().Add(time.Hour)); err != nil || n != 1 {
		t.Errorf("%d removed, %v, want 1", n, err)
	}
	wantKey(t, kv, "b", "k", nil)
	wantKey(t, kv, "c", "k", []byte{})
}

func cancelledKeys(t *testing.T, s storage.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, swapped, err := s.KV().CompareAndSwap(ctx, "b", []byte("k"), nil, []byte("v")); swapped || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v", swapped, err)
	}
	if err := s.Used(ctx, []storage.Use{{Kind: "grant", ID: "g", Count: 1}}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := s.Apply(ctx, change(), doc("grant", "g", `{}`)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	wantKey(t, s.KV(), "b", "k", nil)
	wantUses(t, s, "grant")
	if n := revision(t, s); n != 0 {
		t.Errorf("revision %d", n)
	}
}
