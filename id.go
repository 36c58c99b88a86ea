package exitgate

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// An ID names a flow or a connection: 48 bits of Unix milliseconds, then 80 random bits, so that IDs sort by
// time, any gateway can make them without asking another, and an insert that is repeated finds its first
// self. It prints as 26 characters of Crockford's base 32 in lower case (the layout of the ULID
// specification), which survives a terminal, a URL and a spoken telephone call. The zero ID names nothing.
type ID [16]byte

const idDigits = "0123456789abcdefghjkmnpqrstvwxyz"

// NewID returns a fresh ID for something that began at t.
func NewID(t time.Time) ID {
	var id ID
	rand.Read(id[6:]) // never fails: crypto/rand.Read aborts the process instead
	ms := uint64(t.UnixMilli())
	id[0], id[1] = byte(ms>>40), byte(ms>>32)
	binary.BigEndian.PutUint32(id[2:6], uint32(ms))
	return id
}

// Time returns when the thing that id names began, to the millisecond, in UTC.
func (id ID) Time() time.Time {
	ms := uint64(id[0])<<40 | uint64(id[1])<<32 | uint64(binary.BigEndian.Uint32(id[2:6]))
	return time.UnixMilli(int64(ms)).UTC()
}

// IsZero reports whether id names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// String returns the 26 characters of id.
func (id ID) String() string {
	var b [26]byte
	id.encode(&b)
	return string(b[:])
}

func (id ID) encode(b *[26]byte) {
	hi, lo := binary.BigEndian.Uint64(id[:8]), binary.BigEndian.Uint64(id[8:])
	for i := 25; i >= 0; i-- {
		b[i] = idDigits[lo&31]
		lo = lo>>5 | hi<<59
		hi >>= 5
	}
}

// AppendText implements [encoding.TextAppender].
func (id ID) AppendText(to []byte) ([]byte, error) {
	var b [26]byte
	id.encode(&b)
	return append(to, b[:]...), nil
}

// MarshalText implements [encoding.TextMarshaler].
func (id ID) MarshalText() ([]byte, error) { return id.AppendText(nil) }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (id *ID) UnmarshalText(b []byte) error {
	v, err := ParseID(string(b))
	if err == nil {
		*id = v
	}
	return err
}

var errID = errors.New("an id has 26 characters of 0-9 a-z without i, l, o and u, and starts with 0 to 7")

// ParseID reads what String printed; upper case is accepted.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 26 || s[0] > '7' {
		return id, fmt.Errorf("read id %.40q: %w", s, errID)
	}
	var hi, lo uint64
	for i := 0; i < 26; i++ {
		d := idDigit(s[i])
		if d < 0 {
			return id, fmt.Errorf("read id %.40q: %w", s, errID)
		}
		hi = hi<<5 | lo>>59
		lo = lo<<5 | uint64(d)
	}
	binary.BigEndian.PutUint64(id[:8], hi)
	binary.BigEndian.PutUint64(id[8:], lo)
	return id, nil
}

func idDigit(c byte) int {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	for i := range len(idDigits) {
		if idDigits[i] == c {
			return i
		}
	}
	return -1
}
