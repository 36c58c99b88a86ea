package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage"
)

// drain writes ended flows to the store, in the order in which they ended, until ctx is done. It is the only goroutine
// that moves the cursor.
func (j *Journal) drain(ctx context.Context) {
	defer j.workers.Done()
	shown := time.NewTicker(j.o.OpenAfter / 2)
	defer shown.Stop()
	var b batch
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-j.wakeup():
			j.fill(ctx)
			for ctx.Err() == nil && j.flush(ctx, &b) {
			}
		case <-shown.C:
			j.showOpen(ctx)
		}
	}
}

// wakeup is ready when something waits.
func (j *Journal) wakeup() <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.stats.Waiting > 0 {
		signal(j.wake)
	}
	return j.wake
}

// fill waits until what waits fills a batch, has waited long enough, or the journal closes.
func (j *Journal) fill(ctx context.Context) {
	j.mu.Lock()
	ready := j.closed || j.stats.Waiting >= int64(j.o.Batch)
	j.mu.Unlock()
	if ready {
		return
	}
	t := time.NewTimer(j.o.FlushEvery)
	defer t.Stop()
	select {
	case <-t.C:
	case <-j.full:
	case <-ctx.Done():
	}
}

// flush writes one batch; it reports whether another one is there already.
func (j *Journal) flush(ctx context.Context, b *batch) bool {
	b.reset(j.cursor) // only this goroutine moves it
	if err := j.read(b); err != nil {
		j.failed(err)
		return j.pause(ctx, j.o.MaxBackoff)
	}
	if len(b.rows) > 0 && !j.deliver(ctx, b) {
		return false
	}
	j.acknowledge(b)
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.stats.Waiting >= int64(j.o.Batch) || j.closed && j.stats.Waiting > 0
}

// A batch is what is written to the store at once. Its memory is used again.
type batch struct {
	rows   []storage.Row
	begins []*segment // of each row: that holds its Begin frame, or nil
	slab   []byte     // holds the fields of rows, and is replaced by another when it is full
	cursor place      // where the rows that were read end
	last   int64      // when the last of them ended
	size   int        // bytes of all
}

func (b *batch) reset(cursor place) {
	if cap(b.slab) > maxPooledSlab {
		b.slab = nil
	}
	*b = batch{rows: b.rows[:0], begins: b.begins[:0], slab: b.slab[:0], cursor: cursor}
}

// maxPooledSlab keeps one huge batch from holding its memory for ever.
const maxPooledSlab = 16 << 20

// full reports whether b should be written as it is.
func (b *batch) full(o *Options) bool { return len(b.rows) >= o.Batch || b.size >= o.BatchBytes }

// add appends the row of a flow.
func (b *batch) add(e storage.RowEncoder, f *exitgate.Flow, begin *segment) {
	if cap(b.slab)-len(b.slab) < 8<<10 { // rows that are there keep the old one
		b.slab = make([]byte, 0, max(min(2*cap(b.slab), maxPooledSlab), 64<<10))
	}
	n := len(b.slab)
	b.slab = e.Append(b.slab, f) // in a new place when it is longer than what is free
	fields := b.slab[n:len(b.slab):len(b.slab)]
	b.rows, b.begins = append(b.rows, storage.Row{ID: f.ID, Ended: true, Fields: fields}), append(b.begins, begin)
	b.size += len(fields)
}

