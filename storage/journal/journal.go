package journal

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
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
	rows  storage.RowEncoder
	pool  sync.Pool // of *[]byte

	mu       sync.Mutex // guards what follows, and is held during write(2): frames are in the order of the calls
	segs     []*segment
	spares   []spare
	open     map[exitgate.ID]begun
	bytes    int64 // of all segments
	written  int64 // bytes ever appended
	synced   int64 // of written, how many are surely on the disk
	unsync   int64 // of written, up to where a sync failed
	syncing  sync.Cond
	newNames bool          // a segment got its name after the last sync of the folder
	late     []ended       // ends that could not be written to a segment
	cursor   place         // every End before it is stored
	drained  chan struct{} // closed, and made anew, when the store took a batch
	closed   bool          // no Begin any more
	gone     bool          // no End either: the files are closed
	stats    Stats

	chunk []byte // of the drainer: what it reads with

	tails   tails
	wake    chan struct{} // to the drainer: something waits
	full    chan struct{} // to the drainer: what waits fills a batch
	tick    chan struct{} // to the syncer: somebody waits
	stop    context.CancelFunc
	workers sync.WaitGroup
	done    chan struct{} // closed when the workers have returned
}

// begun is what is remembered of an open flow.
type begun struct {
	seg     *segment
	off     int64
	subject subject
	since   time.Time
	shown   bool // it was stored as open
}

// A subject is what the subject of a question is made of: two that are equal are encoded alike, since what they point to
// is not changed between Begin and End.
type subject struct {
	host exitgate.Host
	dest exitgate.Destination
	tls  *exitgate.TLS
	http *exitgate.Request
}

func subjectIn(q *exitgate.Question) subject { return subject{q.Host, q.Dest, q.TLS, q.HTTP} }

// appendDifference appends what an End says of its subject, when that of the Begin was s.
func (s subject) appendDifference(b []byte, q *exitgate.Question) []byte {
	now := subjectIn(q)
	if now == s {
		return append(b, sameSubject)
	}
	if s.dest.Addr = q.Dest.Addr; now == s { // the address becomes known between Begin and End
		return appendAddrPort(append(b, otherAddr), q.Dest.Addr)
	}
	return appendSubject(append(b, otherSubject), q)
}

// Begin writes f and returns when it would survive the death of the process. An error means that f is not recorded.
func (j *Journal) Begin(ctx context.Context, f *exitgate.Flow) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("begin the record of flow %s: %w", f.ID, err)
	}
	buf := j.pool.Get().(*[]byte)
	defer j.release(buf)
	b := appendSubject(appendFlow((*buf)[:headerLen], f), &f.Question)
	*buf = b
	if len(b) > headerLen+maxPayload {
		return fmt.Errorf("begin the record of flow %s: it has %d bytes, more than %d", f.ID, len(b), maxPayload)
	}
	crc := crc32.Checksum(b[headerLen:], castagnoli())

	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.begin(b, crc, f); err != nil {
		j.stats.Refused++
		return fmt.Errorf("begin the record of flow %s: %w", f.ID, err)
	}
	return nil
}

// begin appends a Begin frame. Called with mu held.
func (j *Journal) begin(b []byte, crc uint32, f *exitgate.Flow) error {
	if j.closed {
		return ErrClosed
	}
	if j.bytes+int64(len(b)) > j.o.MaxBytes {
		return j.errFull()
	}
	seg, off, err := j.append(b, header{kind: kindBegin, id: f.ID, time: f.Begin.UnixNano()}, crc)
	if err != nil {
		return err
	}
	j.opened(f.ID, begun{seg: seg, off: off, subject: subjectIn(&f.Question), since: time.Now()})
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

// An ended is the row of a flow on its way to the store, and the segment that holds the flow's Begin frame, or nil.
type ended struct {
	row   storage.Row
	begin *segment
}

// End writes the end of f, and hands it on to the store and to tails. When the disk fails it is kept in memory for the
// store, which is logged and counted; an error means that this too failed, and that only the begin of f is recorded.
func (j *Journal) End(_ context.Context, f *exitgate.Flow) error {
	buf := j.pool.Get().(*[]byte)
	defer j.release(buf)
	b := appendFlow((*buf)[:headerLen], f)

	j.mu.Lock()
	defer j.mu.Unlock()
	if j.gone {
		return fmt.Errorf("end the record of flow %s: %w", f.ID, ErrClosed)
	}
	h := header{kind: kindEnd, id: f.ID, time: f.End.UnixNano()}
	start, known := j.forget(f.ID)
	if known {
		h.begin = place{start.seg.n, start.off}
		start.seg.kept++
		b = start.subject.appendDifference(b, &f.Question)
	} else {
		b = appendSubject(append(b, otherSubject), &f.Question)
	}
	*buf = b
	if _, _, err := j.append(b, h, crc32.Checksum(b[headerLen:], castagnoli())); err != nil {
		if err := j.keep(ended{j.rows.Row(f), start.seg}, err); err != nil {
			return fmt.Errorf("end the record of flow %s: %w", f.ID, err)
		}
	}
	j.tails.publish(f)
	if j.stats.Waiting++; j.stats.Waiting == 1 {
		j.stats.Oldest = f.End
	}
	signal(j.wake)
	if j.stats.Waiting >= int64(j.o.Batch) {
		signal(j.full)
	}
	return nil
}

// maxLate bounds the ended flows that are kept in memory while the disk fails: some 40 MB.
const maxLate = 10_000

// keep keeps in memory what could not be written, for the reason that cause says. Called with mu held.
func (j *Journal) keep(e ended, cause error) error {
	j.stats.DiskErrors++
	if len(j.late) >= maxLate {
		j.stats.LostEnds++
		if e.begin != nil {
			e.begin.kept--
		}
		return fmt.Errorf("%w, and %d flows are kept in memory already", cause, maxLate)
	}
	if len(j.late) == 0 {
		j.o.Log.Error("journal: the disk fails; ended flows are kept in memory until the store has them", "err", cause)
	}
	j.late = append(j.late, e)
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
	for _, s := range j.spares {
		errs = append(errs, s.f.Close())
	}
	errs = append(errs, j.lock.Close())
	return errors.Join(errs...)
}
