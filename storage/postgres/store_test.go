package postgres_test

import (
	"testing"

	"github.com/exitgate/exitgate/storage"
	"github.com/exitgate/exitgate/storage/postgres"
	"github.com/exitgate/exitgate/storage/postgres/pgtest"
	"github.com/exitgate/exitgate/storage/storagetest"
)

func open(t testing.TB, c *pgtest.Cluster) storage.Store {
	s, err := postgres.Open(t.Context(), c.Database(t), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	c := pgtest.New(t, "fsync=off")
	storagetest.Test(t, func(t *testing.T) storage.Store { return open(t, c) })
}
