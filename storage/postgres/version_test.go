package postgres_test

import (
	"strings"
	"testing"

	"github.com/exitgate/exitgate/storage/postgres"
	"github.com/exitgate/exitgate/storage/postgres/pgtest"
)

// TestVersion looks before and after the tables were made, and makes none.
func TestVersion(t *testing.T) {
	c := pgtest.New(t, "fsync=off")
	url := c.Database(t)
	for range 2 {
		if have, known, err := postgres.Version(t.Context(), url); have != 0 || known == 0 || err != nil {
			t.Errorf("before: %d of %d, %v", have, known, err)
		}
	}
	s := openAt(t, url)
	defer s.Close()
	if have, known, err := postgres.Version(t.Context(), url); have != known || err != nil {
		t.Errorf("after: %d of %d, %v", have, known, err)
	}
	if _, _, err := postgres.Version(t.Context(), "postgres://me:hunter2@127.0.0.1:1/none"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("nobody there: %v", err)
	}
}
