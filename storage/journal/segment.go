package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// A segment is one file of frames. Everything but n and f is guarded by Journal.mu.
type segment struct {
	n    uint64
	name string
	f    file
	size int64 // of whole frames; what lies beyond is garbage of a failed write
	// open counts the flows that began here and have not ended; kept those that began here, have ended and are not
	// stored yet.
	open, kept int
	dirty      bool // written since the last sync
	syncing    bool // its file must stay open
	sealed     bool // not written to any more
	failed     bool // a write or a sync failed
}

func segmentName(dir string, n uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016x.journal", n))
}

// active is the segment that is written to. Called with mu held.
func (j *Journal) active() *segment { return j.segs[len(j.segs)-1] }

// segment returns the segment with number n, or nil. Called with mu held.
func (j *Journal) segment(n uint64) *segment {
	if n < j.segs[0].n || n > j.active().n {
		return nil
	}
	return j.segs[n-j.segs[0].n] // numbers have no gaps: only the oldest is ever deleted
}

// rotate begins a new segment, in a file that has been stored and is not needed any more if there is one: what such
// a file holds beyond the new frames is told by the number of the segment that it was written for. Its pages are in
// memory already, which halves the cost of a write. Called with mu held.
func (j *Journal) rotate() error {
	n := uint64(1)
	if len(j.segs) > 0 {
		n = j.active().n + 1
	}
	name := segmentName(j.dir, n)
	f, err := j.respare(name)
	if f == nil && err == nil {
		f, err = j.o.openFile(name, true)
	}
	if err != nil {
		return err
	}
	if err := f.Prepare(j.o.SegmentBytes); err != nil {
		return errors.Join(err, f.Close(), os.Remove(name))
	}
	if len(j.segs) > 0 {
		j.active().sealed = true
	}
	j.segs = append(j.segs, &segment{n: n, name: name, f: f})
	j.newNames = true
	return nil
}

// maxSpares is how many files are kept for new segments: an eighth of what the journal may hold.
func (o *Options) maxSpares() int { return max(2, int(o.MaxBytes/8/o.SegmentBytes)) }

// A spare is a file whose segment has been stored.
type spare struct {
	f    file
	name string
}

// respare gives a spare file the name of a new segment; nil: there is none. Called with mu held.
func (j *Journal) respare(name string) (file, error) {
	if len(j.spares) == 0 {
		return nil, nil
	}
	s := j.spares[0]
	j.spares = j.spares[1:]
	if err := os.Rename(s.name, name); err != nil {
		s.f.Close()
		return nil, err
	}
	return s.f, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// append writes a frame, the payload of which has that checksum, and returns where it is. After an error nothing of it
// will be read back, and the next call tries again. Called with mu held.
func (j *Journal) append(b []byte, h header, crc uint32) (*segment, int64, error) {
	s := j.active()
	if s.sealed || s.size > 0 && s.size+int64(len(b)) > j.o.SegmentBytes {
		if err := j.rotate(); err != nil {
			return nil, 0, fmt.Errorf("begin a journal segment in %s: %w", j.dir, err)
		}
		s = j.active()
	}
	h.segment = s.n
	seal(b, h, crc)
	if _, err := s.f.WriteAt(b, s.size); err != nil {
		// A full disk gets room again and the same bytes are written over; of any other error it is not known what
		// it did to this file, so it is left alone.
		s.failed = true
		if !errors.Is(err, syscall.ENOSPC) && s.size > 0 {
			s.sealed = true
		}
		s.f.Truncate(s.size) // its error adds nothing: a torn frame is not read back
		return nil, 0, fmt.Errorf("write to the journal in %s: %w", j.dir, err)
	}
	off := s.size
	s.size += int64(len(b))
	s.dirty = true
	j.bytes += int64(len(b))
	j.written += int64(len(b))
	return s, off, nil
}

// trim deletes the segments, oldest first, that nobody needs any more. Called with mu held.
func (j *Journal) trim() {
	for len(j.segs) > 1 {
		s := j.segs[0]
		if s.open > 0 || s.kept > 0 || s.syncing || s.n >= j.cursor.Segment {
			return
		}
		if err := j.discard(s); err != nil {
			j.o.Log.Error("journal: delete a segment that has been stored", "file", s.name, "err", err)
		}
		j.bytes -= s.size
		j.segs = j.segs[1:]
	}
}

// discard keeps the file of a segment as a spare, or deletes it. A file that failed once is not trusted again. Called
// with mu held.
func (j *Journal) discard(s *segment) error {
	if len(j.spares) < j.o.maxSpares() && !s.failed && s.size > j.o.SegmentBytes/2 && s.size <= j.o.SegmentBytes {
		name := strings.TrimSuffix(s.name, ".journal") + spareSuffix
		if err := os.Rename(s.name, name); err == nil {
			j.spares = append(j.spares, spare{s.f, name})
			return nil
		}
	}
	return errors.Join(s.f.Close(), os.Remove(s.name))
}

const spareSuffix = ".spare"

// adoptSpares takes over the spare files that an earlier process left, and deletes those that are too many.
func (j *Journal) adoptSpares() error {
	names, err := filepath.Glob(filepath.Join(escapeGlob(j.dir), "*"+spareSuffix))
	if err != nil {
		return err
	}
	for _, name := range names {
		if len(j.spares) == j.o.maxSpares() {
			if err := os.Remove(name); err != nil {
				return err
			}
			continue
		}
		f, err := j.o.openFile(name, false)
		if err != nil {
			return err
		}
		j.spares = append(j.spares, spare{f, name})
	}
	return nil
}

// readFrame returns the frame at p of segment s, with a payload of its own.
func readFrame(s *segment, off, end int64) (frame, error) {
	r := reader{r: s.f, segment: s.n, off: off, end: end, buf: make([]byte, 0, 8<<10)}
	head, err := r.peekExactly(headerLen)
	if err != nil {
		return frame{}, err
	}
	_, n, _, ok := parseHeader(head)
	if !ok {
		return frame{}, fmt.Errorf("segment %d has no frame at %d", s.n, off)
	}
	if _, err = r.peekExactly(headerLen + n); err != nil {
		return frame{}, err
	}
	fr, bad, err := r.next()
	if err == nil && bad.to > bad.from {
		err = fmt.Errorf("the frame of segment %d at %d is damaged", s.n, off)
	}
	return fr, err
}

// peekExactly reads just n bytes at r.off, not a chunk: for one frame.
func (r *reader) peekExactly(n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := r.r.ReadAt(b, r.off); err != nil {
		return nil, fmt.Errorf("read segment %d at %d: %w", r.segment, r.off, err)
	}
	r.buf, r.bufOff = b, r.off
	return b, nil
}
