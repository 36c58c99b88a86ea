package policy

import "testing"

func TestBasePolicy(t *testing.T) {
	results, err := Test(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if !r.Passed {
			t.Errorf("%s: %s: %s\n%s", r.Place, r.Name, r.Why, r.Output)
		}
	}
	if len(results) < 20 {
		t.Errorf("only %d tests ran", len(results))
	}
}
