package storagetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/exitgate/exitgate/storage"
)

func change() storage.Change {
	return storage.Change{At: Start(), Who: "ada", Reason: "ticket 7: the build needs it"}
}

// doc is an edit that puts a document whatever is there.
func doc(kind, id, value string) storage.Edit {
	return storage.Edit{Kind: kind, ID: id, Value: json.RawMessage(value)}
}

// apply makes edits that must succeed, and returns the number of the last.
func apply(t *testing.T, l storage.Ledger, edits ...storage.Edit) int64 {
	t.Helper()
	seq, err := l.Apply(t.Context(), change(), edits...)
	if err != nil {
		t.Fatalf("apply %d edits: %v", len(edits), err)
	}
	return seq
}

func revision(t *testing.T, l storage.Ledger) int64 {
	t.Helper()
	seq, err := l.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func list(t *testing.T, l storage.Ledger, kind string) []storage.Document {
	t.Helper()
	docs, err := l.Documents(t.Context(), kind)
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

func documents(t *testing.T, s storage.Store) {
	if n, docs := revision(t, s), list(t, s, "host"); n != 0 || len(docs) != 0 {
		t.Fatalf("an empty store has revision %d and %d documents", n, len(docs))
	}
	last := apply(t, s, doc("host", "b", `{"n": 1}`), doc("host", "A", ` {"n":2} `), doc("class", "b", `{"n":3}`), doc("host", "é", `{}`))
	if n := revision(t, s); n != last || last != 4 {
		t.Errorf("revision %d and number %d after four changes", n, last)
	}
	again := apply(t, s, doc("host", "b", `{"n":4}`))
	want := []storage.Document{
		{Kind: "host", ID: "A", Version: 2, Value: json.RawMessage(`{"n":2}`)},
		{Kind: "host", ID: "b", Version: again, Value: json.RawMessage(`{"n":4}`)},
		{Kind: "host", ID: "é", Version: 4, Value: json.RawMessage(`{}`)},
	}
	if got := list(t, s, "host"); !reflect.DeepEqual(got, want) {
		t.Errorf("documents:\n got %s\nwant %s", show(got), show(want))
	}
	if d, err := s.Document(t.Context(), "host", "b"); err != nil || !reflect.DeepEqual(d, want[1]) {
		t.Errorf("document: %+v, %v", d, err)
	}
	for _, name := range [][2]string{{"host", "a"}, {"class", "A"}, {"other", "b"}} {
		if _, err := s.Document(t.Context(), name[0], name[1]); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("%s %s: %v, want ErrNotFound", name[0], name[1], err)
		}
	}
	if got := list(t, s, "no-such-kind"); len(got) != 0 {
		t.Errorf("%d documents of no kind", len(got))
	}
}

func show(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// valuesStay: a value comes back byte for byte, whatever a string or a number in it looks like.
func valuesStay(t *testing.T, s storage.Store) {
	for i, value := range []string{
		`{"a":"\u0000 \ud800 < & > \u2028 é","a":"twice"}`, "{\"raw\":\"\xff\xfe\"}", `{"n":12345678901234567890.12345678901234567890e-5}`,
		`{"deep":` + strings.Repeat("[", 500) + strings.Repeat("]", 500) + `}`, `{"long":"` + strings.Repeat("x", storage.MaxValue-11) + `"}`,
	} {
		id := fmt.Sprint(i)
		seq := apply(t, s, doc("request", id, value))
		d, err := s.Document(t.Context(), "request", id)
		if err != nil || string(d.Value) != value || d.Version != seq {
			t.Errorf("value %d came back as %.200q, version %d, %v", i, d.Value, d.Version, err)
		}
		if page, err := s.Audit(t.Context(), storage.AuditFilter{Limit: 1}); err != nil || string(page[0].Value) != value {
			t.Errorf("value %d is otherwise in the audit trail: %v", i, err)
		}
	}
}

// conflicts: an edit is made if the document has the version that it expects, and nothing is made if one edit is not.
func conflicts(t *testing.T, s storage.Store) {
	old := apply(t, s, doc("host", "h", `{"n":1}`))
	now := apply(t, s, doc("host", "h", `{"n":2}`))
	removal := storage.Edit{Kind: "host", ID: "h"}
	missing := doc("host", "missing", `{}`)
	for _, c := range []struct {
		name string
		edit storage.Edit
		want error
	}{
		{"put, an old version", expecting(doc("host", "h", `{}`), old), storage.ErrConflict},
		{"put, a version to come", expecting(doc("host", "h", `{}`), now+1), storage.ErrConflict},
		{"put, must not exist", expecting(doc("host", "h", `{}`), storage.MustNotExist), storage.ErrConflict},
		{"put, one that is not there", expecting(missing, now), storage.ErrConflict},
		{"remove, an old version", expecting(removal, old), storage.ErrConflict},
		{"remove, one that is not there", storage.Edit{Kind: "host", ID: "missing"}, storage.ErrNotFound},
		{"remove, one that was there", storage.Edit{Kind: "host", ID: "missing", If: 1}, storage.ErrConflict},
		{"put, this version", expecting(doc("host", "h", `{"n":3}`), now), nil},
		{"put, that version again", expecting(doc("host", "h", `{"n":4}`), now), storage.ErrConflict},
		{"remove, this version", expecting(removal, now+2), nil},
		{"make", expecting(doc("host", "h", `{}`), storage.MustNotExist), nil},
		{"put, its version before it was removed", expecting(doc("host", "h", `{}`), now+2), storage.ErrConflict},
	} {
		before := revision(t, s)
		other := doc("host", "other", `{}`)
		seq, err := s.Apply(t.Context(), change(), other, c.edit)
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		want := before
		if c.want == nil {
			want += 2
		}
		if got := revision(t, s); got != want || err == nil && seq != want {
			t.Errorf("%s: revision %d, number %d, want %d", c.name, got, seq, want)
		}
		if d, err := s.Document(t.Context(), "host", "other"); c.want != nil && err == nil && d.Version > before {
			t.Errorf("%s: the other edit of the call was made", c.name)
		}
	}
}

func expecting(e storage.Edit, version int64) storage.Edit {
	e.If = version
	return e
}

// badEdits: what no store takes changes nothing, and says what is wrong.
func badEdits(t *testing.T, s storage.Store) {
	who := change()
	for want, c := range map[string]struct {
		change storage.Change
		edits  []storage.Edit
	}{
		"who makes it":      {storage.Change{Reason: "why"}, []storage.Edit{doc("host", "h", `{}`)}},
		"does not say why":  {storage.Change{Who: "who"}, []storage.Edit{doc("host", "h", `{}`)}},
		"0 edits":           {who, nil},
		"10001 edits":       {who, make([]storage.Edit, storage.MaxEdits+1)},
		"has no id":         {who, []storage.Edit{doc("host", "", `{}`)}},
		"id is too long":    {who, []storage.Edit{doc("host", strings.Repeat("x", 513), `{}`)}},
		"not printable":     {who, []storage.Edit{doc("host", "h\x00", `{}`)}},
		`"" is not a kind`:  {who, []storage.Edit{doc("", "h", `{}`)}},
		`"a.b" is not`:      {who, []storage.Edit{doc("a.b", "h", `{}`)}},
		`\\x00" is not`:     {who, []storage.Edit{doc("host\x00", "h", `{}`)}},
		"least is -1":       {who, []storage.Edit{expecting(doc("host", "h", `{}`), -2)}},
		"not to exist":      {who, []storage.Edit{{Kind: "host", ID: "h", If: storage.MustNotExist}}},
		"names it twice":    {who, []storage.Edit{doc("host", "h", `{}`), doc("class", "h", `{}`), doc("host", "h", `{}`)}},
		"h1\": its value":   {who, []storage.Edit{doc("host", "h1", ``)}},
		"h2\": its value":   {who, []storage.Edit{doc("host", "h2", `null`)}},
		"h3\": its value":   {who, []storage.Edit{doc("host", "h3", `[{}]`)}},
		"h4\": its value":   {who, []storage.Edit{doc("host", "h4", `{} {}`)}},
		"h5\": its value":   {who, []storage.Edit{doc("host", "h5", `{"a":1`)}},
		"has 1048577 bytes": {who, []storage.Edit{doc("host", "h", `{`+strings.Repeat(" ", storage.MaxValue-1)+`}`)}},
	} {
		_, err := s.Apply(t.Context(), c.change, c.edits...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want it to say %q", err, want)
		}
	}
	for _, kind := range []string{"", "a.b", "x\x00", "host' OR 1=1 --", strings.Repeat("x", 33)} {
		if _, err := s.Documents(t.Context(), kind); err == nil {
			t.Errorf("documents of kind %q", kind)
		}
		if _, err := s.Uses(t.Context(), kind); err == nil {
			t.Errorf("uses of kind %q", kind)
		}
		if _, err := s.Audit(t.Context(), storage.AuditFilter{Kind: kind}); err == nil && kind != "" {
			t.Errorf("audit of kind %q", kind)
		}
	}
	if n := revision(t, s); n != 0 {
		t.Errorf("revision %d", n)
	}
}

// manyEdits: the largest change is made as a whole, and so is its opposite.
func manyEdits(t *testing.T, s storage.Store) {
	var puts, removals []storage.Edit
	for i := range storage.MaxEdits {
		id := fmt.Sprintf("g%05d", i)
		puts = append(puts, doc("grant", id, fmt.Sprintf(`{"n":%d}`, i)))
		removals = append(removals, storage.Edit{Kind: "grant", ID: id, If: int64(i + 1)})
	}
	if seq := apply(t, s, puts...); seq != storage.MaxEdits {
		t.Errorf("number %d", seq)
	}
	docs := list(t, s, "grant")
	if len(docs) != storage.MaxEdits || !slices.IsSortedFunc(docs, func(a, b storage.Document) int { return strings.Compare(a.ID, b.ID) }) {
		t.Errorf("%d documents, or not in order", len(docs))
	}
	for i, d := range docs {
		if d.Version != int64(i+1) {
			t.Fatalf("%s has version %d, want %d", d.ID, d.Version, i+1)
		}
	}
	apply(t, s, removals...)
	if n := len(list(t, s, "grant")); n != 0 {
		t.Errorf("%d documents are left", n)
	}
}

// typed: a document is read, changed and written as a Go value.
func typed(t *testing.T, s storage.Store) {
	type token struct{ Uses, Used int }
	edit, err := storage.Put("host-token", "t", token{Uses: 3}, storage.MustNotExist)
	if err != nil {
		t.Fatal(err)
	}
	apply(t, s, edit)
	calls := 0
	v, version, err := storage.Update(t.Context(), s, "host-token", "t", change(), func(v *token) error {
		if calls++; calls == 1 { // somebody else comes between
			apply(t, s, doc("host-token", "t", `{"Uses":3,"Used":1}`))
		}
		v.Used++
		return nil
	})
	if err != nil || calls != 2 || v.Used != 2 || version != revision(t, s) {
		t.Errorf("%+v, version %d, %d calls, %v", v, version, calls, err)
	}
	all, err := storage.Values[token](t.Context(), s, "host-token")
	if err != nil || !reflect.DeepEqual(all, []token{{3, 2}}) {
		t.Errorf("%+v, %v", all, err)
	}
	enough := errors.New("used up")
	if _, _, err := storage.Update(t.Context(), s, "host-token", "t", change(), func(*token) error { return enough }); err != enough {
		t.Errorf("%v, want the error of the function", err)
	}
	if _, _, err := storage.Update(t.Context(), s, "host-token", "none", change(), func(*token) error { return nil }); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("%v, want ErrNotFound", err)
	}
	apply(t, s, doc("host-token", "odd", `{"Uses":"many"}`))
	if _, err := storage.Values[token](t.Context(), s, "host-token"); err == nil || !strings.Contains(err.Error(), `host-token "odd"`) {
		t.Errorf("%v, want it to name the document that cannot be read", err)
	}
	if _, err := storage.Put("host", "h", func() {}, 0); err == nil {
		t.Error("a function was made a document")
	}
}
