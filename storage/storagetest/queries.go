package storagetest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage"
)

// queries is the contract of the query language: each query gives the same flows by the store and by Match.
func queries(t *testing.T, s storage.Store) {
	flows := append(Every(), long())
	for _, f := range Poison() {
		if len(storage.AppendFlow(nil, f)) < 64<<10 { // a megabyte in each of the searches would only take time
			flows = append(flows, f)
		}
	}
	flows = append(flows, Random(150)...)
	write(t, s, flows...)
	found := 0
	for _, q := range Queries(flows) {
		filter, err := storage.ParseQueryAt(q, Start())
		if err != nil {
			t.Errorf("%s: %v", q, err)
			continue
		}
		filter.Limit = storage.MaxLimit
		want := map[exitgate.ID]bool{}
		for _, f := range flows {
			if filter.Match(f) {
				want[f.ID] = true
			}
		}
		got := search(t, s, filter)
		for _, f := range got {
			if !want[f.ID] {
				t.Errorf("%s: the store gives flow %s, and Match does not", q, f.ID)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: the store gives %d flows, Match %d", q, len(got), len(want))
		}
		found += len(got)
	}
	if found < 1000 {
		t.Errorf("the queries found %d flows in all: the test says nothing", found)
	}
	unknown := storage.Filter{Where: []storage.Term{{Column: `id" = '' OR "id`, Text: "x"}}}
	if got := search(t, s, unknown); len(got) != 0 {
		t.Errorf("a column that does not exist found %d flows", len(got))
	}
}

// long returns a flow whose texts are cut in every column.
func long() *exitgate.Flow {
	_, f := Typical()
	f.ID = exitgate.NewID(Start())
	f.Question.Dest.Host = strings.Repeat("é", 700)
	f.Question.HTTP.URL = "https://example.com/" + strings.Repeat("é", 9000) + "/end"
	return f
}

// Queries returns queries that touch every field and every kind of value.
func Queries(flows []*exitgate.Flow) []string {
	all := []string{
		"", "host:web-01", "-host:web-01", `host:""`, "class:app", "class:APP", "class:app class:build", "dst:example.com", "dst:*.example.com", "-dst:*.example.com", "dst:EXAMPLE.com.",
		"dst:*.mple.com", "dst:ex_mple.com", "dst:*.%", "method:get", "method:POST -host:ci-7", "status:403", "status:4xx", "-status:4XX", "status:0", "status:2xx host:web-02",
		"outcome:refused", "verdict:allowed", "outcome:open", "outcome:interrupted", "-outcome:fault", "rule:no-grant", "rule:deny:x.rego:7", "-rule:grant:a", "rev:r1",
		"kind:tunnel", "kind:request", "kind:dns", "way:proxy", "way:tls-proxy -kind:tunnel", "url:/A/B", "url:/a/b", "url:%25", "url:x_y", `url:"back\\slash"`, "url:/äö", "url:/ÄÖ", "url:'",
		"example", "EXAMPLE", "-example", "ex%m", "ex_m", `\x00`, `\x1b`, `"DROP TABLE"`, `";"`, "…", "é", "\ufffd", "%", "_", `\`, `-\`, "192.0.2", "since:-1s", "since:2026-03-05T00:00:00Z",
		"/end", "until:2026-03-05T00:00:00Z", "since:2026-03-05T00:00:00Z until:2026-03-06T00:00:00+02:00", "since:2026-03-04T05:06:07.891234567Z", "until:2026-03-04T05:06:07.891234567Z",
		"since:0001-01-01T00:00:00Z", "-since:9999-12-31T23:59:59Z", `host:"nul \x00 here"`, "verdict:refused host:web-01 dst:*.example.com method:GET status:4xx since:-2h word",
	}
	for _, f := range flows[len(flows)-3:] {
		all = append(all, "id:"+f.ID.String(), "conn:"+f.Conn.String(), "-id:"+f.ID.String(), fmt.Sprintf("since:%s", f.Begin.Format("2006-01-02T15:04:05.999999999Z07:00")))
	}
	return all
}
