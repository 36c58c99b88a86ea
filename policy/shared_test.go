package policy

import (
	"fmt"
	"testing"

	"github.com/exitgate/exitgate"
)

// TestAnswersAreShared wants one answer for questions that differ only in what the base policy cannot tell apart.
func TestAnswersAreShared(t *testing.T) {
	e, err := New(t.Context(), Options{}, Data{Grants: []exitgate.Grant{
		{ID: "g", Class: "app", To: "a.example.com", Paths: []string{"/v1/", "/x/*/y"}, Headers: map[string]string{"x-a": "1"}, Reason: "r"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	s := e.current.Load()
	for i := range 100 {
		path := fmt.Sprintf("/v1/users/%d", i)
		a := testAsk{Ask: fmt.Sprintf("GET https://a.example.com%s?q=%d", path, i), Host: fmt.Sprintf("web%d", i), At: day0.Add(day * 1), Headers: map[string][]string{"x-a": {"1"}, "x-id": {path}}}
		q := a.question(t)
		q.HTTP.Length = int64(i)
		if v, err := e.Decide(t.Context(), q); err != nil || v.Action != exitgate.Allow {
			t.Fatal(v, err)
		}
	}
	if n := s.kept.size(); n != 1 {
		t.Errorf("%d answers are kept for 100 questions that cannot be told apart", n)
	}
}
