package main

import (
	"bytes"
	"encoding/csv"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate"
)

// TestPlain holds that nothing that came from outside steers a terminal.
func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"plain ünïcödé 漢字": "plain ünïcödé 漢字",
		"\x1b[2J":          `\x1b[2J`,
		"a\r\nb":           `a\x0d\nb`,
		"\u202etxt.exe":    `\u{202e}txt.exe`,
		"\u200bx":          `\u{200b}x`,
		"\u0085\u009b31m":  `\u{85}\u{9b}31m`,
		"\xff\xc0":         `\xff\xc0`,
		"\x00\x7f\t":       `\x00\x7f\x09`,
	} {
		if got := plain(in); got != want {
			t.Errorf("plain(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzPlain(f *testing.F) {
	f.Add("\x1b]0;title\x07")
	f.Add("\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := plain(s)
		if !utf8.ValidString(got) || plain(got) != got {
			t.Fatalf("plain(%q) = %q, which is not plain", s, got)
		}
		for _, r := range got {
			if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
				t.Fatalf("plain(%q) = %q holds %U", s, got, r)
			}
		}
	})
}

// hostile is a flow in which every text that a host, an upstream or a policy wrote is an attack.
func hostile() *exitgate.Flow {
	bad := "=cmd|' /C calc'!A1\x1b[31m\u202e\r\n\""
	at := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	return &exitgate.Flow{
		ID: exitgate.NewID(at), Kind: exitgate.KindRequest, Begin: at, End: at.Add(time.Second),
		Question: exitgate.Question{
			Way: exitgate.Way(bad), Host: exitgate.Host{Name: bad, Class: exitgate.Class(bad), Addr: netip.MustParseAddr("192.0.2.1"), By: bad},
			Dest: exitgate.Destination{Host: bad, Port: 443}, TLS: &exitgate.TLS{JA4: bad, ECH: true},
			HTTP:     &exitgate.Request{Method: bad, URL: bad, Proto: bad, Headers: map[string][]string{bad: {bad}}},
			Response: &exitgate.Response{Status: 502, Headers: map[string][]string{bad: {bad}}},
		},
		Verdict:   exitgate.Verdict{Rule: bad, Reason: bad, Revision: bad, Audit: true},
		Authority: exitgate.Authority{Connect: bad, SNI: bad, Host: bad},
		Client:    exitgate.Side{Proto: bad, ALPN: bad, TLS: bad}, Upstream: exitgate.Side{Proto: bad, ALPN: bad, TLS: bad},
		Status: 200, RequestBody: exitgate.BodyState(bad), RequestSHA256: bad, UpstreamCert: bad,
		Findings: []exitgate.Finding{{Inspector: bad, Where: bad, What: bad}},
		Fault:    &exitgate.Fault{Step: bad, Type: bad, Reason: bad},
	}
}

// TestHostileFlow holds every way in which a flow is printed to one line a field and to no control characters.
func TestHostileFlow(t *testing.T) {
	for _, output := range []string{"table", "csv", "json", "page"} {
		var out bytes.Buffer
		c := &cobra.Command{}
		c.SetOut(&out)
		if output == "page" {
			page{w: &out}.flow(hostile())
		} else {
			p, err := newPrinter(c, output)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.flow(hostile()); err != nil {
				t.Fatal(err)
			}
			if err := p.end(); err != nil {
				t.Fatal(err)
			}
			if lines := strings.Count(out.String(), "\n"); output != "page" && lines > 2 {
				t.Errorf("%s: %d lines:\n%s", output, lines, out.String())
			}
		}
		for _, bad := range []string{"\x1b", "\r"} {
			if strings.Contains(out.String(), bad) {
				t.Errorf("%s holds %q:\n%q", output, bad, out.String())
			}
		}
		if output != "json" && strings.Contains(out.String(), "\u202e") { // JSON is for programs
			t.Errorf("%s holds a character that turns the direction", output)
		}
		if output != "csv" {
			continue
		}
		rows, err := csv.NewReader(&out).ReadAll()
		if err != nil || len(rows) != 2 {
			t.Fatalf("%d rows, %v", len(rows), err)
		}
		for i, cell := range rows[1] {
			if strings.HasPrefix(cell, "=") || strings.HasPrefix(cell, "@") {
				t.Errorf("%s is a formula: %q", rows[0][i], cell)
			}
		}
	}
}

func TestBytesText(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB", 1_500_000: "1.5 MB", 1 << 40: "1.1 TB", 1<<63 - 1: "9.2 EB"} {
		if got := bytesText(n); got != want {
			t.Errorf("bytesText(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{"": "''", "a/b.c": "a/b.c", "a b": "'a b'", "it's": `'it'\''s'`, "$(x)": "'$(x)'", "*": "'*'"} {
		if got := shellQuote(in); got != want {
			t.Errorf("shellQuote(%q) = %s, want %s", in, got, want)
		}
	}
}

// TestExemptTarget reads what exempt add takes.
func TestExemptTarget(t *testing.T) {
	for in, want := range map[string]string{
		"example.com": "example.com", "example.com:22": "example.com:22", "[2001:db8::1]:22": "[2001:db8::1]:22", "2001:db8::1": "[2001:db8::1]",
		"192.0.2.0/24": "192.0.2.0/24", "*.example.com": "*.example.com",
		"https://example.com/": "", "example.com:0": "", "example.com:x": "", "example.com:70000": "",
	} {
		var x exitgate.Exemption
		err := exemptTarget(&x, in)
		if (err != nil) != (want == "") || err == nil && exemptText(x) != want {
			t.Errorf("exemptTarget(%q) = %q, %v, want %q", in, exemptText(x), err, want)
		}
	}
}

// TestHelp holds every verb to a sentence about itself and to flags that say what they do.
func TestHelp(t *testing.T) {
	n := 0
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		n++
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short help %q", c.CommandPath(), c.Short)
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(rootCommand())
	if n < 20 {
		t.Errorf("only %d verbs", n)
	}
}
