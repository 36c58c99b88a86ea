package sqlite_test

import (
	"path/filepath"
	"testing"

	"github.com/exitgate/exitgate/storage"
	"github.com/exitgate/exitgate/storage/sqlite"
	"github.com/exitgate/exitgate/storage/storagetest"
)

func open(t testing.TB) storage.Store {
	s, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "a b?c#d.db"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	storagetest.Test(t, func(t *testing.T) storage.Store { return open(t) })
}

func BenchmarkWriteFlows(b *testing.B) { storagetest.BenchmarkWriteFlows(b, open(b)) }
