package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/exitgate/exitgate/storage/postgres/pgtest"
	"github.com/exitgate/exitgate/web"
)

// TestMain lets the scripts run this very binary as exitgate, with the race detector when the tests have it.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"exitgate": main, "outside": outside})
}

// TestScripts runs the scripts in testdata/script. Besides testscript's own commands they have
//
//	origin NAME...          starts TLS origins and writes exitgate.yaml, which sends their names there
//	ready                   waits until the gateway on $EXITGATE_DATA answers; sets $PROXY, $ADMIN, $CA and $PID
//	seen PATH               waits until an origin was asked for PATH
//	release                 lets the origins answer what waits (/wait...)
//	flowid                  sets $FLOW to the flow id in the last command's output
//	certificate FILE        writes FILE.crt and FILE.key for 127.0.0.1, and FILE-ca.crt that they chain to
//	word NAME PREFIX        sets $NAME to the first word of the last command's output that begins with PREFIX
func TestScripts(t *testing.T) {
	testscript.Run(t, params("testdata/script"))
}

// TestPostgresScripts runs the scripts that need a Postgres, each its own, which "pg stop" and "pg start" end and bring
// back.
func TestPostgresScripts(t *testing.T) {
	p := params("testdata/postgres")
	setup := p.Setup
	p.Setup = func(e *testscript.Env) error {
		cluster := pgtest.New(t, "fsync=off")
		e.Values["cluster"] = cluster
		e.Setenv("PGURL", cluster.Database(t))
		return setup(e)
	}
	p.Cmds["pg"] = func(ts *testscript.TestScript, _ bool, args []string) {
		cluster := ts.Value("cluster").(*pgtest.Cluster)
		if args[0] == "stop" {
			cluster.Stop(t, syscall.SIGQUIT)
			return
		}
		cluster.Start(t)
	}
	testscript.Run(t, p)
}

func params(dir string) testscript.Params {
	return testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		Deadline:            time.Now().Add(3 * time.Minute),
		Setup: func(e *testscript.Env) error {
			e.Setenv("EXITGATE_DATA", filepath.Join(e.WorkDir, "data"))
			e.Setenv("NO_PROXY", "")
			o := &scriptOrigins{asked: make(chan string, 64), wait: make(chan struct{})}
			e.Values["origins"] = o
			e.Defer(o.close)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"origin": cmdOrigin, "ready": cmdReady, "seen": cmdSeen, "release": cmdRelease, "flowid": cmdFlowID, "certificate": cmdCertificate, "word": cmdWord,
		},
	}
}

// patience bounds how long a script waits for something that has to happen.
const patience = 30 * time.Second

type scriptOrigins struct {
	servers []*httptest.Server
	asked   chan string
	wait    chan struct{} // closed by release
	once    sync.Once
}

func (o *scriptOrigins) release() { o.once.Do(func() { close(o.wait) }) }

func (o *scriptOrigins) close() {
	o.release()
	for _, s := range o.servers {
		s.CloseClientConnections()
		s.Close()
	}
}

func (o *scriptOrigins) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case o.asked <- r.URL.Path:
	default:
	}
	if strings.HasPrefix(r.URL.Path, "/wait") {
		select {
		case <-o.wait:
		case <-r.Context().Done():
			return
		}
	}
	n, _ := io.Copy(io.Discard, r.Body)
	fmt.Fprintf(w, "origin %s %s %s %d\n", r.Host, r.Method, r.URL.Path, n)
}

