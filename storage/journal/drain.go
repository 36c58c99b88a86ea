package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"github.com/exitgate/exitgate"
)

// drain writes ended flows to the store, in the order in which they ended, until ctx is done. It is the only goroutine
// that moves the cursor.
func (j *Journal) drain(ctx context.Context) {
	defer j.workers.Done()
	shown := time.NewTicker(j.o.OpenAfter / 2)
	defer shown.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-j.wakeup():
			j.fill(ctx)
			for ctx.Err() == nil && j.flush(ctx) {
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

// fill waits until a batch is full, has waited long enough, or the journal closes.
func (j *Journal) fill(ctx context.Context) {
	j.mu.Lock()
	ready := j.isBehind() || j.closed || len(j.queue) >= j.o.Batch
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
func (j *Journal) flush(ctx context.Context) bool {
	batch, cursor, err := j.next(nil, j.cursor) // only this goroutine moves j.cursor
	if err != nil {
		j.failed(err)
		return j.pause(ctx, j.o.MaxBackoff)
	}
	if len(batch) > 0 {
		if batch, cursor = j.deliver(ctx, batch, cursor); batch == nil {
			return false
		}
	}
	j.acknowledge(batch, cursor)
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.isBehind() || len(j.queue) >= j.o.Batch || j.closed && len(j.queue)+len(j.late) > 0
}

// next fills batch up, which ends at cursor, and returns where the longer one ends.
func (j *Journal) next(batch []item, cursor place) ([]item, place, error) {
	n := len(batch)
	if batch, cursor = j.take(batch, cursor); len(batch) > n {
		return batch, cursor, nil
	}
	batch, cursor, err := j.readBehind(batch, cursor)
	if err != nil {
		err = fmt.Errorf("read the journal back: %w", err)
	}
	return batch, cursor, err
}

// take fills batch up from the queue, and from what could not be written.
func (j *Journal) take(batch []item, cursor place) ([]item, place) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if n := min(len(j.queue), j.o.Batch-len(batch)); n > 0 && j.gap == (place{}) {
		batch = append(batch, j.queue[:n]...)
		cursor = j.queue[n-1].next
		for _, it := range j.queue[:n] {
			j.queued -= it.size
		}
		left := copy(j.queue, j.queue[n:])
		clear(j.queue[left:])
		j.queue = j.queue[:left]
	}
	batch = append(batch, j.late...)
	j.late = nil
	if len(batch) > 0 && j.stats.Oldest.IsZero() {
		j.stats.Oldest = batch[0].flow.End
	}
	return batch, cursor
}

// deliver writes batch to the store and tries again until it worked, with what has ended meanwhile. It returns what was
// written and where that ends; nil: ctx was done first.
func (j *Journal) deliver(ctx context.Context, batch []item, cursor place) ([]item, place) {
	backoff := 100 * time.Millisecond
	for try := 1; ; try++ {
		err := j.write(ctx, flowsOf(batch))
		if err == nil {
			return batch, cursor
		}
		if ctx.Err() != nil {
			return nil, cursor
		}
		j.failed(err)
		if try%triesTogether == 0 && j.deliverApart(ctx, batch) {
			return batch, cursor
		}
		if !j.pause(ctx, backoff) {
			return nil, cursor
		}
		backoff = min(2*backoff, j.o.MaxBackoff)
		if longer, end, err := j.next(batch, cursor); err == nil {
			batch, cursor = longer, end
		}
	}
}

func flowsOf(batch []item) []*exitgate.Flow {
	flows := make([]*exitgate.Flow, len(batch))
	for i := range batch {
		flows[i] = batch[i].flow
	}
	return flows
}

// write is one write to the store, with a deadline, in which a panic is an error.
func (j *Journal) write(ctx context.Context, flows []*exitgate.Flow) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the store panicked: %v", r)
			j.o.Log.Error("journal: the store panicked", "panic", r, "stack", string(debug.Stack()))
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, j.o.WriteTimeout)
	defer cancel()
	return j.store.WriteFlows(ctx, flows)
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

// acknowledge notes that batch is stored, moves the cursor and deletes what nobody needs.
func (j *Journal) acknowledge(batch []item, cursor place) {
	j.mu.Lock()
	for _, it := range batch {
		if it.begin != nil {
			it.begin.kept--
		}
	}
	j.stats.Waiting -= int64(len(batch))
	j.stats.Stored += int64(len(batch))
	j.stats.LastFlush = time.Now().UTC()
	if len(batch) > 0 && j.stats.LastError != "" {
		j.o.Log.Info("journal: the store works again", "failed_since", j.stats.FailingSince)
		j.stats.LastError, j.stats.FailingSince = "", time.Time{}
	}
	j.stats.Oldest = time.Time{}
	moved := j.cursor != cursor
	j.cursor = cursor
	close(j.drained)
	j.drained = make(chan struct{})
	j.mu.Unlock()
	if moved {
		if err := j.writeCursor(cursor); err != nil {
			j.o.Log.Warn("journal: write the cursor; after a crash flows will be stored again", "err", err)
		}
		j.carryForward()
		j.mu.Lock()
		j.trim()
		j.mu.Unlock()
	}
}

// isBehind reports whether something waits on the disk only. Called with mu held.
func (j *Journal) isBehind() bool { return j.overflow || j.gap != (place{}) }

// tail is where the next frame of the active segment will be. Called with mu held.
func (j *Journal) tail() place { return place{j.active().n, j.active().size} }

// readBehind fills batch up from the segments, from cursor to the end of the gap. Meanwhile what ends is queued again,
// behind the gap.
func (j *Journal) readBehind(batch []item, cursor place) ([]item, place, error) {
	for len(batch) < j.o.Batch {
		s, end, err := j.rest(cursor)
		if s == nil {
			return batch, cursor, err
		}
		if batch, cursor.Offset, err = j.readEnds(s, cursor.Offset, end, batch); err != nil {
			return batch, cursor, err
		}
		if cursor.Offset >= end && s.n < j.gap.Segment { // only this goroutine changes a gap
			cursor = place{s.n + 1, 0}
		}
	}
	return batch, cursor, nil
}

// rest returns the part of the gap that lies in the cursor's segment; nil: the gap is closed.
func (j *Journal) rest(cursor place) (*segment, int64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.gap == (place{}) && j.overflow {
		j.gap, j.overflow = j.tail(), false
	}
	if !cursor.before(j.gap) {
		j.gap = place{}
		return nil, 0, nil
	}
	s := j.segment(cursor.Segment)
	switch {
	case s == nil:
		return nil, 0, fmt.Errorf("segment %d is gone", cursor.Segment)
	case s.n == j.gap.Segment:
		return s, j.gap.Offset, nil
	}
	return s, s.size, nil
}

// readEnds appends the flows that end in s between two offsets to batch, until that is full.
func (j *Journal) readEnds(s *segment, from, to int64, batch []item) ([]item, int64, error) {
	r := reader{r: s.f, segment: s.n, off: from, end: to}
	for len(batch) < j.o.Batch {
		fr, _, err := r.next()
		if err == io.EOF {
			return batch, to, nil
		}
		if err != nil {
			return batch, from, err
		}
		if fr.kind == kindBegin {
			continue
		}
		it, err := j.restore(fr)
		if err != nil {
			// The bytes are as they were written, so this is an error of this program, and trying again is no use.
			j.o.Log.Error("journal: an ended flow cannot be decoded; it is kept in quarantine", "flow", fr.id, "err", err)
			if err := j.quarantine(fr.id.String()+".flow", fr.payload); err != nil {
				return batch, from, err
			}
			j.dropped(it)
			continue
		}
		batch = append(batch, it)
	}
	return batch, r.off, nil
}

// dropped notes that an item will never be stored.
func (j *Journal) dropped(it item) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if it.begin != nil {
		it.begin.kept--
	}
	j.stats.Quarantined++
	j.stats.Waiting--
}

