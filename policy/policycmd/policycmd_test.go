package policycmd

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate/policy"
)

// run runs the command as the binary would, with nothing configured.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c := Command(func(*cobra.Command) (string, error) { return "", nil })
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetArgs(args)
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetContext(t.Context())
	err := c.Execute()
	return out.String(), err
}

func TestExampleDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "policy")
	if err := policy.WriteExample(dir); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, "check", dir)
	if err != nil || !strings.Contains(out, "can be loaded") {
		t.Errorf("check: %q %v", out, err)
	}
	out, err = run(t, "test", "-v", dir)
	if err != nil || !strings.Contains(out, "policy_test.test_known_hosts_are_not_denied") || !strings.Contains(out, ", 0 failed") {
		t.Errorf("test: %q %v", out, err)
	}
	out, err = run(t, "fmt", "--list", "--fail", dir)
	if err != nil {
		t.Errorf("fmt: %q %v", out, err)
	}
}

func TestBaseIsFormatted(t *testing.T) {
	if out, err := run(t, "fmt", "--diff", "--fail", "../rego"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestFailuresAreErrors(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("a_test.rego", "package a_test\n\ntest_wrong if {\n\tprint(\"seen\")\n\t1 == 2\n}\n")
	out, err := run(t, "test", dir)
	if err == nil || !strings.Contains(out, "FAIL a_test.rego:3: a_test.test_wrong: it is not true") || !strings.Contains(out, "seen") {
		t.Errorf("%q %v", out, err)
	}
	out, err = run(t, "test", "-o", "json", dir)
	if err == nil || !strings.Contains(out, `"why": "it is not true"`) {
		t.Errorf("%q %v", out, err)
	}
	put("b.rego", "package exitgate\n\ndeny contains \"x\" if input.hots.class == \"app\"\n")
	for _, verb := range []string{"check", "test"} {
		if out, err := run(t, verb, dir); err == nil || !strings.Contains(err.Error(), "b.rego:3:22: undefined ref: input.hots.class (hots is not one of at, dest, host,") {
			t.Errorf("%s: %q %v", verb, out, err)
		}
	}
}

func TestEval(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a.rego")
	if err := os.WriteFile(name, []byte("package a\n\nb := 6 * 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// OPA's eval prints to the output of the process.
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	stdout := os.Stdout
	os.Stdout = out
	_, err = run(t, "eval", "-f", "raw", "-d", name, "data.a.b")
	os.Stdout = stdout
	if b, _ := os.ReadFile(out.Name()); err != nil || strings.TrimSpace(string(b)) != "42" {
		t.Errorf("%q %v", b, err)
	}
}

func TestCheckFinds(t *testing.T) {
	dir := t.TempDir()
	text := "package exitgate\n\n# METADATA\n# title: t\n# description: d\ndeny contains \"x\" if endswith(input.dest.host, \"example.com\")\n"
	if err := os.WriteFile(filepath.Join(dir, "a.rego"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, "check", dir)
	if err == nil || !strings.Contains(err.Error(), "1 thing") || !strings.HasPrefix(out, "a.rego:6:22: host-text: ") || !strings.Contains(out, `"*.example.com" in input.dest.keys`) {
		t.Errorf("%q %v", out, err)
	}
	out, err = run(t, "check", "-o", "json", dir)
	if err == nil || !strings.Contains(out, `"lint": "host-text"`) || !strings.Contains(out, `"col": 22`) {
		t.Errorf("%q %v", out, err)
	}
	if out, err = run(t, "check", "--no-lint", dir); err != nil || !strings.Contains(out, "can be loaded") {
		t.Errorf("%q %v", out, err)
	}
}

func TestSchema(t *testing.T) {
	out, err := run(t, "schema")
	if err != nil || out != string(policy.InputSchema()) {
		t.Errorf("%q %v", out, err)
	}
	dir := t.TempDir()
	if out, err := run(t, "schema", "--write", dir); err != nil || out != "" {
		t.Errorf("%q %v", out, err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "schemas", "input.json")); err != nil || string(b) != string(policy.InputSchema()) {
		t.Errorf("%q %v", b, err)
	}
}

func TestCookbookIsFormatted(t *testing.T) {
	if out, err := run(t, "fmt", "--diff", "--fail", "../cookbook"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
