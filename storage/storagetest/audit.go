package storagetest

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/exitgate/exitgate/storage"
)

// trail makes the changes that the tests of the audit trail look for.
func trail(t *testing.T, s storage.Store) {
	t.Helper()
	for i, who := range []string{"ada", "bob", "ada", "eve' OR 1=1 --"} {
		c := change()
		c.Who = who
		_, err := s.Apply(t.Context(), c, doc("grant", fmt.Sprint("g", i), `{}`), doc("host", "g1", fmt.Sprintf(`{"n":%d}`, i)))
		if err != nil {
			t.Fatal(err)
		}
	}
	apply(t, s, storage.Edit{Kind: "grant", ID: "g1"})
}

func auditFilters(t *testing.T, s storage.Store) {
	trail(t, s)
	for _, c := range []struct {
		filter storage.AuditFilter
		want   string // the entries, newest first
	}{
		{storage.AuditFilter{}, "9:grant.remove:g1 8:host.put:g1 7:grant.put:g3 6:host.put:g1 5:grant.put:g2 4:host.put:g1 3:grant.put:g1 2:host.put:g1 1:grant.put:g0"},
		{storage.AuditFilter{Kind: "grant"}, "9:grant.remove:g1 7:grant.put:g3 5:grant.put:g2 3:grant.put:g1 1:grant.put:g0"},
		{storage.AuditFilter{Object: "g1"}, "9:grant.remove:g1 8:host.put:g1 6:host.put:g1 4:host.put:g1 3:grant.put:g1 2:host.put:g1"},
		{storage.AuditFilter{Kind: "grant", Object: "g1"}, "9:grant.remove:g1 3:grant.put:g1"},
		{storage.AuditFilter{Who: "bob"}, "4:host.put:g1 3:grant.put:g1"},
		{storage.AuditFilter{Who: "eve' OR 1=1 --"}, "8:host.put:g1 7:grant.put:g3"},
		{storage.AuditFilter{Who: "ada", Kind: "host", Object: "g1"}, "6:host.put:g1 2:host.put:g1"},
		{storage.AuditFilter{Kind: "host", Before: 6, Limit: 1}, "4:host.put:g1"},
		{storage.AuditFilter{After: 7}, "9:grant.remove:g1 8:host.put:g1"},
		{storage.AuditFilter{After: 3, Before: 6}, "5:grant.put:g2 4:host.put:g1"},
		{storage.AuditFilter{Before: -1, After: -1, Limit: -1, Kind: "host", Who: "bob"}, "4:host.put:g1"},
		{storage.AuditFilter{Who: "a%"}, ""},
		{storage.AuditFilter{Object: "g\x00"}, ""},
		{storage.AuditFilter{Kind: "class"}, ""},
	} {
		page, err := s.Audit(t.Context(), c.filter)
		if err != nil {
			t.Errorf("%+v: %v", c.filter, err)
		}
		var got []string
		for _, e := range page {
			if want, _, _ := strings.Cut(e.Action, "."); e.Kind() != want {
				t.Errorf("entry %d is of kind %q", e.Seq, e.Kind())
			}
			got = append(got, fmt.Sprintf("%d:%s:%s", e.Seq, e.Action, e.Object))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v:\n got %s\nwant %s", c.filter, strings.Join(got, " "), c.want)
		}
	}
}

func auditPages(t *testing.T, s storage.Store) {
	for i := range 7 {
		apply(t, s, doc("grant", fmt.Sprint("g", i), `{}`), doc("host", "h", `{}`))
	}
	var objects []string
	f := storage.AuditFilter{Kind: "grant", Limit: 3}
	for {
		page, err := s.Audit(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page {
			objects = append(objects, e.Object)
			f.Before = e.Seq
		}
		if len(page) < 3 {
			break
		}
	}
	if want := []string{"g6", "g5", "g4", "g3", "g2", "g1", "g0"}; !reflect.DeepEqual(objects, want) {
		t.Errorf("objects %v, want %v", objects, want)
	}
}

// auditText: who and why are kept so that they can be printed.
func auditText(t *testing.T, s storage.Store) {
	c := change()
	c.Who, c.Reason = "a\x1b[31m", "a\x00b\xff"
	if _, err := s.Apply(t.Context(), c, doc("grant", "g", `{}`)); err != nil {
		t.Errorf("a reason that is not printable: %v", err)
	}
	got, err := s.Audit(t.Context(), storage.AuditFilter{Who: c.Who})
	if err != nil || len(got) != 1 || got[0].Reason != `a\x00b\xff` || got[0].Who != `a\x1b[31m` {
		t.Errorf("audit: %+v, %v", got, err)
	}
	if _, err := s.Apply(t.Context(), storage.Change{Who: "ada", Reason: "no time given"}, doc("grant", "g", `{}`)); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Audit(t.Context(), storage.AuditFilter{Limit: 1}); err != nil || got[0].At.Year() < 2026 {
		t.Errorf("audit: %+v, %v", got, err)
	}
}
