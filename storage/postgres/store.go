package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/exitgate/exitgate/storage"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Options are how a store uses its database. The zero value of each field means its default.
type Options struct {
	Writers      int32         // connections that write; 4
	Readers      int32         // connections that search; 8
	Ledger       int32         // connections for the ledger, uses and keys, which neither writers nor searches hold up; 4
	QueryTimeout time.Duration // for one search, kept by the server (statement_timeout); 30 s
}

func (o Options) withDefaults() Options {
	if o.Writers <= 0 {
		o.Writers = 4
	}
	if o.Readers <= 0 {
		o.Readers = 8
	}
	if o.Ledger <= 0 {
		o.Ledger = 4
	}
	if o.QueryTimeout <= 0 {
		o.QueryTimeout = 30 * time.Second
	}
	return o
}

type store struct {
	ledger *pgxpool.Pool // for all that is not a flow

	write, read *pgxpool.Pool
	columns     []storage.Column
	begin       int    // of columns: when a flow began
	copyIn      string // into the temporary table
	insert      string // from there into flows

	mu   sync.Mutex
	days map[day]bool // that have a partition, or never will
}

// Open connects to the database of url (postgres://user:password@host:port/database, or key=value words), and brings
// its schema up to date. It fails when the database does not answer, is not in UTF-8, or is newer than this program.
func Open(ctx context.Context, url string, o Options) (storage.Store, error) {
	s, err := open(ctx, url, o.withDefaults())
	if err != nil {
		return nil, fmt.Errorf("open the Postgres store: %w", err)
	}
	return s, nil
}

func open(ctx context.Context, url string, o Options) (*store, error) {
	s := &store{days: make(map[day]bool), columns: storage.Columns()}
	s.copyIn, s.insert = statements(s.columns)
	s.begin = slices.IndexFunc(s.columns, func(c storage.Column) bool { return c.Name == "begin" })
	var err error
	if s.write, err = connect(ctx, url, o.Writers, 0, useLZ4); err != nil {
		return nil, err
	}
	if s.read, err = connect(ctx, url, o.Readers, o.QueryTimeout, useLZ4); err != nil {
		s.write.Close()
		return nil, err
	}
	if s.ledger, err = connect(ctx, url, o.Ledger, 0, syncCommits); err != nil {
		s.read.Close()
		s.write.Close()
		return nil, err
	}
	if err = s.check(ctx); err == nil {
		err = s.migrate(ctx)
	}
	if err == nil {
		err = s.makeDays(ctx, ahead(time.Now()))
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// connect makes a pool, each of whose connections begins with setup.
func connect(ctx context.Context, url string, conns int32, timeout time.Duration, setup func(context.Context, *pgx.Conn) error) (*pgxpool.Pool, error) {
	c, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("read the database URL: %s", redact(err))
	}
	c.MaxConns = conns
	c.ConnConfig.ConnectTimeout = 5 * time.Second
	c.ConnConfig.RuntimeParams["application_name"] = "exitgate"
	c.ConnConfig.RuntimeParams["timezone"] = "UTC"
	if timeout > 0 {
		c.ConnConfig.RuntimeParams["statement_timeout"] = strconv.FormatInt(timeout.Milliseconds(), 10)
		c.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on"
	}
	if strings.Contains(c.ConnConfig.Host, "@") { // or a part of the password would be looked up as a host, and printed
		return nil, errors.New("read the database URL: its host has an @ in it (percent-encode what is special in the password)")
	}
	c.AfterConnect = setup
	return pgxpool.NewWithConfig(ctx, c)
}

// useLZ4 makes the server compress with lz4 where it can: its old default costs several times as much, for each flow.
func useLZ4(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, `SELECT set_config(name, 'lz4', false) FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY(enumvals)`)
	return err
}

// syncCommits makes a commit wait for the disk where the server would not: who turned that off did it for the flows, and a
// token that is good once must not be good again after a crash.
func syncCommits(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, `SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'`)
	return err
}

// redact returns what is wrong with a URL without the URL: its password may stand where a parser did not find it.
func redact(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		return "it is not a URL of the form postgres://user:password@host:port/database (percent-encode what is special in the password)"
	}
	if cause := errors.Unwrap(err); cause != nil {
		err = cause
	}
	text := regexp.MustCompile(`\S*://\S*|\S*@\S*|(?i)pass\w*\s*=\s*('[^']*'?|\S*)`).ReplaceAllString(err.Error(), "...")
	return storage.Printable(text, 200)
}

func (s *store) check(ctx context.Context) error {
	var encoding string
	if err := s.write.QueryRow(ctx, "SHOW server_encoding").Scan(&encoding); err != nil {
		return err
	}
	if encoding != "UTF8" {
		return fmt.Errorf("the database is encoded in %s; make one with ENCODING 'UTF8' TEMPLATE template0", encoding)
	}
	return nil
}

// lockKey is the advisory lock under which gateways that share a database change its schema.
const lockKey = 0x65786974 // "exit"

// migrate brings the schema up to date, in one transaction.
func (s *store) migrate(ctx context.Context) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	all, err := storage.Migrations(dir)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, s.write, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", lockKey); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `CREATE TABLE IF NOT EXISTS exitgate_schema ("version" integer PRIMARY KEY, "at" timestamptz NOT NULL)`); err != nil {
			return err
		}
		var have int
		if err := tx.QueryRow(ctx, `SELECT coalesce(max("version"), 0) FROM exitgate_schema`).Scan(&have); err != nil {
			return err
		}
		if err := storage.CheckVersion(have, len(all)); err != nil {
			return err
		}
		for v := have; v < len(all); v++ {
			if _, err := tx.Exec(ctx, all[v]); err != nil {
				return fmt.Errorf("bring its schema to version %d: %w", v+1, err)
			}
			if _, err := tx.Exec(ctx, `INSERT INTO exitgate_schema VALUES ($1, now())`, v+1); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *store) Ping(ctx context.Context) error {
	if err := s.write.Ping(ctx); err != nil {
		return fmt.Errorf("ask the Postgres store: %w", err)
	}
	return nil
}

func (s *store) Close() error {
	s.read.Close()
	s.ledger.Close()
	s.write.Close()
	return nil
}
