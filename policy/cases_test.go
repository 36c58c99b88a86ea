package policy

import (
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/exitgate/exitgate"
)

// A testCase is one policy and what is asked of it. See testdata/cases.
type testCase struct {
	Note       string               `yaml:"note"`
	Grants     []exitgate.Grant     `yaml:"grants"`
	Exemptions []exitgate.Exemption `yaml:"exemptions"`
	Audit      []exitgate.Class     `yaml:"audit"`
	Rego       string               `yaml:"rego"`
	Asks       []testAsk            `yaml:"asks"`
}

type testAsk struct {
	Ask     string              `yaml:"ask"` // "METHOD URL", "METHOD * NAME", or "STAGE HOST:PORT"
	Note    string              `yaml:"note"`
	Class   string              `yaml:"class"` // "": app; "-": none
	Host    string              `yaml:"host"`
	At      time.Time           `yaml:"at"` // zero: 2026-01-01
	Stage   exitgate.Stage      `yaml:"stage"`
	Status  int                 `yaml:"status"`
	Headers map[string][]string `yaml:"headers"`

	Want     string `yaml:"want"`   // "allow|refuse|splice|audit|fail RULE"; "deny" is any rule of the base policy that denies
	Reason   string `yaml:"reason"` // is part of it
	Raw      bool   `yaml:"raw"`
	Bytes    int64  `yaml:"bytes"`
	Request  int64  `yaml:"request"`
	Response int64  `yaml:"response"`
}

func loadCases(t testing.TB) (out []testCase) {
	t.Helper()
	files, err := filepath.Glob("testdata/cases/*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("cases: %v %v", files, err)
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var cases []testCase
		d := yaml.NewDecoder(f)
		d.KnownFields(true)
		if err := d.Decode(&cases); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out = append(out, cases...)
	}
	return out
}

func (c *testCase) engine(t testing.TB, kept int) *Engine {
	t.Helper()
	dir := t.TempDir()
	if c.Rego != "" {
		write(t, dir, "policy.rego", c.Rego)
	}
	e, err := New(t.Context(), Options{Dir: dir, Kept: kept, Timeout: time.Minute}, Data{c.Grants, c.Exemptions, c.Audit})
	if err != nil {
		t.Fatal(err)
	}
	if dropped := len(c.Grants) - len(e.Grants()) + len(c.Exemptions) - len(e.Exemptions()); dropped != 0 {
		t.Fatalf("%d grants or exemptions are not valid", dropped)
	}
	return e
}

func write(t testing.TB, dir, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// question writes the question out.
func (a *testAsk) question(t testing.TB) *exitgate.Question {
	t.Helper()
	q := &exitgate.Question{Stage: a.Stage, At: a.At, Way: exitgate.WayProxy, Host: exitgate.Host{
		Name: a.Host, Class: exitgate.Class(a.Class), Addr: netip.MustParseAddr("10.0.0.7"), By: exitgate.ByAddress,
	}}
	switch a.Class {
	case "":
		q.Host.Class = "app"
	case "-":
		q.Host.Class = ""
	}
	if q.At.IsZero() {
		q.At = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	first, rest, _ := strings.Cut(a.Ask, " ")
	if name, ok := strings.CutPrefix(rest, "* "); ok {
		q.Dest = exitgate.Destination{Host: name, Port: 443}
		q.HTTP = &exitgate.Request{Method: first, Scheme: "https", URL: "https://" + name, Path: "*", Headers: a.Headers, Proto: "HTTP/1.1"}
	} else if strings.Contains(rest, "://") {
		a.request(t, q, first, deepen(rest))
	} else {
		q.Stage = exitgate.Stage(first)
		i := strings.LastIndexByte(rest, ':')
		q.Dest = destOf(t, rest[:i], rest[i+1:])
	}
	if q.Stage == "" {
		q.Stage = exitgate.StageRequest
	}
	if a.Status != 0 || q.Stage == exitgate.StageResponse {
		q.Response = &exitgate.Response{Status: a.Status, Length: -1}
	}
	return q
}

// deepen replaces DEEPn by n segments.
func deepen(u string) string {
	before, n, ok := strings.Cut(u, "/DEEP")
	if !ok {
		return u
	}
	count, _ := strconv.Atoi(n)
	return before + strings.Repeat("/x", count)
}

func (a *testAsk) request(t testing.TB, q *exitgate.Question, method, raw string) {
	scheme, rest, _ := strings.Cut(raw, "://")
	authority, path, _ := strings.Cut(rest, "/")
	path, query, _ := strings.Cut("/"+path, "?")
	u, err := url.Parse(scheme + "://" + authority)
	if err != nil {
		t.Fatal(err)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[scheme]
	}
	q.Dest = destOf(t, u.Hostname(), port)
	q.HTTP = &exitgate.Request{
		Method: method, Scheme: scheme, URL: raw, Path: path, Query: query, Headers: a.Headers, Length: -1, Proto: "HTTP/1.1",
		EncodedSlash: strings.Contains(strings.ToUpper(path), "%2F"),
	}
}

func destOf(t testing.TB, host, port string) exitgate.Destination {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return exitgate.Destination{Host: host, Port: uint16(n)}
}

// check compares a verdict with what is wanted.
func (a *testAsk) check(v exitgate.Verdict, err error) error {
	action, rule, _ := strings.Cut(a.Want, " ")
	got := v.Action.String()
	switch {
	case err != nil:
		got = "fail"
	case v.Audit && v.Action == exitgate.Allow:
		got = "audit"
	}
	switch {
	case got != action:
		return fmt.Errorf("got %s by %s (%s, %v), want %s", got, v.Rule, v.Reason, err, a.Want)
	case v.Rule != rule && !(rule == "deny" && strings.HasPrefix(v.Rule, "deny:base/")):
		return fmt.Errorf("rule %s (%s), want %s", v.Rule, v.Reason, rule)
	case !strings.Contains(v.Reason, a.Reason):
		return fmt.Errorf("reason %q, want %q", v.Reason, a.Reason)
	case v.Action == exitgate.Refuse && (v.Reason == "" || v.Grant != "" || v.Limits != exitgate.Limits{}):
		return fmt.Errorf("a refusal without a reason, or with limits: %+v", v)
	case v.Raw != a.Raw || v.Limits != exitgate.Limits{RequestBody: a.Request, ResponseBody: a.Response, Bytes: a.Bytes}:
		return fmt.Errorf("limits %+v, raw %v", v.Limits, v.Raw)
	case v.Revision == "":
		return fmt.Errorf("no revision")
	}
	return nil
}

func TestCases(t *testing.T) {
	for _, c := range loadCases(t) {
		t.Run(c.Note, func(t *testing.T) {
			e := c.engine(t, 0)
			for _, a := range c.Asks {
				for _, how := range []string{"first", "again"} {
					if err := a.check(e.Decide(t.Context(), a.question(t))); err != nil {
						t.Errorf("%s %s %s (%s): %v", a.Class, a.Host, a.Ask, how, err)
					}
				}
			}
		})
	}
}
