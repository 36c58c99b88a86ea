package storagetest

import (
	"maps"
	"math"
	"testing"
	"time"

	"github.com/exitgate/exitgate/storage"
)

func used(t *testing.T, s storage.Uses, uses ...storage.Use) {
	t.Helper()
	if err := s.Used(t.Context(), uses); err != nil {
		t.Fatal(err)
	}
}

func wantUses(t *testing.T, s storage.Uses, kind string, want ...storage.Use) {
	t.Helper()
	all := map[string]storage.Use{}
	for _, u := range want {
		u.Kind, u.Last = kind, micro(u.Last)
		all[u.ID] = u
	}
	if got, err := s.Uses(t.Context(), kind); err != nil || !maps.Equal(got, all) {
		t.Errorf("uses of kind %s:\n got %+v, %v\nwant %+v", kind, got, err, all)
	}
}

func uses(t *testing.T, s storage.Store) {
	at := Start()
	wantUses(t, s, "grant")
	used(t, s)
	used(t, s, storage.Use{Kind: "grant", ID: "b", Last: at, Count: 2}, storage.Use{Kind: "grant", ID: "a", Last: at, Count: 1},
		storage.Use{Kind: "host", ID: "a", Last: at}, storage.Use{Kind: "grant", ID: "b", Last: at.Add(-time.Hour), Count: 3})
	used(t, s, storage.Use{Kind: "grant", ID: "a", Last: at.Add(time.Hour), Count: 5}, storage.Use{Kind: "grant", ID: "b", Last: at.Add(-time.Hour), Count: math.MaxInt32})
	wantUses(t, s, "grant", storage.Use{ID: "a", Last: at.Add(time.Hour), Count: 6}, storage.Use{ID: "b", Last: at, Count: math.MaxInt32 + 5})
	wantUses(t, s, "host", storage.Use{ID: "a", Last: at})
	if n := revision(t, s); n != 0 {
		t.Errorf("revision %d: to use something is no change", n)
	}
	for _, bad := range []storage.Use{{Kind: "grant"}, {ID: "x"}, {Kind: "grant", ID: "\x00"}, {Kind: "grant", ID: "x", Count: -1}} {
		if err := s.Used(t.Context(), []storage.Use{{Kind: "grant", ID: "a", Last: at, Count: 1}, bad}); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	wantUses(t, s, "grant", storage.Use{ID: "a", Last: at.Add(time.Hour), Count: 6}, storage.Use{ID: "b", Last: at, Count: math.MaxInt32 + 5})
}

// usesEnd: a document that is removed takes its uses along, and one of the same id begins anew.
func usesEnd(t *testing.T, s storage.Store) {
	apply(t, s, doc("grant", "a", `{}`), doc("grant", "b", `{}`))
	used(t, s, storage.Use{Kind: "grant", ID: "a", Last: Start(), Count: 1}, storage.Use{Kind: "grant", ID: "b", Last: Start(), Count: 1},
		storage.Use{Kind: "host", ID: "a", Last: Start(), Count: 1}, storage.Use{Kind: "grant", ID: "in-a-file", Last: Start(), Count: 1})
	if _, err := s.Apply(t.Context(), change(), storage.Edit{Kind: "grant", ID: "a"}, storage.Edit{Kind: "grant", ID: "b", If: 1}); err == nil {
		t.Error("a conflict was not seen")
	}
	apply(t, s, storage.Edit{Kind: "grant", ID: "a"}, doc("grant", "b", `{"n":1}`))
	apply(t, s, doc("grant", "a", `{}`))
	wantUses(t, s, "grant", storage.Use{ID: "b", Last: Start(), Count: 1}, storage.Use{ID: "in-a-file", Last: Start(), Count: 1})
	wantUses(t, s, "host", storage.Use{ID: "a", Last: Start(), Count: 1})
}
