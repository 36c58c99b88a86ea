package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage"
	"github.com/exitgate/exitgate/storage/journal"
	"github.com/exitgate/exitgate/storage/postgres"
	"github.com/exitgate/exitgate/storage/postgres/pgtest"
	"github.com/exitgate/exitgate/storage/storagetest"
)

func exec(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, url, sql string) (n int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestDatabase(t *testing.T) {
	c := pgtest.New(t, "fsync=off")

	t.Run("Columns", func(t *testing.T) {
		url := c.Database(t)
		s, err := postgres.Open(t.Context(), url, postgres.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := storage.WriteFlows(t.Context(), s, append(storagetest.Every(), storagetest.Poison()...)); err != nil {
			t.Fatal(err)
		}
		full := storagetest.Full()
		if err := storage.WriteFlows(t.Context(), s, []*exitgate.Flow{full}); err != nil {
			t.Fatal(err)
		}
		n := count(t, url, fmt.Sprintf(`SELECT count(*) FROM flows WHERE "id" = '%s' AND "host" = 'web-01' AND "source_addr" << 'fe80::/10'
			AND "dialled_addr" = '198.51.100.7' AND "dialled_port" = 443 AND "wait_us" = 20000 AND "status" = 200 AND "audit"
			AND "request_headers"::jsonb ->> 'accept' LIKE '%%json%%' AND "begin" = '2026-03-04 05:06:07.891234+00'
			AND convert_from("question", 'UTF8')::jsonb #>> '{dest,host}' = 'api.example.com'`, full.ID))
		if n != 1 {
			t.Errorf("%d rows have the columns of the flow", n)
		}
	})
	t.Run("Partitions", func(t *testing.T) { partitions(t, c) })
	t.Run("FromVersion1", func(t *testing.T) { fromVersion1(t, c) })
	t.Run("ChangesAreSynced", func(t *testing.T) { changesAreSynced(t, c) })
	t.Run("TwoProcesses", func(t *testing.T) { twoProcesses(t, c) })
	t.Run("NewerSchema", func(t *testing.T) {
		url := c.Database(t)
		s, err := postgres.Open(t.Context(), url, postgres.Options{})
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		exec(t, url, `INSERT INTO exitgate_schema VALUES (99, now())`)
		_, err = postgres.Open(t.Context(), url, postgres.Options{})
		if err == nil || !strings.Contains(err.Error(), "version 99") {
			t.Errorf("%v", err)
		}
	})
	t.Run("ManyOpenAtOnce", func(t *testing.T) {
		url := c.Database(t)
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				s, err := postgres.Open(t.Context(), url, postgres.Options{Writers: 2, Readers: 2})
				if err != nil {
					t.Error(err)
					return
				}
				defer s.Close()
				if err := storage.WriteFlows(t.Context(), s, storagetest.Random(20)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := count(t, url, `SELECT count(*) FROM flows`); n != 120 {
			t.Errorf("%d flows, want 120", n)
		}
	})
	t.Run("QueryTimeout", func(t *testing.T) {
		s, err := postgres.Open(t.Context(), c.Database(t), postgres.Options{QueryTimeout: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		var flows []*exitgate.Flow
		for range 200 {
			flows = append(flows, storagetest.Random(100)...)
		}
		if err := storage.WriteFlows(t.Context(), s, flows); err != nil {
			t.Fatal(err)
		}
		f, err := storage.ParseQuery("nothing -has this -in it")
		if err != nil {
			t.Fatal(err)
		}
		if _, err = s.Flows(t.Context(), f); err == nil || !strings.Contains(err.Error(), "57014") {
			t.Errorf("a query that takes too long: %v", err)
		}
	})
	t.Run("AuditIsKept", func(t *testing.T) {
		url := c.Database(t)
		s, err := postgres.Open(t.Context(), url, postgres.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		for _, sql := range []string{"DELETE FROM audit", "UPDATE audit SET who = ''", "TRUNCATE audit"} {
			if _, err := conn.Exec(t.Context(), sql); err == nil {
				t.Errorf("%s was allowed", sql)
			}
		}
	})
}

// partitions wants a table for each day, also for a late flow, and none for a day that is absurd.
func partitions(t *testing.T, c *pgtest.Cluster) {
	url := c.Database(t)
	s, err := postgres.Open(t.Context(), url, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	tables := func() int {
		return count(t, url, `SELECT count(*) FROM pg_inherits WHERE inhparent = 'flows'::regclass`)
	}
	if n := tables(); n != 9 { // today, a week, and flows_other
		t.Errorf("%d partitions in an empty store, want 9", n)
	}
	now := time.Now().UTC()
	var flows []*exitgate.Flow
	for _, at := range []time.Time{now, now.AddDate(0, 0, -40), now.AddDate(0, 0, -39), now.AddDate(-30, 0, 0), now.AddDate(30, 0, 0), {}} {
		_, f := storagetest.Typical()
		f.Begin, f.ID = at, exitgate.NewID(at)
		flows = append(flows, f)
	}
	if err := storage.WriteFlows(t.Context(), s, flows); err != nil {
		t.Fatal(err)
	}
	if n := tables(); n != 11 {
		t.Errorf("%d partitions, want 11", n)
	}
	if n := count(t, url, `SELECT count(*) FROM flows_other`); n != 3 {
		t.Errorf("%d flows in flows_other, want 3", n)
	}
	// A day whose flows already lie in flows_other cannot get a partition, and its flows must be stored all the same.
	day := now.AddDate(0, 0, -50)
	exec(t, url, fmt.Sprintf(`UPDATE flows SET "begin" = '%s' WHERE "begin" < '1000-01-01'`, day.Format(time.RFC3339)))
	_, late := storagetest.Typical()
	late.Begin, late.ID = day, exitgate.NewID(day)
	if err := storage.WriteFlows(t.Context(), s, []*exitgate.Flow{late}); err != nil {
		t.Fatal(err)
	}
}

// TestPasswordIsNotPrinted opens stores by URLs that are wrong in many ways.
func TestPasswordIsNotPrinted(t *testing.T) {
	const secret = "hunter2"
	for _, url := range []string{
		"postgres://u:hunter2@127.0.0.1:1/db", "postgres://u:hunter2@127.0.0.1:port/db", "postgres://u:hunter2@[::1/db", "postgres://u:hun%zzhunter2@h/db",
		"postgres://u:a hunter2@127.0.0.1:1/db", "postgres://u:a/hunter2@127.0.0.1:1/db", "postgres://u:a#hunter2@127.0.0.1:1/db", "postgres://u:a?hunter2@127.0.0.1:1/db", "postgres://u:a@hunter2@127.0.0.1:1/db",
		"host=127.0.0.1 port=1 password=hunter2 user", "host=127.0.0.1 port=x password='hunter2'", "host=127.0.0.1 port=1 password='hunter2", "password = hunter2 port=zz", "host=127.0.0.1 port=1 user=u password=hunter2 sslmode=nonsense",
		"postgres://u:hunter2@127.0.0.1:1/db?sslmode=nonsense", "postgres://u:hunter2@127.0.0.1:1/db?connect_timeout=x", "postgres://u@127.0.0.1:1/db?password=hunter2&pool_max_conns=x",
	} {
		_, err := postgres.Open(t.Context(), url, postgres.Options{})
		if err == nil {
			t.Errorf("%s: was opened", url)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error has the password: %v", url, err)
		}
	}
}

// TestServerDies crashes the server four times while flows are recorded, and hangs it once. No flow is lost, none is
// there twice, and the data path never waits.
func TestServerDies(t *testing.T) {
	c := pgtest.New(t)
	url := c.Database(t)
	s, err := postgres.Open(t.Context(), url, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	j, err := journal.Open(t.Context(), t.TempDir(), s, journal.Options{
		Batch: 200, FlushEvery: 5 * time.Millisecond, WriteTimeout: 2 * time.Second, MaxBackoff: 200 * time.Millisecond,
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	pace := time.NewTicker(5 * time.Millisecond) // so that the test ends soon on a slow disk
	defer pace.Stop()
	stored := func(atLeast int64) { // waits until the store took that many more
		for from := j.Stats().Stored; j.Stats().Stored < from+atLeast; {
			if j.Stats().Waiting < 2000 {
				pass(t, j, 20)
			}
			<-pace.C
		}
	}
	total := func() int64 { st := j.Stats(); return st.Stored + st.Waiting }
	for range 4 {
		stored(1000)
		c.Stop(t, syscall.SIGQUIT)
		for before := j.Stats().StoreErrors; j.Stats().StoreErrors < before+2; {
			if j.Stats().Waiting < 2000 {
				pass(t, j, 20)
			}
			<-pace.C
		}
		c.Start(t)
	}
	stored(500)
	want := total()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := j.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if n := count(t, url, `SELECT count(*) FROM flows`); int64(n) != want {
		t.Errorf("%d rows for %d flows", n, want)
	}
	if n := count(t, url, `SELECT count(DISTINCT "id") FROM flows WHERE "end" IS NOT NULL`); int64(n) != want {
		t.Errorf("%d ended flows, want %d", n, want)
	}
}

func pass(t *testing.T, j *journal.Journal, n int) {
	t.Helper()
	for range n {
		begun, ended := storagetest.Typical()
		begun.Begin = time.Now().UTC()
		begun.ID = exitgate.NewID(begun.Begin)
		ended.Begin, ended.ID = begun.Begin, begun.ID
		if err := j.Begin(t.Context(), begun); err != nil {
			t.Fatal(err)
		}
		if err := j.End(t.Context(), ended); err != nil {
			t.Fatal(err)
		}
	}
}

// TestServerHangs stops the server's processes in their tracks: a write gives up when its context is done.
func TestServerHangs(t *testing.T) {
	c := pgtest.New(t, "fsync=off")
	s, err := postgres.Open(t.Context(), c.Database(t), postgres.Options{Writers: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	flows := storagetest.Random(5)
	if err := storage.WriteFlows(t.Context(), s, flows[:1]); err != nil {
		t.Fatal(err)
	}
	c.Hang(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := storage.WriteFlows(ctx, s, flows); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("write to a server that hangs: %v", err)
	}
	c.Resume(t)
	if err := storage.WriteFlows(t.Context(), s, flows); err != nil {
		t.Error(err)
	}
	if got, err := s.Flows(t.Context(), storage.Filter{}); err != nil || len(got) != 5 {
		t.Errorf("%d flows, %v", len(got), err)
	}
}

func BenchmarkWriteFlows(b *testing.B) {
	storagetest.BenchmarkWriteFlows(b, open(b, pgtest.New(b)))
}

func BenchmarkLedger(b *testing.B) {
	storagetest.BenchmarkLedger(b, open(b, pgtest.New(b)))
}
