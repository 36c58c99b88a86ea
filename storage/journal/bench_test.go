package journal

import (
	"context"
	"errors"
	"testing"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage/storagetest"
)

type discard struct{}

func (discard) WriteFlows(context.Context, []*exitgate.Flow) error { return nil }

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

// BenchmarkReadBack is what a flow costs that waited on the disk only: the reading of its two frames.
func BenchmarkReadBack(b *testing.B) {
	j, err := Open(context.Background(), b.TempDir(), &memory{before: down}, Options{Log: quiet()})
	if err != nil {
		b.Fatal(err)
	}
	defer j.stop()
	begun, ended := storagetest.Typical()
	if err := errors.Join(j.Begin(b.Context(), begun), j.End(b.Context(), ended)); err != nil {
		b.Fatal(err)
	}
	j.mu.Lock()
	s, size := j.active(), j.active().size
	j.mu.Unlock()
	b.ReportAllocs()
	for b.Loop() {
		if got, _, err := j.readEnds(s, 0, size, nil); err != nil || len(got) != 1 {
			b.Fatal(got, err)
		}
	}
}
