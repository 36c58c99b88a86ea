package storage_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage"
	"github.com/exitgate/exitgate/storage/storagetest"
)

func TestParseQuery(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	id := exitgate.NewID(now)
	eq := func(column, text string) storage.Term { return storage.Term{Column: column, Text: text} }
	word := func(text string) storage.Term {
		return storage.Term{Column: storage.Word, Op: storage.Contains, Text: text}
	}
	not := func(t storage.Term) storage.Term { t.Not = true; return t }
	for query, want := range map[string][]storage.Term{
		"":                                nil,
		" \t ":                            nil,
		"host:web-01":                     {eq("host", "web-01")},
		"HOST:web-01":                     {eq("host", "web-01")},
		`host:"a \"b\" \\ c"`:             {eq("host", `a "b" \ c`)},
		`host:""`:                         {eq("host", "")},
		"rule:deny:a.rego:7":              {eq("rule", "deny:a.rego:7")},
		"dst:*.Example.com.":              {{Column: "dest_host", Op: storage.Suffix, Text: ".example.com"}},
		"dst:Example.com":                 {eq("dest_host", "example.com")},
		"method:get":                      {eq("method", "GET")},
		"status:403":                      {{Column: "status", Op: storage.Range, Lo: 403, Hi: 403}},
		"-status:4xx":                     {{Not: true, Column: "status", Op: storage.Range, Lo: 400, Hi: 499}},
		"verdict:Refused":                 {eq("outcome", "refused")},
		"id:" + id.String():               {eq("id", id.String())},
		"since:-2h":                       {{Column: "begin", Op: storage.From, Time: now.Add(-2 * time.Hour)}},
		"until:2026-01-02T15:04:05+01:00": {{Column: "begin", Op: storage.To, Time: time.Date(2026, 1, 2, 14, 4, 5, 0, time.UTC)}},
		"a -b":                            {word("a"), not(word("b"))},
		`-"a b"`:                          {not(word("a b"))},
		"example.com:443":                 {word("example.com:443")},
		`"https://x/"`:                    {word("https://x/")},
		"a=b":                             {word("a=b")},
		"kind:dns way:tls-proxy":          {eq("kind", "dns"), eq("way", "tls-proxy")},
	} {
		f, err := storage.ParseQueryAt(query, now)
		if err != nil || !reflect.DeepEqual(f.Where, want) {
			t.Errorf("%q:\n got %+v, %v\nwant %+v", query, f.Where, err, want)
		}
	}
}

func TestQueryErrors(t *testing.T) {
	for query, want := range map[string]string{
		"hots:web":                 `query, column 1: there is no field "hots" (did you mean host?); a word with a colon in it stands in double quotes`,
		"a  -clas:x":               `query, column 5: there is no field "clas" (did you mean class?)`,
		"https://example.com":      `query, column 1: there is no field "https"; the fields are host, class,`,
		"host:":                    `query, column 6: a value must follow the colon`,
		"host: web":                `query, column 6: a value must follow`,
		"-":                        `query, column 2: a term must follow the -`,
		"- a":                      `query, column 2: a term must follow the -`,
		`é host:"x`:                `query, column 8: this quote is not closed`,
		`"x`:                       `query, column 1: this quote is not closed`,
		`"x"y`:                     `query, column 4: a space must follow`,
		`x"y`:                      `query, column 2: a double quote inside`,
		"status:4x":                `query, column 8: status: "4x" is neither`,
		"status:9xx":               `query, column 8: status: "9xx"`,
		"status:-1":                `query, column 8: status: "-1"`,
		"verdict:refsued":          `query, column 9: verdict: "refsued" is not one of open, allowed, refused, fault, interrupted (did you mean refused?)`,
		"kind:x":                   `query, column 6: kind: "x" is not one of request, tunnel, connection, dns`,
		"dst:a*b":                  `query, column 5: dst: "a*b": a star`,
		"dst:*":                    `query, column 5: dst: "*"`,
		"id:1":                     `query, column 4: id: read id "1"`,
		"since:2h":                 `query, column 7: since: "2h" is neither`,
		"until:yesterday":          `query, column 7: until: "yesterday"`,
		strings.Repeat("a ", 101):  `query, column 201: more than 100 terms`,
		strings.Repeat("a", 9<<10): `query, column 1: it has 9216 bytes, more than 8192`,
	} {
		_, err := storage.ParseQuery(query)
		var at *storage.QueryError
		if !errors.As(err, &at) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.40q:\n got %v\nwant %s", query, err, want)
		}
	}
}

// FuzzParseQuery: no query panics, and one that is read has terms that a flow can be matched with and SQL can be made of, in
// which no value stands.
func FuzzParseQuery(f *testing.F) {
	for _, q := range storagetest.Queries(storagetest.Random(3)) {
		f.Add(q)
	}
	f.Add("host:'; DROP TABLE flows --")
	flows := append(storagetest.Every(), storagetest.Random(3)...)
	dialect := storage.Dialect{
		Bind:     func(n int) string { return fmt.Sprintf("$%d", n) },
		Suffix:   func(column, bind string) string { return column + " suffix " + bind },
		Contains: func(column, bind string) string { return column + " contains " + bind },
		Time:     func(t time.Time) any { return t },
	}
	f.Fuzz(func(t *testing.T, q string) {
		filter, err := storage.ParseQuery(q)
		if err != nil {
			return
		}
		for _, flow := range flows {
			filter.Match(flow)
		}
		where, args := filter.SQL(dialect)
		if n := strings.Count(where, "$"); n != len(args) {
			t.Errorf("%d placeholders for %d arguments in %s", n, len(args), where)
		}
		if strings.ContainsAny(where, ";-\x00\\") {
			t.Errorf("a value stands in %s", where)
		}
	})
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "",
		"plain é 日本":                "plain é 日本",
		"a\x00b":                    `a\x00b`,
		"\x7f\u0085":                `\x7f\xc2\x85`,
		"\xff":                      `\xff`,
		`\x00`:                      `\x00`,
		"1234567890123456789012345": "12345678901234567…",
		"12345678901234567890":      "12345678901234567890",
		"12345678901234567\x00":     "12345678901234567…",
		"ééééééééééé":               "éééééééé…",
	} {
		if got := storage.Printable(in, 20); got != want || len(got) > 20 {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestDedupe(t *testing.T) {
	e := storage.NewRowEncoder()
	begun, ended := storagetest.Typical()
	other, _ := storagetest.Typical()
	open, first, last := e.Row(begun), e.Row(ended), e.Row(ended)
	got := storage.Dedupe([]storage.Row{open, e.Row(other), first, last, open})
	if len(got) != 2 || &got[0].Fields[0] != &first.Fields[0] || got[1].ID != other.ID {
		t.Errorf("%v", got)
	}
}
