package web

import (
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/exitgate/exitgate"
)

type keeps struct{ err error }

func (k keeps) Begin(context.Context, *exitgate.Flow) error { return k.err }
func (k keeps) End(context.Context, *exitgate.Flow) error   { return k.err }

func metrics() *Metrics {
	return NewMetrics(Build{"1", "abc", "go1"}, func(c exitgate.Class) bool { return c == "app" })
}

// flow ends one flow through m's recorder.
func flow(t *testing.T, m *Metrics, f *exitgate.Flow) {
	t.Helper()
	r := m.Recorder(keeps{})
	if err := errors.Join(r.Begin(t.Context(), f), r.End(t.Context(), f)); err != nil {
		t.Fatal(err)
	}
}

func page(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

// sample is a flow with something in every field that is counted.
func sample() *exitgate.Flow {
	begin := time.Unix(1_900_000_000, 0)
	return &exitgate.Flow{
		Kind: exitgate.KindRequest, Begin: begin, End: begin.Add(time.Second), Status: 403,
		Question: exitgate.Question{Way: exitgate.WayProxy, Host: exitgate.Host{Class: "app"},
			HTTP: &exitgate.Request{Method: "GET", URL: "https://secret.example.com/path"}, Dest: exitgate.Destination{Host: "secret.example.com", Port: 443}},
		Phases: exitgate.Phases{Resolve: 1, Connect: 1, TLS: 1, Wait: 1},
		Sent:   exitgate.Bytes{Header: 10, Body: 20}, Received: exitgate.Bytes{Header: 30, Body: 40},
		Verdict: exitgate.Verdict{Rule: "no-grant"},
	}
}

// TestLint holds every metric to Prometheus' own rules of naming, with all of them in use.
func TestLint(t *testing.T) {
	m := metrics()
	m.Gauge("things", "Things.", func() float64 { return 1 })
	m.Counter("things_done_total", "Things done.", func() float64 { return 1 })
	f := sample()
	f.RequestBody, f.ResponseBody, f.Verdict.Audit, f.Verdict.Exemption = exitgate.BodyOverLimit, exitgate.BodyOverLimit, true, "x"
	flow(t, m, f)
	f.Fault = &exitgate.Fault{Step: "resolve", Type: "dns_error"}
	flow(t, m, f)
	m.Recorder(keeps{errors.New("full")}).Begin(t.Context(), f)
	m.Recorder(keeps{errors.New("full")}).End(t.Context(), f)
	m.Reloaded(time.Now(), nil)
	problems, err := testutil.GatherAndLint(m.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestCounts(t *testing.T) {
	m := metrics()
	flow(t, m, sample())
	spliced := sample()
	spliced.Kind, spliced.Question.HTTP = exitgate.KindTunnel, nil
	spliced.Verdict = exitgate.Verdict{Action: exitgate.Splice, Exemption: "x", Rule: "exemption:x"}
	flow(t, m, spliced)
	text := page(t, m)
	for _, want := range []string{
		`exitgate_flows_total{class="app",kind="request",outcome="refused",way="proxy"} 1`,
		`exitgate_flows_total{class="app",kind="tunnel",outcome="allowed",way="proxy"} 1`,
		`exitgate_requests_total{code_class="4xx",method="GET",outcome="refused"} 1`,
		`exitgate_refusals_total{rule="no-grant"} 1`,
		`exitgate_bytes_total{direction="out"} 60`,
		`exitgate_bytes_total{direction="in"} 140`,
		`exitgate_exempt_bytes_total{direction="out"} 30`,
		`exitgate_flows_open 0`,
		`exitgate_flow_duration_seconds_count{phase="total"} 2`,
		`exitgate_build_info{goversion="go1",revision="abc",version="1"} 1`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// TestBounded holds that nothing that a host or a policy's author writes makes a series, or is shown.
func TestBounded(t *testing.T) {
	m := metrics()
	flow(t, m, sample())
	series := strings.Count(page(t, m), "\n")
	for i := range 50 {
		f := sample()
		s := strings.Repeat("x", i+1)
		f.Question.Host.Class, f.Question.HTTP.Method, f.Verdict.Rule, f.Status = exitgate.Class(s), s, "weird"+s+":"+s, 600+i
		flow(t, m, f)
		f.Verdict.Rule = "deny:" + s + ".rego:" + s
		flow(t, m, f)
	}
	text := page(t, m)
	if n := strings.Count(text, "\n") - series; n > 10 {
		t.Errorf("%d more lines:\n%s", n, text)
	}
	for _, secret := range []string{"secret.example.com", "xxxx"} {
		if strings.Contains(text, secret) {
			t.Errorf("%s is shown", secret)
		}
	}
}

func TestReadiness(t *testing.T) {
	wrong := ""
	h := (&Health{Metrics: metrics(), Logger: slog.New(slog.DiscardHandler), Ready: func(context.Context) []Check {
		return []Check{{Name: "policy"}, {Name: "record", Wrong: wrong}}
	}}).Handler()
	get := func(path, accept string) (int, string) {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", path, nil)
		r.Header.Set("Accept", accept)
		h.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	if code, body := get("/readyz", ""); code != 200 || body != "ok    policy\nok    record\n" {
		t.Errorf("%d %s", code, body)
	}
	wrong = "the journal is full"
	if code, body := get("/readyz", ""); code != 503 || !strings.Contains(body, "WRONG record: the journal is full") {
		t.Errorf("%d %s", code, body)
	}
	if code, body := get("/readyz", "application/json"); code != 503 || !strings.Contains(body, `"wrong":"the journal is full"`) {
		t.Errorf("%d %s", code, body)
	}
	if code, body := get("/livez", ""); code != 200 || body != "alive\n" {
		t.Errorf("%d %s", code, body)
	}
	if code, body := get("/metrics", ""); code != 200 || !strings.Contains(body, "exitgate_build_info") {
		t.Errorf("%d %.80s", code, body)
	}
	if code, _ := get("/v1/grants", ""); code != 404 {
		t.Errorf("the admin listener answers /v1/grants with %d", code)
	}
}

// TestLogged holds the line of a flow: one, with the names of the columns, and no raw control bytes.
func TestLogged(t *testing.T) {
	var out strings.Builder
	r := Logged(slog.New(slog.NewTextHandler(&out, nil)), keeps{})
	f := sample()
	f.Question.HTTP.URL = "https://example.com/\n\x1b[2J"
	f.Verdict.Reason = "no grant covers it"
	if err := r.End(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	line := out.String()
	if strings.Count(line, "\n") != 1 || strings.Contains(line, "\x1b") {
		t.Errorf("%q", line)
	}
	for _, want := range []string{"outcome=refused", "class=app", "rule=no-grant", "sent=30", `reason="no grant covers it"`} {
		if !strings.Contains(line, want) {
			t.Errorf("no %s in %s", want, line)
		}
	}
}
