package storagetest

import (
	"fmt"
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

// BenchmarkLedger lists 100,000 grants, asks for the revision, and changes one grant among them.
func BenchmarkLedger(b *testing.B, s storage.Store) {
	defer s.Close()
	g := exitgate.Grant{Class: "build", To: "*.example.com", Methods: []string{"GET", "POST"}, Paths: []string{"/a/*"}, Reason: "ticket 7", By: "ada", At: Start()}
	edits := make([]storage.Edit, storage.MaxEdits)
	for n := 0; n < 100_000; n += len(edits) {
		for i := range edits {
			g.ID = fmt.Sprintf("g%06d", n+i)
			edits[i], _ = storage.Put(storage.KindGrant, g.ID, g, 0)
		}
		if _, err := s.Apply(b.Context(), change(), edits...); err != nil {
			b.Fatal(err)
		}
	}
	for name, f := range map[string]func() error{
		"Documents": func() error { _, err := s.Documents(b.Context(), storage.KindGrant); return err },
		"Grants":    func() error { _, err := storage.Grants(b.Context(), s); return err },
		"Revision":  func() error { _, err := s.Revision(b.Context()); return err },
		"Apply":     func() error { return storage.PutGrant(b.Context(), s, g, change()) },
		"Audit": func() error {
			_, err := s.Audit(b.Context(), storage.AuditFilter{Kind: "grant", Who: "ada"})
			return err
		},
		"AuditNobody": func() error {
			_, err := s.Audit(b.Context(), storage.AuditFilter{Kind: "host", Who: "bob", Object: "h"})
			return err
		},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