// cmdOrigin starts an origin for each name and writes the configuration that leads there.
func cmdOrigin(ts *testscript.TestScript, _ bool, names []string) {
	o := ts.Value("origins").(*scriptOrigins)
	ca, err := newDemoCA()
	ts.Check(err)
	connect := ""
	for _, name := range names {
		leaf, err := ca.leaf(name)
		ts.Check(err)
		s := httptest.NewUnstartedServer(o)
		s.TLS = &tls.Config{Certificates: []tls.Certificate{leaf}}
		s.EnableHTTP2 = true
		s.StartTLS()
		o.servers = append(o.servers, s)
		connect += fmt.Sprintf("    %q: %q\n", name+":443", s.Listener.Addr())
	}
	ts.Check(os.WriteFile(ts.MkAbs("origins.crt"), ca.pem(), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("exitgate.yaml"), []byte(`data_dir: data
listen: {proxy: 127.0.0.1:0, admin: 127.0.0.1:0}
hosts:
  - {name: web-1, class: app, addresses: [127.0.0.1]}
upstream:
  roots: [origins.crt]
  allow: [127.0.0.0/8]
  connect_to:
`+connect), 0o600))
}

// cmdReady waits for the gateway's admin socket to answer.
func cmdReady(ts *testscript.TestScript, _ bool, _ []string) {
	data := ts.Getenv("EXITGATE_DATA")
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", adminSocket(data))
	}}}
	var s web.Status
	eventually(ts, "the gateway does not answer", func() error {
		res, err := c.Get("http://gateway/v1/status")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		return json.NewDecoder(res.Body).Decode(&s)
	})
	for _, l := range s.Listen {
		way, addr, _ := strings.Cut(l, " ")
		switch way {
		case "proxy":
			ts.Setenv("PROXY", "http://"+addr)
			ts.Setenv("PROXYADDR", addr)
		case "admin":
			ts.Setenv("ADMIN", "http://"+addr)
		case "api":
			ts.Setenv("API", "https://"+addr)
		}
	}
	ts.Setenv("CA", s.Root)
	ts.Setenv("PID", fmt.Sprint(s.PID))
}

func eventually(ts *testscript.TestScript, what string, f func() error) {
	deadline, tick := time.After(patience), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			ts.Fatalf("%s: %v", what, err)
		}
	}
}

func cmdSeen(ts *testscript.TestScript, _ bool, args []string) {
	o := ts.Value("origins").(*scriptOrigins)
	deadline := time.After(patience)
	for {
		select {
		case path := <-o.asked:
			if path == args[0] {
				return
			}
		case <-deadline:
			ts.Fatalf("no origin was asked for %s", args[0])
		}
	}
}

func cmdRelease(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Value("origins").(*scriptOrigins).release()
}

// cmdFlowID finds the last word that looks like a flow's id in the file named (default stdout).
func cmdFlowID(ts *testscript.TestScript, _ bool, args []string) {
	name := "stdout"
	if len(args) > 0 {
		name = args[0]
	}
	found := ""
	for _, w := range strings.FieldsFunc(ts.ReadFile(name), func(r rune) bool { return strings.ContainsRune(" \n\t\"';,()", r) }) {
		if len(w) == 26 && strings.HasPrefix(w, "0") {
			found = w
		}
	}
	if found == "" {
		ts.Fatalf("no flow id in %s", name)
	}
	ts.Setenv("FLOW", found)
}

func cmdCertificate(ts *testscript.TestScript, _ bool, args []string) {
	ca, err := newDemoCA()
	ts.Check(err)
	leaf, err := ca.leaf("127.0.0.1")
	ts.Check(err)
	key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	ts.Check(err)
	for name, b := range map[string][]byte{
		".crt":    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]}),
		".key":    pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		"-ca.crt": ca.pem(),
	} {
		ts.Check(os.WriteFile(ts.MkAbs(args[0]+name), b, 0o600))
	}
}

func cmdWord(ts *testscript.TestScript, _ bool, args []string) {
	for _, w := range strings.Fields(ts.ReadFile("stdout")) {
		if w = strings.Trim(w, `",:;`); strings.HasPrefix(w, args[1]) {
			ts.Setenv(args[0], w)
			return
		}
	}
	ts.Fatalf("no word %s... in the output", args[1])
}
