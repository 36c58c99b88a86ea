package journal

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage"
)

// tailBuffer is how many flows a tail may be behind before flows are dropped for it.
const tailBuffer = 1024

// Tail returns a channel of the flows that end from now on and match filter (its Limit and Before do not matter),
// until ctx is done or the journal closes, which closes the channel. A receiver that is more than 1,024 flows behind
// misses some, which Stats counts; it never holds up the data path. The flows are shared, and so is what they point to:
// they must not be changed.
func (j *Journal) Tail(ctx context.Context, filter storage.Filter) <-chan *exitgate.Flow {
	in := make(chan *exitgate.Flow, tailBuffer)
	out := make(chan *exitgate.Flow)
	if !j.tails.add(in) {
		close(out)
		return out
	}
	go j.tails.copy(ctx, in, out, filter)
	return out
}

// tails are the receivers of ended flows.
type tails struct {
	mu      sync.Mutex
	ins     map[chan *exitgate.Flow]bool
	closed  bool
	n       atomic.Int32 // of ins, so that nobody following costs nothing
	dropped atomic.Int64
}

func (t *tails) add(in chan *exitgate.Flow) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	if t.ins == nil {
		t.ins = make(map[chan *exitgate.Flow]bool)
	}
	t.ins[in] = true
	t.n.Store(int32(len(t.ins)))
	return true
}

func (t *tails) remove(in chan *exitgate.Flow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.ins, in)
	t.n.Store(int32(len(t.ins)))
}

// publish gives each tail a copy of f, as it is now.
func (t *tails) publish(f *exitgate.Flow) {
	if t.n.Load() == 0 {
		return
	}
	kept := *f
	t.mu.Lock()
	defer t.mu.Unlock()
	for in := range t.ins {
		select {
		case in <- &kept:
		default:
			t.dropped.Add(1)
		}
	}
}

// close ends every tail, after what it holds was received.
func (t *tails) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for in := range t.ins {
		close(in)
	}
	clear(t.ins)
	t.n.Store(0)
}

func (t *tails) copy(ctx context.Context, in, out chan *exitgate.Flow, filter storage.Filter) {
	defer close(out)
	defer t.remove(in)
	for {
		select {
		case <-ctx.Done():
			return
		case f, ok := <-in:
			if !ok {
				return
			}
			if !filter.Match(f) {
				continue
			}
			select {
			case out <- f:
			case <-ctx.Done():
				return
			}
		}
	}
}

// Stats is how a journal stands. The counts are since it was opened.
type Stats struct {
	Open         int       // flows begun and not ended
	Waiting      int64     // ended flows that the store has not taken
	Oldest       time.Time // when the first of them ended; zero: none waits
	Bytes        int64     // of all segments
	MaxBytes     int64     // above which Begin refuses
	Stored       int64     // flows that the store took
	Refused      int64     // calls of Begin that failed
	Interrupted  int64     // flows that were ended by Open
	StoreErrors  int64     // failed tries
	DiskErrors   int64     // failed writes and syncs
	LostEnds     int64     // ends that neither disk nor memory took
	Quarantined  int64     // flows that were put aside
	TornBytes    int64     // cut off by Open
	DamagedBytes int64     // put aside by Open
	TailDrops    int64     // flows that a tail missed
	LastFlush    time.Time // when the store last took a batch
	FailingSince time.Time // when the row of errors began; zero: the store works
	LastError    string    // of that row
}

// Stats returns how j stands.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.stats
	s.Open, s.Bytes, s.MaxBytes = len(j.open), j.bytes, j.o.MaxBytes
	s.TailDrops = j.tails.dropped.Load()
	return s
}