// restore makes the item of an End frame, with the subject of its Begin frame where that is where it is.
func (j *Journal) restore(fr frame) (item, error) {
	f := new(exitgate.Flow)
	it := item{flow: f, next: place{fr.at.Segment, fr.at.Offset + fr.size}}
	var size int64 // of its segment
	if fr.begin.Segment != 0 {
		j.mu.Lock()
		if it.begin = j.segment(fr.begin.Segment); it.begin != nil {
			size = it.begin.size
		}
		j.mu.Unlock()
	}
	if fr.kind == kindEnd {
		subject, err := subjectOf(fr, it.begin, size)
		if err != nil { // damaged, which was reported when the journal was opened
			j.o.Log.Error("journal: a flow is stored without host, destination and request, which stood in its begin", "flow", fr.id, "err", err)
		}
		f.Question = subject
	}
	return it, fr.decode(f)
}

// subjectOf reads the question of the Begin frame that end names, which lies in the first size bytes of s.
func subjectOf(end frame, s *segment, size int64) (exitgate.Question, error) {
	if s == nil {
		return exitgate.Question{}, errors.New("its begin frame is gone")
	}
	fr, err := readFrame(s, end.begin.Offset, size)
	if err == nil && fr.id != end.id {
		err = fmt.Errorf("there is the begin of flow %s", fr.id)
	}
	if err != nil {
		return exitgate.Question{}, err
	}
	return fr.subject()
}
