package journal

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage"
	"github.com/exitgate/exitgate/storage/storagetest"
)

type discard struct{}

func (discard) WriteRows(context.Context, []storage.Row) error { return nil }

// BenchmarkBeginEnd is what a request pays on the data path for its record, both writes included.
func BenchmarkBeginEnd(b *testing.B) {
	j, err := Open(context.Background(), b.TempDir(), discard{}, Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close(context.Background())
	begun, ended := storagetest.Typical()
	b.ReportAllocs()
	start := storagetest.CPU()
	for b.Loop() {
		f := *begun
		f.ID = exitgate.NewID(f.Begin)
		if err := j.Begin(context.Background(), &f); err != nil {
			b.Fatal(err)
		}
		e := *ended
		e.ID, e.Question.Dest.Addr = f.ID, e.Authority.Dialled // as the engine does it
		if err := j.End(context.Background(), &e); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(storagetest.CPU()-start)/float64(b.N), "cpu-ns/op")
}

// BenchmarkDrain is what a flow costs the drainer: the reading of its two frames.
func BenchmarkDrain(b *testing.B) {
	j, err := Open(context.Background(), b.TempDir(), &memory{before: down}, Options{Log: quiet(), FlushEvery: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	defer j.stop()
	const n = 1000
	for range n {
		begun, ended := pair()
		if err := errors.Join(j.Begin(b.Context(), begun), j.End(b.Context(), ended)); err != nil {
			b.Fatal(err)
		}
	}
	var got batch
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%n != 0 { // one op is one flow
			continue
		}
		got.reset(place{1, 0})
		if err := j.read(&got); err != nil || len(got.rows) != n {
			b.Fatal(len(got.rows), err)
		}
	}
}
