package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/exitgate/exitgate/storage"
)

// Version returns the version of the schema that the database of url has (0: none yet), and the one that Open would bring
// it to. It changes nothing.
func Version(ctx context.Context, url string) (have, known int, err error) {
	have, known, err = version(ctx, url)
	if err != nil {
		err = fmt.Errorf("look at the Postgres store: %w", err)
	}
	return have, known, err
}

func version(ctx context.Context, url string) (have, known int, err error) {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return 0, 0, err
	}
	all, err := storage.Migrations(dir)
	if err != nil {
		return 0, 0, err
	}
	s := &store{}
	if s.write, err = connect(ctx, url, 1, 0, nil); err != nil {
		return 0, len(all), err
	}
	defer s.write.Close()
	if err := s.check(ctx); err != nil {
		return 0, len(all), err
	}
	err = pgx.BeginTxFunc(ctx, s.write, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `SELECT coalesce(max("version"), 0) FROM exitgate_schema`).Scan(&have)
	})
	if pg := new(pgconn.PgError); errors.As(err, &pg) && pg.Code == "42P01" { // undefined_table
		return 0, len(all), nil
	}
	if err != nil {
		return 0, len(all), err
	}
	return have, len(all), storage.CheckVersion(have, len(all))
}
