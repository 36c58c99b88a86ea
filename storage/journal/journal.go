package journal

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage"
)

// ErrFull says that the journal holds Options.MaxBytes which the store has not taken.
var ErrFull = errors.New("the journal is full")

// ErrClosed says that the journal was closed.
var ErrClosed = errors.New("the journal is closed")

// A Journal records flows. It satisfies the engine's Recorder. Make one with [Open].
type Journal struct {
	dir   string
	store storage.FlowWriter
	o     Options
	lock  *os.File
	pool  sync.Pool // of *[]byte

	mu      sync.Mutex // guards what follows, and is held during write(2): frames are in the order of the calls
	segs    []*segment
	open    map[exitgate.ID]begun
	bytes   int64 // of all segments
	written int64 // bytes ever appended
	synced  int64 // of written, how many are surely on the disk
	unsync  int64 // of written, up to where a sync failed
	syncing sync.Cond
	queue   []item
	queued  int64  // bytes of the flows in queue
	late    []item // ended flows that could not be written to a segment
	cursor  place  // every End before it is stored
	// What waits is, in this order: what lies in the segments from cursor to gap, if gap is not zero; the queue; and,
	// if overflow, what ended after the queue was full.
	gap      place
	overflow bool
	drained  chan struct{} // closed, and made anew, when the store took a batch
	closed   bool          // no Begin any more
	gone     bool          // no End either: the files are closed
	stats    Stats

	tails   tails
	wake    chan struct{} // to the drainer: something is queued
	full    chan struct{} // to the drainer: a batch is full
	tick    chan struct{} // to the syncer: somebody waits
	stop    context.CancelFunc
	workers sync.WaitGroup
	done    chan struct{} // closed when the workers have returned
}

// begun is what is remembered of an open flow.
type begun struct {
	seg     *segment
	off     int64
	size    int64 // of its frame; 0 for one that was recovered
	subject subject
	since   time.Time
	shown   bool // it was stored as open
}

// A subject is what the subject of a question is made of: two that are equal are encoded in the same bytes, since what
// they point to is not changed between Begin and End.
type subject struct {
	host exitgate.Host
	dest exitgate.Destination
	tls  *exitgate.TLS
	http *exitgate.Request
}

func subjectIn(q *exitgate.Question) subject { return subject{q.Host, q.Dest, q.TLS, q.HTTP} }

// amended reports whether q's subject is s, but for the address that the gateway dialled: that becomes known between
// Begin and End, and such an end says the address and nothing else of its subject.
func (s subject) amended(q *exitgate.Question) bool {
	addr := q.Dest.Addr
	if s.dest.Addr != addr && (!addr.IsValid() || addr.Addr().Zone() != "") { // a zone is any text
		return false
	}
	s.dest.Addr = addr
	return s == subjectIn(q)
}

// appendAddr adds the address of a destination to the JSON object that b ends with.
func appendAddr(b []byte, addr netip.AddrPort) []byte {
	b = append(b[:len(b)-1], `,"dest":{"addr":"`...)
	b, _ = addr.AppendText(b)
	return append(b, `"}}`...)
}

// An item is an ended flow on its way to the store.
type item struct {
	flow  *exitgate.Flow
	begin *segment // that holds its Begin frame, or nil
	next  place    // after its End frame; zero: it has none
	size  int64    // of its frames, which is about what it takes in memory
}

// Begin writes f and returns when it would survive the death of the process. An error means that f is not recorded.
func (j *Journal) Begin(ctx context.Context, f *exitgate.Flow) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("begin the record of flow %s: %w", f.ID, err)
	}
	buf := j.pool.Get().(*[]byte)
	defer j.release(buf)
	b := storage.AppendSubject(appendAnswer((*buf)[:headerLen], f), &f.Question)
	*buf = b
	if len(b) > headerLen+maxPayload {
		return fmt.Errorf("begin the record of flow %s: it has %d bytes, more than %d", f.ID, len(b), maxPayload)
	}
	seal(b, kindBegin, f.ID, place{}, crc32.Checksum(b[headerLen:], castagnoli()))

	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.begin(b, f); err != nil {
		j.stats.Refused++
		return fmt.Errorf("begin the record of flow %s: %w", f.ID, err)
	}
	return nil
}

// begin appends a Begin frame. Called with mu held.
func (j *Journal) begin(b []byte, f *exitgate.Flow) error {
	if j.closed {
		return ErrClosed
	}
	if j.bytes+int64(len(b)) > j.o.MaxBytes {
		return j.errFull()
	}
	seg, off, err := j.append(b)
	if err != nil {
		return err
	}
	j.opened(f.ID, begun{seg: seg, off: off, size: int64(len(b)), subject: subjectIn(&f.Question), since: time.Now()})
	if j.o.Sync {
		if err := j.awaitSync(j.written); err != nil {
			j.forget(f.ID)
			return err
		}
	}
	return nil
}

// opened remembers an open flow. Called with mu held.
func (j *Journal) opened(id exitgate.ID, b begun) {
	j.forget(id)
	b.seg.open++
	j.open[id] = b
}

