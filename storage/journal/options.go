package journal

import (
	"log/slog"
	"os"
	"time"
)

// Options are how a journal works. The zero value of each field means its default.
type Options struct {
	MaxBytes     int64         // of all segments, above which Begin refuses; 1 GiB
	SegmentBytes int64         // at which a new segment is begun; 16 MiB, at most a quarter of MaxBytes and 1 GiB
	Sync         bool          // Begin returns only after the flow was synced to the disk
	SyncEvery    time.Duration // how long what was written stays unsynced; 100 ms
	Batch        int           // flows in one write to the store; 2,000
	FlushEvery   time.Duration // how long a flow waits for its batch to fill; 250 ms
	OpenAfter    time.Duration // a flow that is open for longer is stored as open; 2 s
	BatchBytes   int           // of them, above which it is written as it is; 8 MiB
	WriteTimeout time.Duration // for one write to the store; 30 s
	MaxBackoff   time.Duration // between two tries, which start at 100 ms; 5 s
	Log          *slog.Logger  // slog.Default()

	openFile func(name string, create bool) (file, error) // the seam for tests of failing disks
}

func (o Options) withDefaults() Options {
	def(&o.MaxBytes, 1<<30)
	def(&o.SegmentBytes, 16<<20)
	o.SegmentBytes = max(min(o.SegmentBytes, o.MaxBytes/4, 1<<30), 4<<10)
	def(&o.SyncEvery, 100*time.Millisecond)
	def(&o.Batch, 2000)
	def(&o.FlushEvery, 250*time.Millisecond)
	def(&o.OpenAfter, 2*time.Second)
	def(&o.BatchBytes, 8<<20)
	def(&o.WriteTimeout, 30*time.Second)
	def(&o.MaxBackoff, 5*time.Second)
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.openFile == nil {
		o.openFile = openFile
	}
	return o
}

func def[T int | int64 | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// A file is what a segment needs of *os.File.
type file interface {
	ReadAt(b []byte, off int64) (int, error)
	WriteAt(b []byte, off int64) (int, error)
	Truncate(size int64) error
	// Prepare makes room for size bytes on the disk before they are written, as far as the system can: a disk that is
	// full says so here. What is in the file stays.
	Prepare(size int64) error
	// Sync makes what was written survive the death of the machine.
	Sync() error
	Close() error
}

func openFile(name string, create bool) (file, error) {
	flag := os.O_RDWR
	if create {
		flag |= os.O_CREATE | os.O_EXCL
	}
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return newFile(f), nil
}
