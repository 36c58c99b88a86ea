package storage

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"github.com/exitgate/exitgate"
)

// A Row is an ended or open flow as it is written to a store: encoded once, in the form in which Postgres takes it.
type Row struct {
	ID    exitgate.ID
	Ended bool
	// Fields are the columns in the order of [Columns], then the record and the question as [AppendRecord] and
	// [AppendQuestion] write them. Each is its length, or -1 for null, before its bytes, as in COPY (FORMAT binary) of
	// Postgres: an integer has eight bytes, a truth one, a time counts microseconds since 2000-01-01 UTC, an
	// address is family, bits, 0, length and the bytes themselves; integers are big-endian. A text is as it is.
	Fields []byte
}

// ErrRow says that bytes are not the fields of a row.
var ErrRow = errors.New("these bytes are not the fields of a row")

// A RowEncoder makes rows. It is safe for concurrent use.
type RowEncoder struct{ columns []Column }

// NewRowEncoder returns the encoder of rows with the columns of this program.
func NewRowEncoder() RowEncoder { return RowEncoder{Columns()} }

// Columns returns the columns of the rows, which must not be changed.
func (e RowEncoder) Columns() []Column { return e.columns }

// Row returns the row of f, with fields of its own.
func (e RowEncoder) Row(f *exitgate.Flow) Row {
	return Row{ID: f.ID, Ended: !f.End.IsZero(), Fields: e.Append(make([]byte, 0, 4<<10), f)}
}

// Append appends the fields of f.
func (e RowEncoder) Append(b []byte, f *exitgate.Flow) []byte {
	var room [2 << 10]byte
	made := appendHeaderJSON(room[:0], &f.Question)
	for i := range e.columns {
		b = appendField(b, &e.columns[i], f, &made)
	}
	b, at := openField(b)
	b = closeField(AppendRecord(b, f), at)
	b, at = openField(b)
	return closeField(appendQuestion(b, &f.Question, made), at)
}

func appendField(b []byte, c *Column, f *exitgate.Flow, made *headerJSON) []byte {
	switch c.Kind {
	case IntColumn:
		return binary.BigEndian.AppendUint64(appendLength(b, 8), uint64(c.Int(f)))
	case BoolColumn:
		b = append(appendLength(b, 1), 0)
		if c.Bool(f) {
			b[len(b)-1] = 1
		}
		return b
	case TimeColumn:
		return appendTimeField(b, c.Time(f), c.Name == "end")
	case AddrColumn:
		return appendAddrField(b, c.Addr(f))
	}
	b, at := openField(b)
	n := len(b)
	switch {
	case c.of == requestSide:
		b = appendSome(b, made.request)
	case c.of == responseSide:
		b = appendSome(b, made.response)
	default:
		b = c.raw(b, f)
	}
	return closeField(c.printable(b, n), at)
}

// appendSome appends the JSON of header fields unless there are none.
func appendSome(b, headers []byte) []byte {
	if len(headers) <= len("null") { // nor {}
		return b
	}
	return append(b, headers...)
}

// rowEpoch is 2000-01-01 UTC in microseconds since 1970.
const rowEpoch = 946_684_800_000_000

func appendTimeField(b []byte, t time.Time, nullable bool) []byte {
	if nullable && t.IsZero() {
		return appendLength(b, null)
	}
	return binary.BigEndian.AppendUint64(appendLength(b, 8), uint64(t.UnixMicro()-rowEpoch))
}

func appendAddrField(b []byte, a netip.Addr) []byte {
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

const null = -1

func appendLength(b []byte, n int32) []byte { return binary.BigEndian.AppendUint32(b, uint32(n)) }

// openField leaves room for a length, which closeField fills in when what follows has been appended.
func openField(b []byte) ([]byte, int) { return append(b, 0, 0, 0, 0), len(b) }

func closeField(b []byte, at int) []byte {
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}

// NextField takes the first field off fields; b is nil when it is null.
func NextField(fields []byte) (b, rest []byte, err error) {
	if len(fields) < 4 {
		return nil, nil, ErrRow
	}
	n := int32(binary.BigEndian.Uint32(fields))
	fields = fields[4:]
	switch {
	case n == null:
		return nil, fields, nil
	case n < 0 || int(n) > len(fields):
		return nil, nil, ErrRow
	}
	return fields[:n:n], fields[n:], nil
}

// Field returns the field with number i, from 0; nil when it is null.
func (r Row) Field(i int) (b []byte, err error) {
	for rest := r.Fields; i >= 0; i-- {
		if b, rest, err = NextField(rest); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// Value returns a field of c as database/sql takes it: string, int64, bool, or nil; a time counts microseconds since
// 1970, and an address is its text.
func (c *Column) Value(field []byte) (any, error) {
	if field == nil {
		return nil, nil
	}
	switch {
	case c.Kind == TextColumn:
		return string(field), nil
	case c.Kind == BoolColumn && len(field) == 1:
		return field[0] != 0, nil
	case c.Kind == AddrColumn && len(field) > 4:
		a, ok := netip.AddrFromSlice(field[4:])
		if !ok {
			return nil, ErrRow
		}
		return a.String(), nil
	case len(field) != 8:
		return nil, ErrRow
	case c.Kind == TimeColumn:
		return int64(binary.BigEndian.Uint64(field)) + rowEpoch, nil
	}
	return int64(binary.BigEndian.Uint64(field)), nil
}

// Parts returns the last two of fields, which hold the whole flow whatever columns stand before them.
func Parts(fields []byte) (record, question []byte, err error) {
	for len(fields) > 0 {
		record = question
		if question, fields, err = NextField(fields); err != nil {
			return nil, nil, err
		}
	}
	if record == nil || question == nil {
		return nil, nil, ErrRow
	}
	return record, question, nil
}

// DecodeRow returns the flow that fields hold.
func DecodeRow(fields []byte) (*exitgate.Flow, error) {
	record, question, err := Parts(fields)
	if err != nil {
		return nil, err
	}
	return DecodeFlow(record, question)
}

// WriteFlows encodes flows and writes them to w, as [FlowWriter] promises.
func WriteFlows(ctx context.Context, w FlowWriter, flows []*exitgate.Flow) error {
	e := NewRowEncoder()
	rows := make([]Row, len(flows))
	for i, f := range flows {
		rows[i] = e.Row(f)
	}
	return w.WriteRows(ctx, rows)
}

// Dedupe returns rows with each id once: its ended version if there is one, else its last. The order of first
// appearance is kept. It returns rows itself when there is nothing to drop.
func Dedupe(rows []Row) []Row {
	at := make(map[exitgate.ID]int, len(rows))
	for i := range rows {
		at[rows[i].ID] = i
	}
	if len(at) == len(rows) {
		return rows
	}
	clear(at)
	var out []Row
	for _, r := range rows {
		i, seen := at[r.ID]
		switch {
		case !seen:
			at[r.ID] = len(out)
			out = append(out, r)
		case !out[i].Ended:
			out[i] = r
		}
	}
	return out
}
