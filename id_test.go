package exitgate

import (
	"bytes"
	"slices"
	"testing"
	"time"
)

func TestIDSortsByTimeAndPrintsItself(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	var ids []ID
	for i := range 100 {
		id := NewID(at.Add(time.Duration(i) * time.Hour))
		if got, err := ParseID(id.String()); err != nil || got != id {
			t.Fatalf("ParseID(%s) = %v, %v", id, got, err)
		}
		if want := at.Add(time.Duration(i) * time.Hour); !id.Time().Equal(want) {
			t.Fatalf("Time of %s is %v, want %v", id, id.Time(), want)
		}
		ids = append(ids, id)
	}
	if !slices.IsSortedFunc(ids, func(a, b ID) int { return bytes.Compare(a[:], b[:]) }) ||
		!slices.IsSortedFunc(ids, func(a, b ID) int { return bytes.Compare([]byte(a.String()), []byte(b.String())) }) {
		t.Error("ids, or their text, do not sort by time")
	}
}

func TestParseIDRefuses(t *testing.T) {
	good := NewID(time.Now()).String()
	for _, s := range []string{"", "x", good[:25], good + "0", good[:25] + "1", good[:25] + "u", good[:25] + "\n", "KELVIN\u212a" + good[9:]} {
		if id, err := ParseID(s); err == nil {
			t.Errorf("ParseID(%q) = %s, want an error", s, id)
		}
	}
}
