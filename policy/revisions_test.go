package policy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
)

func countFiles(t *testing.T, pattern string) int {
	t.Helper()
	all, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestRevisionsAnswerAsTheyDid changes a policy again and again, and asks random questions of each revision while it is
// in force and when it is loaded later.
func TestRevisionsAnswerAsTheyDid(t *testing.T) {
	u := universe{rand.New(rand.NewPCG(3, 7))}
	dir := t.TempDir()
	kept := NewRevisions(filepath.Join(t.TempDir(), "revisions"), RevisionBounds{})
	write(t, dir, "grants.yaml", "- {id: file, class: app, to: f.example.com, reason: r}\n")
	write(t, dir, "data.yaml", "names: [a]\n")
	var e *Engine
	type memory struct {
		q *exitgate.Question
		v exitgate.Verdict
	}
	said := map[string][]memory{}
	for i := range 8 {
		write(t, dir, "rule.rego", "package exitgate\n\ndeny contains \"x\" if input.http.path == \""+u.path()+"\"\n\ngrants contains \"n\" if data.names[_] == input.dest.host\n")
		write(t, dir, "x_test.rego", fmt.Sprintf("package x_test\n\ntest_x if %d == %d\n", i, i))
		d := Data{Grants: u.grants(25), Exemptions: u.exemptions(4), AuditClasses: []exitgate.Class{"build"}[:i%2]}
		var err error
		if e == nil {
			e, err = New(t.Context(), Options{Dir: dir, Revisions: kept, Timeout: time.Minute}, d)
		} else {
			_, err = e.Reload(t.Context(), d)
		}
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			q := u.question()
			v, _ := e.Decide(t.Context(), q)
			said[e.Revision()] = append(said[e.Revision()], memory{q, v})
		}
	}
	all, err := kept.List()
	if err != nil || len(all) != len(said) || all[0].Revision != e.Revision() {
		t.Fatalf("%v %v, want %d revisions, %s first", all, err, len(said), e.Revision())
	}
	for rev, list := range said {
		old, err := kept.Load(t.Context(), rev, Options{Timeout: time.Minute})
		if err != nil || old.Revision() != rev {
			t.Fatalf("%v", err)
		}
		for _, m := range list {
			if v, _ := old.Decide(t.Context(), m.q); !reflect.DeepEqual(v, m.v) {
				t.Fatalf("then %+v\nnow  %+v\nfor %+v", m.v, v, m.q)
			}
		}
		for _, g := range old.Grants() {
			if g.ID == "file" && g.Source != "grants.yaml:1" {
				t.Errorf("%+v", g)
			}
		}
		if found, err := kept.Find(rev[:8]); err != nil || found != rev {
			t.Errorf("%s %v", found, err)
		}
	}
	if _, err := kept.Load(t.Context(), "0123456789ab", Options{}); !errors.Is(err, ErrNoRevision) {
		t.Errorf("%v", err)
	}
}

// TestRevisionsShareParts: one more grant among many costs a run of grants and a manifest, not all again.
func TestRevisionsShareParts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "revisions")
	kept := NewRevisions(dir, RevisionBounds{})
	grants := manyGrants(5000)
	e, err := New(t.Context(), Options{Revisions: kept}, Data{Grants: grants})
	if err != nil {
		t.Fatal(err)
	}
	first := countFiles(t, dir+"/parts/*")
	more := append(manyGrants(5000), exitgate.Grant{ID: "one-more", Class: "app", To: "x.example.com", Reason: "r"})
	if _, err := e.Reload(t.Context(), Data{Grants: more}); err != nil {
		t.Fatal(err)
	}
	if now := countFiles(t, dir+"/parts/*"); now > first+2 || first < 10 {
		t.Errorf("%d parts, then %d", first, now)
	}
	if n := countFiles(t, dir+"/.new-*") + countFiles(t, dir+"/parts/.new-*"); n > 0 {
		t.Errorf("%d files are left behind", n)
	}
}

// TestRevisionsAreBounded: the oldest are forgotten with the parts that are theirs alone, and the newest never is.
func TestRevisionsAreBounded(t *testing.T) {
	for _, b := range []RevisionBounds{{Count: 3}, {Bytes: 1}} {
		dir := filepath.Join(t.TempDir(), "revisions")
		kept := NewRevisions(dir, b)
		want := max(b.Count-1, 1) // after the sixth: the fourth made room
		var last string
		for i := range 6 {
			s, err := load("", Data{Grants: []exitgate.Grant{{ID: fmt.Sprint("g", i), Class: "app", To: "x.example.com", Reason: "r"}}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := kept.put(s, day0.Add(time.Duration(i)*time.Hour)); err != nil {
				t.Fatal(err)
			}
			last = s.revision
		}
		all, err := kept.List()
		if err != nil || len(all) != want || all[0].Revision != last {
			t.Errorf("%+v: %v %v", b, all, err)
		}
		base, _ := baseFiles()
		if n := countFiles(t, dir+"/parts/*"); n != want+len(base) {
			t.Errorf("%+v: %d parts for %d revisions", b, n, want)
		}
		if _, err := kept.Load(t.Context(), last, Options{}); err != nil {
			t.Error(err)
		}
	}
}

// TestDamagedRevisions: what was changed on the disk is not loaded, and what a crash left is written again.
func TestDamagedRevisions(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "revisions")
	d := Data{Grants: []exitgate.Grant{{ID: "g", Class: "app", To: "x.example.com", Reason: "r"}}}
	e, err := New(t.Context(), Options{Revisions: NewRevisions(dir, RevisionBounds{})}, d)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, e.Revision()+".json")
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	parts, _ := filepath.Glob(dir + "/parts/*")
	first, err := os.ReadFile(parts[0])
	if err != nil {
		t.Fatal(err)
	}
	for what, damage := range map[string]func(){
		"unexpected end": func() { write(t, dir, e.Revision()+".json", string(whole[:40])) },
		"names another": func() {
			write(t, dir, e.Revision()+".json", strings.Replace(string(whole), e.Revision(), "000000000000", 1))
		},
		"makes revision": func() {
			write(t, dir, e.Revision()+".json", strings.Replace(string(whole), `"audit":null`, `"audit":["app"]`, 1))
		},
		"names no part": func() {
			write(t, dir, e.Revision()+".json", strings.Replace(string(whole), `"part":"`, `"part":"../`, 1))
		},
		"is damaged":      func() { os.WriteFile(parts[0], first[:len(first)/2], 0o600) },
		"damaged: unexpe": func() { os.WriteFile(parts[0], first[:5], 0o600) },
	} {
		damage()
		if _, err := NewRevisions(dir, RevisionBounds{}).Load(t.Context(), e.Revision(), Options{}); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
		os.WriteFile(name, whole, 0o600)
		os.WriteFile(parts[0], first, 0o600)
	}
	os.WriteFile(parts[0], nil, 0o600)
	e, err = New(t.Context(), Options{Revisions: NewRevisions(dir, RevisionBounds{})}, d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewRevisions(dir, RevisionBounds{}).Load(t.Context(), e.Revision(), Options{}); err != nil {
		t.Error(err)
	}
}

// TestRevisionsThatCannotBeKept: the policy is loaded all the same.
func TestRevisionsThatCannotBeKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, filepath.Dir(file), "file", "in the way")
	e, err := New(t.Context(), Options{Revisions: NewRevisions(file, RevisionBounds{})}, Data{})
	if err != nil || e.Revision() == "" {
		t.Error(err)
	}
}
