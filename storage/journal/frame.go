package journal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/exitgate/exitgate"
)

// A frame is a header of 68 bytes, little-endian, and a payload:
//
//	 0  magic
//	 4  kind (1 byte), three zero bytes
//	 8  length of the payload
//	12  CRC-32C of the payload
//	16  id of the flow (16 bytes)
//	32  when the flow began, or ended: nanoseconds since 1970
//	40  number of the segment that the frame was written to
//	48  End: segment of the Begin frame (0: there is none)
//	56  End: offset of the Begin frame
//	60  version of the payload, see codec.go
//	64  CRC-32C of the 64 bytes before
//
// The payload of a Begin is the flow and the subject of its question. That of an End is the flow and a byte that says
// what the subject is: that of the Begin frame, that with the address that follows, or the one that follows.
const (
	headerLen  = 68
	maxPayload = 64 << 20
)

// The magic holds bytes that JSON text never does, so that few payloads can look like a frame.
const magic = "\xffxg\x02"

type kind byte

const (
	kindBegin kind = 'B'
	kindEnd   kind = 'E'
)

// A frame is one frame as it was read; its size is that of the whole.
type frame struct {
	header
	version uint32
	at      place
	size    int64
	payload []byte
}

// A header is what a frame says before its payload, but for what guards it.
type header struct {
	kind    kind
	id      exitgate.ID
	time    int64
	segment uint64
	begin   place // of an End: where its Begin is
}

// A place is where a frame starts. Segments count from 1.
type place struct {
	Segment uint64 `json:"segment"`
	Offset  int64  `json:"offset"`
}

func (p place) before(q place) bool {
	return p.Segment < q.Segment || p.Segment == q.Segment && p.Offset < q.Offset
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) } // made once by the library

// seal writes the header of a frame into its first bytes.
func seal(b []byte, h header, payloadCRC uint32) {
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[4:], uint32(h.kind))
	binary.LittleEndian.PutUint32(b[8:], uint32(len(b)-headerLen))
	binary.LittleEndian.PutUint32(b[12:], payloadCRC)
	copy(b[16:], h.id[:])
	binary.LittleEndian.PutUint64(b[32:], uint64(h.time))
	binary.LittleEndian.PutUint64(b[40:], h.segment)
	binary.LittleEndian.PutUint64(b[48:], h.begin.Segment)
	binary.LittleEndian.PutUint32(b[56:], uint32(h.begin.Offset))
	binary.LittleEndian.PutUint32(b[60:], codecVersion)
	binary.LittleEndian.PutUint32(b[64:], crc32.Checksum(b[:64], castagnoli()))
}

// parseHeader reads a header; ok is false when it is not one.
func parseHeader(b []byte) (fr frame, payload int, crc uint32, ok bool) {
	if string(b[:4]) != magic || binary.LittleEndian.Uint32(b[64:]) != crc32.Checksum(b[:64], castagnoli()) {
		return fr, 0, 0, false
	}
	n := binary.LittleEndian.Uint32(b[8:])
	fr.kind = kind(b[4])
	copy(fr.id[:], b[16:])
	fr.time = int64(binary.LittleEndian.Uint64(b[32:]))
	fr.segment = binary.LittleEndian.Uint64(b[40:])
	fr.begin = place{binary.LittleEndian.Uint64(b[48:]), int64(binary.LittleEndian.Uint32(b[56:]))}
	fr.version = binary.LittleEndian.Uint32(b[60:])
	fr.size = headerLen + int64(n)
	return fr, int(n), binary.LittleEndian.Uint32(b[12:]), n <= maxPayload
}

// What the byte after the flow in an End says of the subject.
const (
	sameSubject byte = iota
	otherAddr        // the address that was dialled follows; all else is that of the Begin frame
	otherSubject
)

// decode returns the flow that fr holds. The subject of an End that has none is that of the frame that begin returns;
// an error of begin is returned beside the flow, which then has no subject.
func (fr *frame) decode(begin func() (frame, error)) (f *exitgate.Flow, subject, err error) {
	if fr.version != codecVersion {
		return nil, nil, fmt.Errorf("read flow %s of segment %d at %d: another version of this program wrote it (format %d, and not %d)",
			fr.id, fr.at.Segment, fr.at.Offset, fr.version, codecVersion)
	}
	f = new(exitgate.Flow)
	d := decoder{b: string(fr.payload)}
	d.flow(f)
	what := otherSubject
	if fr.kind == kindEnd {
		what = d.byte()
	}
	if what == otherSubject {
		d.subject(&f.Question)
	} else if subject = fr.subjectOf(&f.Question, begin); what == otherAddr {
		f.Question.Dest.Addr = d.addrPort()
	}
	if d.bad || d.left() > 0 {
		return nil, nil, fmt.Errorf("read flow %s of segment %d at %d: %w", fr.id, fr.at.Segment, fr.at.Offset, errCodec)
	}
	return f, subject, nil
}

