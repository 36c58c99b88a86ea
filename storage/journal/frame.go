package journal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"encoding/json"

	"github.com/exitgate/exitgate"
)

// A frame is a header of 52 bytes, little-endian, and a payload:
//
//	 0  magic
//	 4  kind (1 byte), three zero bytes
//	 8  length of the payload
//	12  CRC-32C of the payload
//	16  id of the flow (16 bytes)
//	32  End: segment of the Begin frame (0: there is none)
//	40  End: offset of the Begin frame
//	48  CRC-32C of the 48 bytes before
//
// The payload is the flow's record, the asked part of its question and, but for kindEnd, the subject of its
// question: three JSON objects, one after the other.
const (
	headerLen  = 52
	maxPayload = 64 << 20
)

// The magic holds bytes that JSON text never does, so that no payload can look like a frame.
const magic = "\xffxg\x01"

type kind byte

const (
	kindBegin   kind = 'B'
	kindEnd     kind = 'e' // the subject is that of the Begin frame, but for an address of dest beside what was asked
	kindEndFull kind = 'E'
)

type frame struct {
	kind    kind
	id      exitgate.ID
	begin   place // of an End: where its Begin is
	at      place // where this frame is
	size    int64 // of the whole frame
	payload []byte
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
func seal(b []byte, k kind, id exitgate.ID, begin place, payloadCRC uint32) {
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[4:], uint32(k))
	binary.LittleEndian.PutUint32(b[8:], uint32(len(b)-headerLen))
	binary.LittleEndian.PutUint32(b[12:], payloadCRC)
	copy(b[16:], id[:])
	binary.LittleEndian.PutUint64(b[32:], begin.Segment)
	binary.LittleEndian.PutUint64(b[40:], uint64(begin.Offset))
	binary.LittleEndian.PutUint32(b[48:], crc32.Checksum(b[:48], castagnoli()))
}

// parseHeader reads a header; ok is false when it is not one.
func parseHeader(b []byte) (fr frame, payload int, crc uint32, ok bool) {
	if string(b[:4]) != magic || binary.LittleEndian.Uint32(b[48:]) != crc32.Checksum(b[:48], castagnoli()) {
		return fr, 0, 0, false
	}
	n := binary.LittleEndian.Uint32(b[8:])
	fr.kind = kind(b[4])
	copy(fr.id[:], b[16:])
	fr.begin = place{binary.LittleEndian.Uint64(b[32:]), int64(binary.LittleEndian.Uint64(b[40:]))}
	fr.size = headerLen + int64(n)
	return fr, int(n), binary.LittleEndian.Uint32(b[12:]), n <= maxPayload
}

// decode reads the payload of fr into f; what the payload does not hold stays as it is in f.
func (fr *frame) decode(f *exitgate.Flow) error {
	d := json.NewDecoder(bytes.NewReader(fr.payload))
	parts := []any{f, &f.Question, &f.Question}
	if fr.kind == kindEnd {
		parts = parts[:2]
	}
	for _, part := range parts {
		if err := d.Decode(part); err != nil {
			return fmt.Errorf("read flow %s of segment %d at %d: %w", fr.id, fr.at.Segment, fr.at.Offset, err)
		}
	}
	return nil
}

// subject reads the third part of the payload of fr, and passes over the others: the end has its own.
func (fr *frame) subject() (q exitgate.Question, err error) {
	var passed json.RawMessage
	d := json.NewDecoder(bytes.NewReader(fr.payload))
	for _, part := range []any{&passed, &passed, &q} {
		if err := d.Decode(part); err != nil {
			return q, fmt.Errorf("read the subject of flow %s of segment %d at %d: %w", fr.id, fr.at.Segment, fr.at.Offset, err)
		}
	}
	return q, nil
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

// A span is a range of bytes of a segment that is no frame.
type span struct{ from, to int64 }

// next returns the next frame, whose payload is valid until the next call, or io.EOF. What it had to skip before
// the frame, or before the end, is bad.
func (r *reader) next() (fr frame, bad span, err error) {
	bad = span{r.off, r.off}
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
		if !ok || r.off+fr.size > r.end {
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
