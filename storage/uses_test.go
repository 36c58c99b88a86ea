package storage_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/exitgate/exitgate/storage"
)

// TestMergeUses: each thing is named once, in one order, and the caller's list stays as it was.
func TestMergeUses(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 8000, time.UTC)
	use := func(kind, id string, last time.Duration, count int64) storage.Use {
		return storage.Use{Kind: kind, ID: id, Last: at.Add(last), Count: count}
	}
	in := []storage.Use{use("host", "b", 0, 1), use("grant", "z", 7, 1), use("host", "b", time.Second, 2), use("host", "a", 0, 1), use("host", "b", -1, 1)}
	before := slices.Clone(in)
	got, err := storage.MergeUses(in)
	want := []storage.Use{use("grant", "z", 0, 1), use("host", "a", 0, 1), use("host", "b", time.Second, 4)}
	if err != nil || !reflect.DeepEqual(got, want) || !reflect.DeepEqual(in, before) {
		t.Errorf("%+v, %v", got, err)
	}
}
