package sqlite

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestVersion reads what Open wrote, and leaves the folder as it was.
func TestVersion(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "flows.db")
	if _, known, err := Version(t.Context(), path); !errors.Is(err, fs.ErrNotExist) || known == 0 {
		t.Errorf("nothing there: %d, %v", known, err)
	}
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if have, known, err := Version(t.Context(), path); have != known || err != nil { // it is in the log alone
		t.Errorf("while it is open: %d of %d, %v", have, known, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadDir(dir)
	have, known, err := Version(t.Context(), path)
	if after, _ := os.ReadDir(dir); err != nil || have != known || len(before) != len(after) {
		t.Errorf("%d of %d, %v; %v became %v", have, known, err, before, after)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func() []byte{
		"newer":     func() []byte { c := append([]byte(nil), b...); c[63] = 99; return c },
		"cut":       func() []byte { return b[:50] },
		"something": func() []byte { return append([]byte("else"), b...) },
	} {
		if err := os.WriteFile(path, change(), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Version(t.Context(), path); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if have, _, err := Version(t.Context(), path); have != 0 || err != nil {
		t.Errorf("empty: %d %v", have, err)
	}
}
