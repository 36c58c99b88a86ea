package exitgate

import (
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// An ID names a flow or a connection: 48 bits of Unix milliseconds, then 80 random bits, so that IDs sort by
// time, any gateway can make them without asking another, and an insert that is repeated finds its first
// self. It prints as 26 characters of Crockford's base 32 in lower case, which sorts as the ID does and survives
// a terminal, a URL and a spoken telephone call. The zero ID names nothing.
type ID [16]byte

var idText = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// NewID returns a fresh ID for something that began at t.
func NewID(t time.Time) ID {
	var id ID
	// The runtime's ChaCha8, seeded by the system: an ID has to be one of its kind, and nothing is secret about it.
	binary.LittleEndian.PutUint64(id[6:14], rand.Uint64())
	binary.LittleEndian.PutUint16(id[14:], uint16(rand.Uint32()))
	ms := uint64(t.UnixMilli())
	binary.BigEndian.PutUint16(id[0:2], uint16(ms>>32))
	binary.BigEndian.PutUint32(id[2:6], uint32(ms))
	return id
}

// Time returns when the thing that id names began, to the millisecond, in UTC.
func (id ID) Time() time.Time {
	ms := uint64(binary.BigEndian.Uint16(id[0:2]))<<32 | uint64(binary.BigEndian.Uint32(id[2:6]))
	return time.UnixMilli(int64(ms)).UTC()
}

// IsZero reports whether id names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// String returns the 26 characters of id.
func (id ID) String() string { return idText.EncodeToString(id[:]) }

// AppendText implements [encoding.TextAppender].
func (id ID) AppendText(to []byte) ([]byte, error) { return idText.AppendEncode(to, id[:]), nil }

// MarshalText implements [encoding.TextMarshaler].
func (id ID) MarshalText() ([]byte, error) { return id.AppendText(nil) }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (id *ID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseID(string(b))
	return err
}

var errID = errors.New("an id has 26 characters of 0-9 and a-z without i, l, o and u")

// ParseID reads what String printed; upper case is accepted.
func ParseID(s string) (ID, error) {
	b, err := idText.DecodeString(strings.ToLower(s))
	if err != nil || len(s) != 26 || idText.EncodeToString(b) != strings.ToLower(s) {
		return ID{}, fmt.Errorf("read id %.40q: %w", s, errID)
	}
	return ID(b), nil
}
