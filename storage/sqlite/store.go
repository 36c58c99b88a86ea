package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // registers the driver "sqlite"

	"github.com/exitgate/exitgate/storage"
)

//go:embed migrations/*.sql
var migrations embed.FS

// readers is how many searches run at once. More only wait for the same disk. The ledger has connections of its own,
// which searches do not hold up.
const readers, ledgerReaders = 4, 2

// busyTimeout bounds how long a call waits for another process that holds the file.
const busyTimeout = 10 * time.Second

type store struct {
	path   string
	write  *sql.DB // one connection
	read   *sql.DB
	ledger *sql.DB // reads documents, the audit trail, uses and keys
	insert insert
}

// Open opens the database in the file at path, which it makes (0600) if it is not there, and brings its schema up to
// date. The folder must exist. It fails when the schema is newer than this program.
func Open(ctx context.Context, path string) (storage.Store, error) {
	s, err := open(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("open the SQLite store %s: %w", path, err)
	}
	return s, nil
}

func open(ctx context.Context, path string) (*store, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) // its log files inherit the mode
	if err != nil {
		return nil, err
	}
	f.Close()
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	s := &store{path: path}
	if s.write, err = connect(abs, 1, "page_size(16384)", "journal_mode(WAL)", "synchronous(FULL)", "wal_autocheckpoint(4000)", "cache_size(-32768)"); err != nil {
		return nil, err
	}
	if s.read, err = connect(abs, readers, "query_only(1)"); err != nil {
		return nil, errors.Join(err, s.write.Close())
	}
	if s.ledger, err = connect(abs, ledgerReaders, "query_only(1)"); err != nil {
		return nil, errors.Join(err, s.read.Close(), s.write.Close())
	}
	if err = s.migrate(ctx); err == nil {
		s.insert, err = prepare(ctx, s.write)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func connect(path string, conns int, pragmas ...string) (*sql.DB, error) {
	q := url.Values{"_txlock": {"immediate"}}
	q.Add("_pragma", fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()))
	for _, p := range pragmas {
		q.Add("_pragma", p)
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// migrate brings the schema up to date, each change in a transaction of its own with its new version.
func (s *store) migrate(ctx context.Context) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	all, err := storage.Migrations(dir)
	if err != nil {
		return err
	}
	var have int
	if err := s.write.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return err
	}
	if err := storage.CheckVersion(have, len(all)); err != nil {
		return err
	}
	for v := have; v < len(all); v++ {
		if err := s.step(ctx, v, all[v]); err != nil {
			return fmt.Errorf("bring its schema to version %d: %w", v+1, err)
		}
	}
	return nil
}

// step applies the change from version v, unless another process has done it meanwhile.
func (s *store) step(ctx context.Context, v int, change string) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		var have int
		if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil || have > v {
			return err
		}
		if _, err := tx.ExecContext(ctx, change); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", v+1))
		return err
	})
}

// tx runs f in a transaction that writes.
func (s *store) tx(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		tx.Rollback() // its error adds nothing to err
		return err
	}
	return tx.Commit()
}

func (s *store) Ping(ctx context.Context) error {
	var one int
	if err := s.read.QueryRowContext(ctx, "SELECT 1 FROM flow LIMIT 1").Scan(&one); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("ask the SQLite store %s: %w", s.path, err)
	}
	return nil
}

func (s *store) Close() error {
	return errors.Join(s.insert.close(), s.read.Close(), s.ledger.Close(), s.write.Close())
}
