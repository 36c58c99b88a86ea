package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage"
)

// Open opens the journal in dir, which it makes if it is not there, and starts to drain it into store. Before it returns,
// flows that an earlier process had begun and not ended are ended as interrupted. ctx bounds the opening only.
func Open(ctx context.Context, dir string, store storage.FlowWriter, o Options) (*Journal, error) {
	j := &Journal{
		dir: dir, store: store, o: o.withDefaults(), rows: storage.NewRowEncoder(),
		open: make(map[exitgate.ID]begun), drained: make(chan struct{}),
		wake: make(chan struct{}, 1), full: make(chan struct{}, 1), tick: make(chan struct{}, 1),
		done: make(chan struct{}),
	}
	j.syncing.L = &j.mu
	j.pool.New = func() any { b := make([]byte, headerLen, 8<<10); return &b }
	if err := j.recover(ctx); err != nil {
		return nil, fmt.Errorf("open the journal %s: %w", dir, errors.Join(err, j.abandon()))
	}
	j.start()
	return j, nil
}

func (j *Journal) start() {
	ctx, stop := context.WithCancel(context.Background())
	j.stop = stop
	j.workers.Add(2)
	go j.drain(ctx)
	go j.syncer(ctx)
	go j.awaitWorkers()
}

func (j *Journal) awaitWorkers() {
	j.workers.Wait()
	close(j.done)
}

// abandon closes the files of an opening that failed.
func (j *Journal) abandon() error {
	var errs []error
	for _, s := range j.segs {
		errs = append(errs, s.f.Close())
	}
	for _, s := range j.spares {
		errs = append(errs, s.f.Close())
	}
	if j.lock != nil {
		errs = append(errs, j.lock.Close())
	}
	return errors.Join(errs...)
}

// recover reads what an earlier process left, and begins a new segment.
func (j *Journal) recover(ctx context.Context) error {
	if err := os.MkdirAll(j.dir, 0o700); err != nil {
		return err
	}
	if err := j.takeLock(); err != nil {
		return err
	}
	if err := j.adoptSpares(); err != nil {
		return err
	}
	numbers, err := j.list()
	if err != nil {
		return err
	}
	if j.cursor = j.readCursor(); len(numbers) == 0 || j.cursor.Segment < numbers[0] || j.cursor.Segment > numbers[len(numbers)-1] {
		j.cursor = place{} // of other files, or lost: store everything again
	}
	last := time.Time{} // when the earlier process last wrote
	for _, n := range numbers {
		t, err := j.load(ctx, n)
		if err != nil {
			return err
		}
		if t.After(last) {
			last = t
		}
	}
	if err := j.rotate(); err != nil {
		return err
	}
	if j.cursor.Segment < j.segs[0].n {
		j.cursor = place{j.segs[0].n, 0}
	}
	if err := j.interrupt(last); err != nil {
		return err
	}
	if j.stats.Waiting == 0 {
		j.cursor = j.tail()
		j.trim()
	}
	return nil
}

