package postgres_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/exitgate/exitgate/storage"
	"github.com/exitgate/exitgate/storage/postgres/pgtest"
	"github.com/exitgate/exitgate/storage/storagetest"
)

// fromVersion1 opens a database that was made before there was a ledger.
func fromVersion1(t *testing.T, c *pgtest.Cluster) {
	url := c.Database(t)
	schema, err := os.ReadFile("migrations/0001_flows.sql")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), statement, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(string(schema))
	exec(`CREATE TABLE exitgate_schema ("version" integer PRIMARY KEY, "at" timestamptz NOT NULL)`)
	exec(`INSERT INTO exitgate_schema VALUES (1, now())`)
	storagetest.BeforeLedger(t, "now()", exec)
	s := openAt(t, url)
	defer s.Close()
	storagetest.AfterLedger(t, s)
}

// childOf names the database of the process that TestRedeemer is, when it is one.
const childOf = "EXITGATE_TEST_REDEEM"

// twoProcesses has another process redeem the same tokens at the same time: each is good once.
func twoProcesses(t *testing.T, c *pgtest.Cluster) {
	const tokens = 40
	url := c.Database(t)
	s := openAt(t, url)
	defer s.Close()
	storagetest.Tokens(t, s, tokens)
	child := osexec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRedeemer$")
	child.Env = append(os.Environ(), childOf+"="+url)
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewScanner(out)
	if !answers.Scan() || answers.Text() != "ready" {
		t.Fatalf("the other process said %q", answers.Text())
	}
	for i := range tokens {
		id := fmt.Sprint("t", i)
		fmt.Fprintln(in, id)
		mine, err := storagetest.Redeem(t.Context(), s, id)
		if err != nil || !answers.Scan() || (answers.Text() == "true") == mine {
			t.Errorf("%s was redeemed here: %v (%v), there: %s", id, mine, err, answers.Text())
		}
	}
	in.Close()
	io.Copy(io.Discard, out)
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
}

// TestRedeemer is the other process of twoProcesses: it redeems each token that it reads the name of, and says whether
// it could.
func TestRedeemer(t *testing.T) {
	url := os.Getenv(childOf)
	if url == "" {
		return // there is nobody to be the other of
	}
	s := openAt(t, url)
	defer s.Close()
	if _, err := s.Revision(t.Context()); err != nil { // so that it is connected when the race begins
		t.Fatal(err)
	}
	fmt.Println("ready")
	for names := bufio.NewScanner(os.Stdin); names.Scan(); {
		ok, err := storagetest.Redeem(t.Context(), s, names.Text())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(ok)
	}
}

// changesAreSynced: changes, keys and uses wait for the disk where flows do not, and for no less than the server says.
func changesAreSynced(t *testing.T, c *pgtest.Cluster) {
	for setting, want := range map[string]string{"off": "on", "remote_apply": "remote_apply"} {
		url := c.Database(t)
		openAt(t, url).Close()
		exec(t, url, `CREATE TABLE noted (setting text);
			CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
				INSERT INTO noted VALUES (current_setting('synchronous_commit')); RETURN NEW;
			END $$;
			CREATE TRIGGER note BEFORE INSERT ON documents FOR EACH ROW EXECUTE FUNCTION note();
			CREATE TRIGGER note BEFORE INSERT ON kv FOR EACH ROW EXECUTE FUNCTION note();
			CREATE TRIGGER note BEFORE INSERT ON uses FOR EACH ROW EXECUTE FUNCTION note();
			DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = `+setting+`', current_database()); END $$`)
		s := openAt(t, url)
		defer s.Close()
		_, err := s.Apply(t.Context(), storage.Change{Who: "ada", Reason: "why"}, storage.Edit{Kind: "host", ID: "h", Value: []byte(`{}`)})
		_, _, swapErr := s.KV().CompareAndSwap(t.Context(), "used", []byte("k"), nil, []byte("v"))
		useErr := s.Used(t.Context(), []storage.Use{{Kind: "host", ID: "h"}})
		if err := errors.Join(err, swapErr, useErr); err != nil {
			t.Fatal(err)
		}
		if n := count(t, url, `SELECT count(*) FROM noted WHERE setting = '`+want+`'`); n != 3 {
			t.Errorf("where the server says %s, %d of 3 changes were made with %s", setting, n, want)
		}
	}
}