// read fills b up from the segments, and with what could not be written to one.
func (j *Journal) read(b *batch) error {
	for !b.full(&j.o) {
		s, end := j.rest(b.cursor)
		if s == nil {
			break
		}
		if err := j.readEnds(b, s, end); err != nil {
			return fmt.Errorf("read the journal back: %w", err)
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.late {
		b.rows, b.begins = append(b.rows, e.row), append(b.begins, e.begin)
	}
	j.late = nil
	return nil
}

// rest returns the segment at the cursor and where it ends now; nil: everything was read.
func (j *Journal) rest(cursor place) (*segment, int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for n := cursor.Segment; n <= j.active().n; n++ {
		s := j.segment(n)
		if s != nil && (s.n > cursor.Segment || s.size > cursor.Offset) && s.size > 0 {
			return s, s.size
		}
	}
	return nil, 0
}

// readEnds adds the flows that end in s, from b's cursor to the offset end, until b is full.
func (j *Journal) readEnds(b *batch, s *segment, end int64) error {
	if b.cursor.Segment != s.n {
		b.cursor = place{s.n, 0}
	}
	r := reader{r: s.f, segment: s.n, off: b.cursor.Offset, end: end, buf: j.chunk[:0]}
	defer func() { j.chunk = r.buf }()
	for !b.full(&j.o) {
		fr, _, err := r.next()
		if err == io.EOF {
			b.cursor.Offset = end
			return nil
		}
		if err != nil {
			return err
		}
		b.cursor.Offset = r.off
		if fr.kind == kindBegin {
			continue
		}
		if len(b.rows)%yieldEvery == 0 {
			runtime.Gosched()
		}
		if err := j.add(b, fr, &r); err != nil {
			return err
		}
	}
	return nil
}

// yieldEvery is after how many rows, some 100 us, the drainer lets requests go first: on one processor they would wait
// for a whole batch otherwise.
const yieldEvery = 16

// add adds the flow of an End frame, which r has just read.
func (j *Journal) add(b *batch, fr frame, r *reader) error {
	begin, size := j.beginOf(fr)
	f, subject, err := fr.decode(func() (frame, error) {
		switch {
		case begin == nil:
			return frame{}, errors.New("its begin frame is gone")
		case begin.n == r.segment:
			if found, ok := r.again(fr.begin.Offset); ok {
				return found, nil
			}
		}
		return readFrame(begin, fr.begin.Offset, size)
	})
	if subject != nil { // damaged, which was reported when the journal was opened
		j.o.Log.Error("journal: a flow is stored without host, destination and request, which stood in its begin", "flow", fr.id, "err", subject)
	}
	if err != nil {
		// The bytes are as they were written, so this is an error of a program, and trying again is no use.
		j.o.Log.Error("journal: an ended flow cannot be decoded; it is kept in quarantine", "flow", fr.id, "err", err)
		if err := j.quarantine(fr.id.String()+".flow", fr.payload); err != nil {
			return err
		}
		j.dropped(begin)
		return nil
	}
	f.ID = fr.id // the name under which it is stored is the one that was guarded
	b.last = fr.time
	b.add(j.rows, f, begin)
	return nil
}

// beginOf returns the segment that holds the Begin frame of an End, and how much of it is written.
func (j *Journal) beginOf(fr frame) (*segment, int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.segment(fr.begin.Segment)
	if s == nil {
		return nil, 0
	}
	return s, s.size
}

// dropped notes that a flow which began in that segment will never be stored.
func (j *Journal) dropped(begin *segment) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if begin != nil {
		begin.kept--
	}
	j.stats.Quarantined++
	j.stats.Waiting--
}

// deliver writes b to the store and tries again until it worked, with what has ended meanwhile. It reports false when
// ctx was done first.
func (j *Journal) deliver(ctx context.Context, b *batch) bool {
	backoff := 100 * time.Millisecond
	for try := 1; ; try++ {
		err := j.write(ctx, b.rows)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		j.failed(err)
		if try%triesTogether == 0 && j.deliverApart(ctx, b.rows) {
			return true
		}
		if !j.pause(ctx, backoff) {
			return false
		}
		backoff = min(2*backoff, j.o.MaxBackoff)
		if err := j.read(b); err != nil {
			j.failed(err)
		}
	}
}

// write is one write to the store, with a deadline, in which a panic is an error.
func (j *Journal) write(ctx context.Context, rows []storage.Row) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the store panicked: %v", r)
			j.o.Log.Error("journal: the store panicked", "panic", r, "stack", string(debug.Stack()))
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, j.o.WriteTimeout)
	defer cancel()
	return j.store.WriteRows(ctx, rows)
}

// failed notes an error of the store, and logs the first of a row.
func (j *Journal) failed(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.stats.StoreErrors++
	if j.stats.LastError == "" {
		j.stats.FailingSince = time.Now().UTC()
		j.o.Log.Error("journal: the store fails; flows wait on the disk", "err", err)
	}
	j.stats.LastError = err.Error()
}

func (j *Journal) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// acknowledge notes that b is stored, moves the cursor and deletes what nobody needs.
func (j *Journal) acknowledge(b *batch) {
	j.mu.Lock()
	for _, s := range b.begins {
		if s != nil {
			s.kept--
		}
	}
	j.stats.Waiting -= int64(len(b.rows))
	j.stats.Stored += int64(len(b.rows))
	j.stats.LastFlush = time.Now().UTC()
	if len(b.rows) > 0 && j.stats.LastError != "" {
		j.o.Log.Info("journal: the store works again", "failed_since", j.stats.FailingSince)
		j.stats.LastError, j.stats.FailingSince = "", time.Time{}
	}
	if j.stats.Waiting == 0 {
		j.stats.Oldest = time.Time{}
	} else if b.last != 0 { // what waits ended no earlier
		j.stats.Oldest = time.Unix(0, b.last).UTC()
	}
	moved := j.cursor != b.cursor
	j.cursor = b.cursor
	close(j.drained)
	j.drained = make(chan struct{})
	j.mu.Unlock()
	if moved {
		if err := j.writeCursor(b.cursor); err != nil {
			j.o.Log.Warn("journal: write the cursor; after a crash flows will be stored again", "err", err)
		}
		j.carryForward()
		j.mu.Lock()
		j.trim()
		j.mu.Unlock()
	}
}

// tail is where the next frame of the active segment will be. Called with mu held.
func (j *Journal) tail() place { return place{j.active().n, j.active().size} }