func (j *Journal) takeLock() error {
	f, err := os.OpenFile(filepath.Join(j.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := tryLock(f); err != nil {
		f.Close()
		return fmt.Errorf("another process uses it: %w", err)
	}
	j.lock = f
	return nil
}

// list returns the numbers of the segments, in order, without a gap.
func (j *Journal) list() ([]uint64, error) {
	names, err := filepath.Glob(filepath.Join(escapeGlob(j.dir), "*.journal"))
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, name := range names {
		n, err := strconv.ParseUint(filepath.Base(name)[:len(filepath.Base(name))-len(".journal")], 16, 64)
		if err != nil || n == 0 || segmentName(j.dir, n) != name {
			return nil, fmt.Errorf("the file %s is not a segment: move it away", name)
		}
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	for i, n := range numbers {
		if n != numbers[0]+uint64(i) {
			return nil, fmt.Errorf("the segment %s is missing: put it back, or an empty file in its place", segmentName(j.dir, numbers[0]+uint64(i)))
		}
	}
	return numbers, nil
}

func escapeGlob(dir string) string {
	var b []byte
	for i := range len(dir) {
		if c := dir[i]; c == '*' || c == '?' || c == '[' || c == '\\' {
			b = append(b, '\\')
		}
		b = append(b, dir[i])
	}
	return string(b)
}

// load opens a segment of an earlier process and counts what is in it. It returns when it was last written.
func (j *Journal) load(ctx context.Context, n uint64) (time.Time, error) {
	name := segmentName(j.dir, n)
	info, err := os.Stat(name)
	if err != nil {
		return time.Time{}, err
	}
	f, err := j.o.openFile(name, false)
	if err != nil {
		return time.Time{}, err
	}
	s := &segment{n: n, name: name, f: f, sealed: true}
	j.segs = append(j.segs, s)
	r := reader{r: f, segment: n, end: info.Size()}
	for {
		if err := ctx.Err(); err != nil {
			return time.Time{}, err
		}
		fr, bad, err := r.next()
		if err != nil && err != io.EOF {
			return time.Time{}, fmt.Errorf("read %s: %w", name, err)
		}
		if bad.from < bad.to {
			if err := j.damaged(s, bad, err == io.EOF); err != nil {
				return time.Time{}, err
			}
		}
		if err == io.EOF {
			j.bytes += s.size
			return info.ModTime().UTC(), nil
		}
		s.size = fr.at.Offset + fr.size
		j.recall(s, fr)
	}
}

// recall counts one frame of an earlier process.
func (j *Journal) recall(s *segment, fr frame) {
	if fr.kind == kindBegin {
		j.opened(fr.id, begun{seg: s, off: fr.at.Offset})
		return
	}
	j.forget(fr.id)
	if fr.at.before(j.cursor) {
		return
	}
	if j.stats.Waiting++; j.stats.Waiting == 1 {
		j.stats.Oldest = time.Unix(0, fr.time).UTC()
	}
	if b := j.segment(fr.begin.Segment); b != nil {
		b.kept++
	}
}

// damaged deals with bytes that are no frame: a torn tail is cut off; what lies between frames is kept aside.
func (j *Journal) damaged(s *segment, bad span, tail bool) error {
	if tail {
		unwritten, err := isUnwritten(s.f, bad)
		if err != nil {
			return fmt.Errorf("read %s at %d: %w", s.name, bad.from, err)
		}
		if unwritten {
			return s.f.Truncate(bad.from)
		}
		j.stats.TornBytes += bad.to - bad.from
		j.o.Log.Warn("journal: cut off a torn tail: the write that it was part of had not returned",
			"file", s.name, "offset", bad.from, "bytes", bad.to-bad.from)
		return s.f.Truncate(bad.from)
	}
	j.stats.DamagedBytes += bad.to - bad.from
	name := fmt.Sprintf("%016x-%d.damaged", s.n, bad.from)
	j.o.Log.Error("journal: a part of a segment cannot be read; its flows may be lost, its neighbours are not",
		"file", s.name, "offset", bad.from, "bytes", bad.to-bad.from, "kept", filepath.Join("quarantine", name))
	b := make([]byte, bad.to-bad.from)
	if _, err := s.f.ReadAt(b, bad.from); err != nil {
		return fmt.Errorf("read %s at %d: %w", s.name, bad.from, err)
	}
	return j.quarantine(name, b)
}

// isUnwritten reports whether the end of a segment is what the file held before: room that was set aside, or frames of
// the segment that it was for.
func isUnwritten(f file, end span) (bool, error) {
	if end.stale {
		return true, nil
	}
	b := make([]byte, 64<<10)
	for at := end.from; at < end.to; at += int64(len(b)) {
		b = b[:min(int64(len(b)), end.to-at)]
		if _, err := f.ReadAt(b, at); err != nil {
			return false, err
		}
		if len(bytes.Trim(b, "\x00")) > 0 {
			return false, nil
		}
	}
	return true, nil
}

func (j *Journal) quarantine(name string, b []byte) error {
	dir := filepath.Join(j.dir, "quarantine")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), b, 0o600)
}

// interrupt ends what an earlier process left open, as of when it last wrote.
func (j *Journal) interrupt(last time.Time) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for id, b := range j.open {
		f, err := j.began(b)
		if err != nil {
			if err := j.undecodable(id, b, err); err != nil {
				return err
			}
			continue
		}
		f.Interrupted = true
		if f.End = last; f.End.Before(f.Begin) {
			f.End = f.Begin
		}
		frame := appendFlow(make([]byte, headerLen), f)
		frame = appendSubject(append(frame, otherSubject), &f.Question)
		h := header{kind: kindEnd, id: id, time: f.End.UnixNano(), begin: place{b.seg.n, b.off}}
		if _, _, err := j.append(frame, h, crc32.Checksum(frame[headerLen:], castagnoli())); err != nil {
			return err
		}
		j.forget(id)
		b.seg.kept++
		j.stats.Waiting++
		j.stats.Interrupted++
	}
	return nil
}

// undecodable puts aside a begin whose bytes are as they were written and which is no flow all the same: a fault of the
// program that wrote it, for which the gateway should not stay down. Called with mu held.
func (j *Journal) undecodable(id exitgate.ID, b begun, cause error) error {
	fr, err := readFrame(b.seg, b.off, b.seg.size)
	if err != nil {
		return fmt.Errorf("end what was left open: %w", err)
	}
	j.o.Log.Error("journal: a flow that was left open cannot be decoded; it is kept in quarantine", "flow", id, "err", cause)
	j.forget(id)
	j.stats.Quarantined++
	return j.quarantine(id.String()+".flow", fr.payload)
}

// began returns an open flow as it began. Called with mu held.
func (j *Journal) began(b begun) (*exitgate.Flow, error) {
	fr, err := readFrame(b.seg, b.off, b.seg.size)
	if err != nil {
		return nil, err
	}
	f, _, err := fr.decode(nil)
	return f, err
}

func (j *Journal) readCursor() (p place) {
	b, err := os.ReadFile(filepath.Join(j.dir, "cursor"))
	if err == nil && json.Unmarshal(b, &p) == nil && p.Offset >= 0 {
		return p
	}
	return place{}
}

// writeCursor replaces the cursor file. It is not synced: an older cursor only means that flows are stored again.
func (j *Journal) writeCursor(p place) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	name := filepath.Join(j.dir, "cursor")
	if err := os.WriteFile(name+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}
