// Package pgtest starts throwaway Postgres servers for tests: one cluster in a temporary folder, reachable only through a
// Unix socket in it, gone when the test is over, and with the test process when that dies first. A machine without
// Postgres fails the test and does not skip it, since `make test` installs Postgres. It is for tests only.
package pgtest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A Cluster is a running server.
type Cluster struct {
	dir  string // holds data and the socket
	bin  string
	cred *syscall.Credential // nil: ours

	cmd       *exec.Cmd
	exited    chan struct{}
	databases atomic.Int32
}

// New starts a server with its default settings and the given ones ("fsync=off").
func New(t testing.TB, settings ...string) *Cluster {
	t.Helper()
	c := &Cluster{bin: binaries(t), cred: credential(t)}
	var err error
	if c.dir, err = os.MkdirTemp("", "pgtest"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(c.dir) })
	if c.cred != nil {
		if err := os.Chown(c.dir, int(c.cred.Uid), int(c.cred.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	init := c.command("initdb", "--no-sync", "--auth=trust", "--username=test", "--encoding=UTF8", "--locale=C.UTF-8", "--pgdata="+c.data())
	if out, err := init.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	conf := "listen_addresses = ''\nunix_socket_directories = '" + c.dir + "'\nmax_connections = 60\n" + strings.Join(settings, "\n") + "\n"
	if err := os.WriteFile(filepath.Join(c.data(), "postgresql.auto.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	c.Start(t)
	t.Cleanup(func() { c.Stop(t, syscall.SIGQUIT) })
	return c
}

// binaries returns the folder of initdb and postgres.
func binaries(t testing.TB) string {
	t.Helper()
	candidates, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if path, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil { // postgres stands beside the real one
			candidates = append(candidates, real)
		}
	}
	if len(candidates) == 0 {
		t.Fatal("there is no initdb on PATH or in /usr/lib/postgresql/*/bin: `make test` installs Postgres")
	}
	return filepath.Dir(candidates[len(candidates)-1])
}

// credential is whom the server runs as: it refuses to run as root.
func credential(t testing.TB) *syscall.Credential {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatalf("tests that run as root start Postgres as user postgres: %v: `make test` installs Postgres", err)
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

func (c *Cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PGOPTIONS=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.cred, Pdeathsig: syscall.SIGQUIT}
	return cmd
}

// Start starts the server again after Stop, and returns when it takes connections.
func (c *Cluster) Start(t testing.TB) {
	t.Helper()
	cmd := c.command("postgres", "-D", c.data())
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready, exited := make(chan bool, 1), make(chan struct{})
	var said strings.Builder
	go func() {
		defer close(exited)
		lines := bufio.NewScanner(log)
		up := false
		for !up && lines.Scan() {
			fmt.Fprintln(&said, lines.Text())
			up = strings.Contains(lines.Text(), "ready to accept connections")
		}
		ready <- up
		io.Copy(io.Discard, log)
		cmd.Wait()
	}()
	c.cmd, c.exited = cmd, exited
	if !<-ready {
		t.Fatalf("postgres did not start:\n%s", said.String())
	}
}

// Stop ends the server and waits until it is gone: SIGINT disconnects the clients, SIGQUIT is a crash.
func (c *Cluster) Stop(t testing.TB, how syscall.Signal) {
	t.Helper()
	c.Signal(how)
	<-c.exited
}

// Hang stops every process of the server in its tracks, until Resume.
func (c *Cluster) Hang(t testing.TB) { c.all(t, syscall.SIGSTOP) }

// Resume lets a server that hangs go on.
func (c *Cluster) Resume(t testing.TB) { c.all(t, syscall.SIGCONT) }

// all signals the server and the processes that it has forked.
func (c *Cluster) all(t testing.TB, how syscall.Signal) {
	t.Helper()
	pid := c.cmd.Process.Pid
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, child := range strings.Fields(string(children)) {
		if n, err := strconv.Atoi(child); err == nil {
			syscall.Kill(n, how) // one that is gone need not be stopped
		}
	}
	c.Signal(how)
}

// Signal sends a signal to the server; one that has ended does not mind.
func (c *Cluster) Signal(s syscall.Signal) { c.cmd.Process.Signal(s) }

// Database makes an empty database and returns its URL.
func (c *Cluster) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test%d", c.databases.Add(1))
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, c.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return c.URL(name)
}

// URL returns the URL of a database.
func (c *Cluster) URL(database string) string {
	return "postgres://test@/" + database + "?host=" + url.QueryEscape(c.dir)
}