// subjectOf reads the subject of the Begin frame of the End fr.
func (fr *frame) subjectOf(q *exitgate.Question, begin func() (frame, error)) error {
	b, err := begin()
	if err == nil && (b.kind != kindBegin || b.id != fr.id || b.version != codecVersion) {
		err = fmt.Errorf("there is no begin frame of it")
	}
	if err != nil {
		return err
	}
	var passed exitgate.Flow
	d := decoder{b: string(b.payload)}
	d.flow(&passed)
	d.subject(q)
	if d.bad || d.left() > 0 {
		return errCodec
	}
	return nil
}

// chunk is how many bytes a reader asks the file for at once.
const chunk = 1 << 20

// A reader reads the frames of one segment between two offsets.
type reader struct {
	r       io.ReaderAt
	segment uint64
	off     int64 // of the next frame
	end     int64
	buf     []byte // of the file from bufOff
	bufOff  int64
}

// A span is a range of bytes of a segment that is no frame of it.
type span struct {
	from, to int64
	stale    bool // there are frames of another segment in it
}

// next returns the next frame of the segment, whose payload is valid until the next call, or io.EOF. What it had to skip before
// the frame, or before the end, is bad.
func (r *reader) next() (fr frame, bad span, err error) {
	bad = span{from: r.off, to: r.off}
	for {
		bad.to = r.off
		head, err := r.peek(headerLen)
		if err != nil {
			return fr, bad, err
		}
		if len(head) < headerLen {
			r.off = r.end
			bad.to = r.end
			return fr, bad, io.EOF
		}
		fr, n, crc, ok := parseHeader(head)
		bad.stale = bad.stale || ok && fr.segment != r.segment
		if !ok || fr.segment != r.segment || r.off+fr.size > r.end {
			if err := r.resync(); err != nil {
				return fr, bad, err
			}
			continue
		}
		whole, err := r.peek(headerLen + n)
		if err != nil {
			return fr, bad, err
		}
		fr.at = place{r.segment, r.off}
		r.off += fr.size
		if len(whole) == headerLen+n && crc32.Checksum(whole[headerLen:], castagnoli()) == crc {
			fr.payload = whole[headerLen:]
			return fr, bad, nil
		}
	}
}

// again returns the frame at off if all of it is still in memory.
func (r *reader) again(off int64) (frame, bool) {
	b := r.buf
	if off < r.bufOff || off-r.bufOff > int64(len(b)) {
		return frame{}, false
	}
	if b = b[off-r.bufOff:]; len(b) < headerLen {
		return frame{}, false
	}
	fr, n, crc, ok := parseHeader(b)
	if !ok || fr.segment != r.segment || len(b) < headerLen+n {
		return frame{}, false
	}
	fr.at, fr.payload = place{r.segment, off}, b[headerLen:headerLen+n]
	return fr, crc32.Checksum(fr.payload, castagnoli()) == crc
}

// peek returns n bytes from r.off, fewer only at the end.
func (r *reader) peek(n int) ([]byte, error) {
	n = int(min(int64(n), r.end-r.off))
	if from := r.off - r.bufOff; r.buf != nil && from >= 0 && from+int64(n) <= int64(len(r.buf)) {
		return r.buf[from : from+int64(n)], nil
	}
	want := int(min(int64(max(n, chunk)), r.end-r.off))
	if cap(r.buf) < want {
		r.buf = make([]byte, want)
	}
	r.buf, r.bufOff = r.buf[:want], r.off
	got, err := r.r.ReadAt(r.buf, r.off)
	if r.buf = r.buf[:got]; got < want && err != io.EOF {
		return nil, err
	}
	return r.buf[:min(n, got)], nil
}

// resync moves to the next magic after the first byte, or to the end.
func (r *reader) resync() error {
	for r.off++; r.off+headerLen <= r.end; {
		b, err := r.peek(int(min(chunk/2, r.end-r.off)))
		if err != nil {
			return err
		}
		if i := bytes.Index(b, []byte(magic)); i >= 0 {
			r.off += int64(i)
			return nil
		}
		r.off += int64(max(len(b)-len(magic)+1, 1))
	}
	return nil
}
