package postgres_test

import (
	"testing"

	"github.com/exitgate/exitgate/storage"
	"github.com/exitgate/exitgate/storage/postgres"
	"github.com/exitgate/exitgate/storage/postgres/pgtest"
	"github.com/exitgate/exitgate/storage/storagetest"
)

func open(t testing.TB, c *pgtest.Cluster) storage.Store { return openAt(t, c.Database(t)) }

func openAt(t testing.TB, url string) storage.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), url, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	c := pgtest.New(t, "fsync=off")
	storagetest.Test(t, func(t *testing.T) storage.Store { return open(t, c) })
}

func TestShared(t *testing.T) {
	c := pgtest.New(t, "fsync=off", "deadlock_timeout=200ms")
	storagetest.TestShared(t, func(t *testing.T) func() storage.Store {
		url := c.Database(t)
		return func() storage.Store { return openAt(t, url) }
	})
}
