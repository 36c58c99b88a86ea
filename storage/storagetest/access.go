package storagetest

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage"
)

func fullGrant(id string) exitgate.Grant {
	return exitgate.Grant{
		ID: id, Class: "build", To: "*.example.com", Scheme: "any", Ports: []uint16{443, 8443}, Methods: []string{"GET", "POST"},
		Paths: []string{"/a/*", "/b$"}, Headers: map[string]string{"x-team": "a*"}, MaxRequest: 1 << 20, MaxResponse: 1 << 30,
		EncodedSlash: true, Audit: true, Reason: "poison \x00 and 'quotes' and \u2028", By: "ada", At: Start(), Until: Start().AddDate(0, 3, 0),
		Source: storage.SourceStore,
	}
}

func grants(t *testing.T, s storage.Store) {
	ctx := t.Context()
	if all, err := storage.Grants(ctx, s); err != nil || len(all) != 0 {
		t.Fatalf("an empty store has grants %v, %v", all, err)
	}
	b, a := fullGrant("b"), fullGrant("a")
	for _, g := range []exitgate.Grant{b, a} {
		if err := storage.PutGrant(ctx, s, g, change()); err != nil {
			t.Fatal(err)
		}
	}
	b.Methods = nil
	if err := storage.PutGrant(ctx, s, b, change()); err != nil {
		t.Fatal(err)
	}
	all, err := storage.Grants(ctx, s)
	if want := []exitgate.Grant{a, b}; err != nil || !reflect.DeepEqual(all, want) {
		t.Errorf("grants:\n got %+v, %v\nwant %+v", all, err, want)
	}
	if err := storage.Remove(ctx, s, storage.KindGrant, "b", change()); err != nil {
		t.Error(err)
	}
	if err := storage.Remove(ctx, s, storage.KindGrant, "b", change()); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("removed a second time: %v, want ErrNotFound", err)
	}
	b.Source = ""
	value, _ := json.Marshal(b)
	wantTrail(t, s, []storage.Entry{
		{At: micro(Start()), Who: "ada", Action: "grant.remove", Object: "b", Reason: change().Reason, Value: value},
		{At: micro(Start()), Who: "ada", Action: "grant.put", Object: "b", Reason: change().Reason, Value: value},
	}, 4)
}

func micro(t time.Time) time.Time { return t.Truncate(time.Microsecond) }

// wantTrail fails t when the newest entries are not want, or when there are not total entries in all.
func wantTrail(t *testing.T, s storage.Store, want []storage.Entry, total int) {
	t.Helper()
	got, err := s.Audit(t.Context(), storage.AuditFilter{})
	if err != nil || len(got) != total {
		t.Fatalf("%d audit entries, %v, want %d", len(got), err, total)
	}
	for i, w := range want {
		w.Seq = got[i].Seq
		if !reflect.DeepEqual(got[i], w) {
			t.Errorf("audit entry %d:\n got %+v\nwant %+v", i, got[i], w)
		}
	}
}

func exemptions(t *testing.T, s storage.Store) {
	ctx := t.Context()
	e := exitgate.Exemption{ID: "pinned", Class: "phone", To: "push.example.org", Ports: []uint16{443, 5223}, Raw: true, MaxBytes: 1 << 30,
		Reason: "pins its certificate", By: "ada", At: Start(), Until: Start().AddDate(0, 1, 0), Source: storage.SourceStore}
	if err := storage.PutExemption(ctx, s, e, change()); err != nil {
		t.Fatal(err)
	}
	all, err := storage.Exemptions(ctx, s)
	if err != nil || len(all) != 1 || !reflect.DeepEqual(all[0], e) {
		t.Errorf("exemptions:\n got %+v, %v\nwant %+v", all, err, e)
	}
	if err := storage.Remove(ctx, s, storage.KindExemption, "pinned", change()); err != nil {
		t.Error(err)
	}
	if all, err := storage.Exemptions(ctx, s); err != nil || len(all) != 0 {
		t.Errorf("after it was removed: %v, %v", all, err)
	}
	if err := storage.Remove(ctx, s, storage.KindExemption, "pinned", change()); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("removed a second time: %v, want ErrNotFound", err)
	}
	e.Source = ""
	value, _ := json.Marshal(e)
	wantTrail(t, s, []storage.Entry{
		{At: micro(Start()), Who: "ada", Action: "exemption.remove", Object: "pinned", Reason: change().Reason, Value: value},
	}, 2)
}
