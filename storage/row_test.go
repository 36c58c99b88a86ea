package storage_test

import (
	"testing"

	"github.com/exitgate/exitgate/storage"
	"github.com/exitgate/exitgate/storage/storagetest"
)

// BenchmarkRow is what the row of a flow costs before it goes to a store.
func BenchmarkRow(b *testing.B) {
	e := storage.NewRowEncoder()
	_, f := storagetest.Typical()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = e.Append(buf[:0], f)
	}
	b.SetBytes(int64(len(buf)))
}
