package storagetest

import (
	"context"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/exitgate/exitgate/storage"
)

// BeforeLedger fills a database of schema version 1, which had a table for grants and one for exemptions, through exec:
// two grants, one of which was changed and one removed and made again, and an exemption. JSON goes in as the driver's
// bytes; at is the time of every audit entry as the database has it.
func BeforeLedger(t *testing.T, at string, exec func(statement string, args ...any)) {
	t.Helper()
	g, x := fullGrant("g"), fullGrant("h")
	g.Source, x.Source = "", ""
	grant, _ := json.Marshal(g)
	other, _ := json.Marshal(x)
	entry := func(action, id string, value []byte) {
		exec(`INSERT INTO audit ("at", "who", "action", "object", "reason", "value") VALUES (`+at+`, 'ada', '`+action+`', '`+id+`', 'why', $1)`, value)
	}
	exec(`INSERT INTO grants VALUES ('g', $1)`, grant)
	exec(`INSERT INTO grants VALUES ('h', $1)`, other)
	exec(`INSERT INTO exemptions VALUES ('g', $1)`, []byte(`{"id":"g","class":"phone","to":"push.example.org"}`))
	entry("grant.put", "g", []byte(`{}`))
	entry("grant.put", "h", other)
	entry("exemption.put", "g", []byte(`{"id":"g"}`))
	entry("grant.remove", "g", []byte(`{}`))
	entry("grant.put", "g", grant)
	entry("grant.remove", "gone", []byte(`{}`))
}

// AfterLedger fails t when the store does not have what BeforeLedger put into its database.
func AfterLedger(t *testing.T, s storage.Store) {
	t.Helper()
	all, err := storage.Grants(t.Context(), s)
	if want := fullGrant("g"); err != nil || len(all) != 2 || !reflect.DeepEqual(all[0], want) {
		t.Errorf("grants %+v, %v", all, err)
	}
	exemptions, err := storage.Exemptions(t.Context(), s)
	if err != nil || len(exemptions) != 1 || exemptions[0].To != "push.example.org" {
		t.Errorf("exemptions %+v, %v", exemptions, err)
	}
	for name, version := range map[[2]string]int64{{"grant", "g"}: 5, {"grant", "h"}: 2, {"exemption", "g"}: 3} {
		if d, err := s.Document(t.Context(), name[0], name[1]); err != nil || d.Version != version {
			t.Errorf("%v has version %d, %v, want %d", name, d.Version, err, version)
		}
	}
	trail, err := s.Audit(t.Context(), storage.AuditFilter{Kind: "grant"})
	if err != nil || len(trail) != 5 || trail[0].Seq != 6 || trail[4].Object != "g" {
		t.Errorf("audit %+v, %v", trail, err)
	}
	if _, err := s.Apply(context.Background(), change(), storage.Edit{Kind: "grant", ID: "h", If: 2}); err != nil || revision(t, s) != 7 {
		t.Errorf("a change after it: revision %d, %v", revision(t, s), err)
	}
}
