package postgres

import (
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"github.com/exitgate/exitgate/storage"
)

// What COPY ... (FORMAT binary) reads: a header, rows, and -1. A row is its number of fields, and then the fields as
// [storage.Row] has them ("COPY", "File Formats", in the manual of Postgres).
const (
	copyHeader  = "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00"
	copyTrailer = "\xff\xff"
)

var errStopped = errors.New("the copy was given up")

// A copySource is the stream of a batch, put together while it is read. The driver may still read when it has
// returned an error, so stop must be called before the rows are given back.
type copySource struct {
	mu      sync.Mutex
	rows    []storage.Row // not begun yet
	part    []byte        // what is sent now, before the next row
	last    bool          // that is the trailer
	head    [2]byte       // the number of fields, before each row
	headed  bool          // it was sent for rows[0]
	stopped bool
}

func newCopySource(columns int, rows []storage.Row) *copySource {
	c := &copySource{rows: rows, part: []byte(copyHeader)}
	binary.BigEndian.PutUint16(c.head[:], uint16(columns+2)) // the record and the question
	return c
}

func (c *copySource) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
}

// Read implements io.Reader. It fills p, so that as little as possible is said in each message to the server.
func (c *copySource) Read(p []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return 0, errStopped
	}
	for n < len(p) {
		if len(c.part) == 0 && !c.next() {
			break
		}
		k := copy(p[n:], c.part)
		c.part = c.part[k:]
		n += k
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// next puts the next row into part, or the trailer; it reports whether there was one. The number of the fields goes
// before the first of them, in a place of its own.
func (c *copySource) next() bool {
	switch {
	case c.last:
		return false
	case len(c.rows) == 0:
		c.part, c.last = []byte(copyTrailer), true
	case !c.headed:
		c.part, c.headed = c.head[:], true
	default:
		c.part, c.rows, c.headed = c.rows[0].Fields, c.rows[1:], false
	}
	return true
}