// forget is the opposite of opened. Called with mu held.
func (j *Journal) forget(id exitgate.ID) (begun, bool) {
	b, ok := j.open[id]
	if ok {
		b.seg.open--
		delete(j.open, id)
	}
	return b, ok
}

func (j *Journal) errFull() error {
	why := "the store has not taken them yet"
	if j.stats.LastError != "" {
		why = "the store fails since " + j.stats.FailingSince.Format(time.RFC3339) + ": " + j.stats.LastError
	}
	return fmt.Errorf("%w: %s holds %d bytes of at most %d, with %d flows that wait for the store; %s",
		ErrFull, j.dir, j.bytes, j.o.MaxBytes, j.stats.Waiting, why)
}

// appendAnswer appends the parts of a flow that its end has of its own.
func appendAnswer(b []byte, f *exitgate.Flow) []byte {
	return storage.AppendAsked(storage.AppendRecord(b, f), &f.Question)
}

// End writes the end of f, and hands f on to the store and to tails. When the disk fails f is kept in memory for the
// store, which is logged and counted; an error means that this too failed, and that only the begin of f is recorded.
func (j *Journal) End(_ context.Context, f *exitgate.Flow) error {
	buf := j.pool.Get().(*[]byte)
	defer j.release(buf)
	b := appendAnswer((*buf)[:headerLen], f)
	*buf = b
	kept := *f

	j.mu.Lock()
	defer j.mu.Unlock()
	if j.gone {
		return fmt.Errorf("end the record of flow %s: %w", f.ID, ErrClosed)
	}
	start, known := j.forget(f.ID)
	it := item{flow: &kept}
	var begin place
	if known {
		begin = place{start.seg.n, start.off}
		start.seg.kept++
		it.begin = start.seg
	}
	k := kindEnd
	switch q := &f.Question; {
	case !known || !start.subject.amended(q):
		k = kindEndFull
		b = storage.AppendSubject(b, q)
	case start.subject.dest.Addr != q.Dest.Addr:
		b = appendAddr(b, q.Dest.Addr)
	}
	*buf = b
	seal(b, k, f.ID, begin, crc32.Checksum(b[headerLen:], castagnoli()))
	it.size = start.size + int64(len(b))
	seg, off, err := j.append(b)
	if err == nil {
		it.next = place{seg.n, off + int64(len(b))}
	}
	j.tails.publish(it.flow)
	return j.enqueue(it, err)
}

// maxLate bounds the ended flows that are kept in memory while the disk fails: some 40 MB.
const maxLate = 10_000

// enqueue hands it to the drainer; err says why it could not be written, if so. Called with mu held.
func (j *Journal) enqueue(it item, err error) error {
	if err != nil {
		j.stats.DiskErrors++
		if len(j.late) >= maxLate {
			j.stats.LostEnds++
			if it.begin != nil {
				it.begin.kept--
			}
			return fmt.Errorf("end the record of flow %s: %w, and %d flows are kept in memory already", it.flow.ID, err, maxLate)
		}
		if len(j.late) == 0 {
			j.o.Log.Error("journal: the disk fails; ended flows are kept in memory until the store has them", "err", err)
		}
		j.late = append(j.late, it)
	} else if j.overflow = j.overflow || len(j.queue) >= j.o.Queue || j.queued+it.size > j.o.QueueBytes; !j.overflow {
		j.queue = append(j.queue, it)
		j.queued += it.size
	}
	j.stats.Waiting++
	signal(j.wake)
	if len(j.queue) >= j.o.Batch {
		signal(j.full)
	}
	return nil
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// maxPooled keeps one huge header from holding its memory for ever.
const maxPooled = 256 << 10

func (j *Journal) release(buf *[]byte) {
	if cap(*buf) <= maxPooled {
		j.pool.Put(buf)
	}
}

// Close refuses new flows, waits until the store has taken those that ended, or ctx is done, and closes the files.
// What the store has not taken stays on the disk for the next Open; so does what was begun and never ended.
func (j *Journal) Close(ctx context.Context) error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return ErrClosed
	}
	j.closed = true
	j.mu.Unlock()
	signal(j.wake)
	signal(j.full)
	err := j.awaitDrained(ctx)
	j.stop()
	select {
	case <-j.done:
	case <-ctx.Done(): // a store that does not heed its context: its goroutine is left to it
		return err
	}
	j.tails.close()
	return errors.Join(err, j.closeFiles())
}

func (j *Journal) awaitDrained(ctx context.Context) error {
	for {
		j.mu.Lock()
		waiting, drained := j.stats.Waiting, j.drained
		j.mu.Unlock()
		if waiting == 0 {
			return nil
		}
		select {
		case <-drained:
		case <-ctx.Done():
			return fmt.Errorf("close the journal %s: %d flows are left on the disk for the next start: %w", j.dir, waiting, ctx.Err())
		}
	}
}

func (j *Journal) closeFiles() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.gone = true
	var errs []error
	for _, s := range j.segs {
		if s.dirty {
			errs = append(errs, s.f.Sync())
		}
		errs = append(errs, s.f.Close())
	}
	errs = append(errs, j.lock.Close())
	return errors.Join(errs...)
}
