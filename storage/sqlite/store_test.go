package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage"
	"github.com/exitgate/exitgate/storage/sqlite"
	"github.com/exitgate/exitgate/storage/storagetest"
)

func openAt(t testing.TB, path string) storage.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func open(t testing.TB) storage.Store { return openAt(t, filepath.Join(t.TempDir(), "a b?c#d%41.db")) }

func TestStore(t *testing.T) {
	storagetest.Test(t, func(t *testing.T) storage.Store { return open(t) })
}

func TestShared(t *testing.T) {
	storagetest.TestShared(t, func(t *testing.T) func() storage.Store {
		path := filepath.Join(t.TempDir(), "shared.db")
		return func() storage.Store { return openAt(t, path) }
	})
}

func BenchmarkWriteFlows(b *testing.B) { storagetest.BenchmarkWriteFlows(b, open(b)) }

func BenchmarkLedger(b *testing.B) { storagetest.BenchmarkLedger(b, open(b)) }

// raw opens the file as any other program would.
func raw(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// TestView: the view has each column of storage.Columns, but that an address and its port stand together, and the values
// are those of the flow.
func TestView(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flows.db")
	s := openAt(t, path)
	defer s.Close()
	full := storagetest.Full()
	if err := storage.WriteFlows(t.Context(), s, []*exitgate.Flow{full}); err != nil {
		t.Fatal(err)
	}
	db := raw(t, path)
	for _, c := range storage.Columns() {
		name, want := c.Name, ""
		switch {
		case strings.HasPrefix(name, "aim_"):
			name, want = "aim", full.Question.Dest.Aim.String()
		case strings.HasPrefix(name, "dialled_"):
			name, want = "dialled", full.Authority.Dialled.String()
		case name == "source_addr":
			want = full.Question.Host.Addr.String()
		case c.Kind == storage.TextColumn:
			want = c.Text(full)
		case c.Kind == storage.IntColumn:
			want = fmt.Sprint(c.Int(full))
		case c.Kind == storage.TimeColumn:
			want = fmt.Sprint(c.Time(full).UnixMicro())
		case c.Kind == storage.BoolColumn:
			want = "1"
		}
		var got string
		if err := db.QueryRow(`SELECT "` + name + `" FROM flows`).Scan(&got); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flows.db")
	_, f := storagetest.Typical()
	for range 3 {
		s := openAt(t, path)
		if err := storage.WriteFlows(t.Context(), s, []*exitgate.Flow{f}); err != nil {
			t.Fatal(err)
		}
		got, err := s.Flow(t.Context(), f.ID)
		if err != nil {
			t.Fatal(err)
		}
		storagetest.Same(t, got, f)
		for _, suffix := range []string{"", "-wal", "-shm"} {
			if info, err := os.Stat(path + suffix); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v; want mode 0600", path+suffix, info.Mode(), err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCannotOpen(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.db")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("not a database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	newer := filepath.Join(dir, "newer.db")
	openAt(t, newer).Close()
	if _, err := raw(t, newer).Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		garbage:                             "file is not a database",
		newer:                               "version 99",
		dir:                                 "is a directory",
		filepath.Join(dir, "no", "such.db"): "no such file",
	} {
		_, err := sqlite.Open(t.Context(), path)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want it to say %q", path, err, want)
		}
	}
}

// TestFromVersion1 opens a file that was made before there was a ledger.
func TestFromVersion1(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flows.db")
	schema, err := os.ReadFile("migrations/0001_flows.sql")
	if err != nil {
		t.Fatal(err)
	}
	db := raw(t, path)
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := db.Exec(statement, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(string(schema))
	exec("PRAGMA user_version = 1")
	storagetest.BeforeLedger(t, "1772600767000000", exec)
	s := openAt(t, path)
	defer s.Close()
	storagetest.AfterLedger(t, s)
}

func TestAuditIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flows.db")
	s := openAt(t, path)
	defer s.Close()
	if err := storage.PutGrant(t.Context(), s, exitgate.Grant{ID: "g"}, storage.Change{Who: "ada", Reason: "why"}); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{"DELETE FROM audit", "UPDATE audit SET who = 'eve'"} {
		if _, err := raw(t, path).Exec(statement); err == nil {
			t.Errorf("%s was allowed", statement)
		}
	}
}

// TestLockedByAnother: a process that holds the file makes a write wait, and the wait ends with the context.
func TestLockedByAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flows.db")
	s := openAt(t, path)
	defer s.Close()
	conn, err := raw(t, path).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	_, f := storagetest.Typical()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := storage.WriteFlows(ctx, s, []*exitgate.Flow{f}); err == nil {
		t.Error("a write went past a lock")
	}
	if _, err := s.Flow(t.Context(), f.ID); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("a read while the file is locked: %v", err)
	}
	if _, err := conn.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := storage.WriteFlows(t.Context(), s, []*exitgate.Flow{f}); err != nil {
		t.Errorf("after the lock was given up: %v", err)
	}
}
