package storagetest

import (
	"syscall"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage"
)

// BenchmarkWriteFlows writes typical flows in the batches in which the journal does. One op is one flow; cpu-ns/op is
// what this process spent on it, without the database server.
func BenchmarkWriteFlows(b *testing.B, s storage.Store) {
	const batch = 2000
	begin := time.Now().UTC()
	_, typical := Typical()
	start := CPU()
	flows := make([]*exitgate.Flow, 0, batch)
	for i := 0; b.Loop(); i++ {
		f := new(exitgate.Flow)
		*f = *typical
		f.Begin = begin.Add(time.Duration(i) * 50 * time.Microsecond)
		f.ID, f.End = exitgate.NewID(f.Begin), f.Begin.Add(time.Second)
		if flows = append(flows, f); len(flows) == batch {
			if err := storage.WriteFlows(b.Context(), s, flows); err != nil {
				b.Fatal(err)
			}
			flows = flows[:0]
		}
	}
	b.ReportMetric(float64(CPU()-start)/float64(b.N), "cpu-ns/op")
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

// CPU is the time that the process has used, kernel included.
func CPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
