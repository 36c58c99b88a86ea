package postgres

import (
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage"
)

// What COPY ... (FORMAT binary) reads: a header, rows, and -1. A row is its number of fields, and each field its
// length, or -1 for null, before its bytes; all integers are big-endian ("COPY", "File Formats", in the manual of
// Postgres). Making it by hand costs a fraction of what handing sixty Go values a row to the driver does.
const (
	copyHeader  = "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00"
	copyTrailer = "\xff\xff"
	null        = -1
)

// chunk is how much is encoded before it is sent, so that a batch is never in memory twice.
const chunk = 64 << 10

var errStopped = errors.New("the copy was given up")

// A copySource is the stream of a batch, made while it is read. The driver may still read when it has returned an error, so
// stop must be called before the flows are given back.
type copySource struct {
	mu      sync.Mutex
	columns []storage.Column
	flows   []*exitgate.Flow // not encoded yet; nil: the trailer is encoded too
	buf     []byte
	sent    int // of buf
	stopped bool
}

func newCopySource(columns []storage.Column, flows []*exitgate.Flow) *copySource {
	return &copySource{columns: columns, flows: flows, buf: append(make([]byte, 0, chunk+chunk/4), copyHeader...)}
}

func (c *copySource) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
}

func (c *copySource) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return 0, errStopped
	}
	if c.sent == len(c.buf) {
		c.buf, c.sent = c.buf[:0], 0
	}
	for c.flows != nil && len(c.buf) < chunk {
		c.encode()
	}
	n := copy(p, c.buf[c.sent:])
	c.sent += n
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// encode appends the next row, or the trailer.
func (c *copySource) encode() {
	if len(c.flows) == 0 {
		c.buf = append(c.buf, copyTrailer...)
		c.flows = nil
		return
	}
	c.buf = appendRow(c.buf, c.columns, c.flows[0])
	c.flows = c.flows[1:]
}

func appendRow(b []byte, columns []storage.Column, f *exitgate.Flow) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(columns)+2))
	for i := range columns {
		b = appendColumn(b, &columns[i], f)
	}
	b, at := open32(b)
	b = close32(storage.AppendRecord(b, f), at)
	b, at = open32(b)
	return close32(storage.AppendQuestion(b, &f.Question), at)
}

func appendColumn(b []byte, c *storage.Column, f *exitgate.Flow) []byte {
	switch c.Kind {
	case storage.IntColumn:
		return binary.BigEndian.AppendUint64(appendLength(b, 8), uint64(c.Int(f)))
	case storage.BoolColumn:
		b = append(appendLength(b, 1), 0)
		if c.Bool(f) {
			b[len(b)-1] = 1
		}
		return b
	case storage.TimeColumn:
		return appendTime(b, c.Time(f), c.Name == "end")
	case storage.AddrColumn:
		return appendAddr(b, c.Addr(f))
	}
	b, at := open32(b)
	return close32(c.AppendText(b, f), at)
}

// epoch is 2000-01-01 UTC in microseconds since 1970: from there a timestamptz counts.
const epoch = 946_684_800_000_000

func appendTime(b []byte, t time.Time, nullable bool) []byte {
	if nullable && t.IsZero() {
		return appendLength(b, null)
	}
	return binary.BigEndian.AppendUint64(appendLength(b, 8), uint64(t.UnixMicro()-epoch))
}

// appendAddr appends an inet: its family, the length of its prefix, 0, the number of its bytes, and these.
func appendAddr(b []byte, a netip.Addr) []byte {
	const inet, inet6 = 2, 3
	switch {
	case !a.IsValid():
		return appendLength(b, null)
	case a.Is4():
		ip := a.As4()
		return append(append(appendLength(b, 8), inet, 32, 0, 4), ip[:]...)
	}
	ip := a.As16()
	return append(append(appendLength(b, 20), inet6, 128, 0, 16), ip[:]...)
}

func appendLength(b []byte, n int32) []byte { return binary.BigEndian.AppendUint32(b, uint32(n)) }

// open32 leaves room for a length, which close32 fills in when what follows has been appended.
func open32(b []byte) ([]byte, int) { return append(b, 0, 0, 0, 0), len(b) }

func close32(b []byte, at int) []byte {
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}
