package postgres

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage"
	"github.com/exitgate/exitgate/storage/storagetest"
)

// TestCopyFields: each field is, byte for byte, what the driver makes of the same value.
func TestCopyFields(t *testing.T) {
	m := pgtype.NewMap()
	oid := map[storage.ColumnKind]uint32{storage.TextColumn: pgtype.TextOID, storage.IntColumn: pgtype.Int8OID,
		storage.BoolColumn: pgtype.BoolOID, storage.TimeColumn: pgtype.TimestamptzOID, storage.AddrColumn: pgtype.InetOID}
	for _, f := range append(append(storagetest.Every(), storagetest.Poison()...), storagetest.Random(50)...) {
		rest := storage.NewRowEncoder().Row(f).Fields
		for _, c := range storage.Columns() {
			want, err := m.Encode(oid[c.Kind], pgtype.BinaryFormatCode, valueOf(&c, f), []byte{})
			if err != nil {
				t.Fatal(err)
			}
			var got []byte
			if got, rest, err = storage.NextField(rest); err != nil {
				t.Fatal(err)
			}
			if (got == nil) != (want == nil) || !bytes.Equal(got, want) {
				t.Errorf("%s of %s: %x, want %x", c.Name, f.ID, got, want)
			}
		}
	}
}

func valueOf(c *storage.Column, f *exitgate.Flow) any {
	switch c.Kind {
	case storage.IntColumn:
		return c.Int(f)
	case storage.BoolColumn:
		return c.Bool(f)
	case storage.TimeColumn:
		if t := c.Time(f); !t.IsZero() || c.Name != "end" {
			return t
		}
		return nil
	case storage.AddrColumn:
		if a := c.Addr(f); a.IsValid() {
			return a
		}
		return nil
	}
	return c.Text(f)
}

// TestCopyPieces: the stream is the same in whatever pieces it is read, and ends after stop.
func TestCopyPieces(t *testing.T) {
	columns := len(storage.Columns())
	var rows []storage.Row
	for _, f := range append(storagetest.Every(), storagetest.Random(100)...) {
		rows = append(rows, storage.NewRowEncoder().Row(f))
	}
	whole, err := io.ReadAll(newCopySource(columns, rows))
	if err != nil || !bytes.HasSuffix(whole, []byte(copyTrailer)) || len(whole) < 100<<10 {
		t.Fatalf("%d bytes, %v", len(whole), err)
	}
	for _, n := range []int{1, 7, 1000, 1 << 20} {
		var got []byte
		source, p := newCopySource(columns, rows), make([]byte, n)
		for {
			n, err := source.Read(p)
			got = append(got, p[:n]...)
			if err == io.EOF {
				break
			}
		}
		if !bytes.Equal(got, whole) {
			t.Errorf("in pieces of %d bytes it is another stream", n)
		}
	}
	source := newCopySource(columns, rows)
	source.stop()
	if n, err := source.Read(make([]byte, 10)); n != 0 || !errors.Is(err, errStopped) {
		t.Errorf("after stop: %d, %v", n, err)
	}
}
