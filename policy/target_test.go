package policy

import (
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the files that tests make")

// TestSuffixParents makes suffixparents.txt of the rules that x/net's own tests carry, and compares.
func TestSuffixParents(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/net").Output()
	if err != nil {
		t.Fatal(err)
	}
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(strings.TrimSpace(string(dir)), "publicsuffix", "table_test.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var rules []string
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && v.Names[0].Name == "rules" {
			for _, e := range v.Values[0].(*ast.CompositeLit).Elts {
				s, _ := strconv.Unquote(e.(*ast.BasicLit).Value)
				rules = append(rules, s)
			}
		}
		return true
	})
	if len(rules) < 9000 {
		t.Fatalf("only %d rules were found", len(rules))
	}
	want := strings.Join(parentsOf(rules), "\n") + "\n"
	if *update {
		if err := os.WriteFile("suffixparents.txt", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile("suffixparents.txt"); err != nil || string(got) != want {
		t.Errorf("suffixparents.txt is stale (%v): run go test ./policy -run TestSuffixParents -update", err)
	}
}

// parentsOf returns the names of two labels or more that have a suffix below them and are none themselves.
func parentsOf(rules []string) []string {
	suffix, parents := map[string]bool{}, map[string]bool{}
	for _, r := range rules {
		suffix[strings.TrimPrefix(r, "!")] = true
	}
	for _, r := range rules {
		if strings.HasPrefix(r, "!") {
			continue
		}
		for name := r; ; {
			_, parent, ok := strings.Cut(name, ".")
			if !ok || !strings.Contains(parent, ".") {
				break
			}
			if !suffix[parent] {
				parents[parent] = true
			}
			name = parent
		}
	}
	return slices.Sorted(maps.Keys(parents))
}

func TestCheckTo(t *testing.T) {
	for _, c := range []struct{ in, out, err string }{
		{"api.example.com", "api.example.com", ""},
		{"API.Example.COM.", "api.example.com", ""},
		{"*.Example.com", "*.example.com", ""},
		{"bücher.example", "xn--bcher-kva.example", ""},
		{"xn--bcher-kva.example", "xn--bcher-kva.example", ""},
		{"localhost", "localhost", ""},
		{"_dmarc.example.com", "_dmarc.example.com", ""},
		{"192.0.2.7", "192.0.2.7", ""},
		{"::ffff:192.0.2.7", "192.0.2.7", ""},
		{"[2001:DB8::7]", "2001:db8::7", ""},
		{"192.0.2.0/24", "192.0.2.0/24", ""},
		{"2001:DB8:0::/32", "2001:db8::/32", ""},
		{"::ffff:192.0.2.0/120", "192.0.2.0/24", ""},
		{"*.example.co.uk", "*.example.co.uk", ""},
		{"", "", "name the destination"},
		{"*", "", "every destination"},
		{"*.*", "", "every destination"},
		{"*.com", "", "public suffix"},
		{"*.co.uk", "", "public suffix"},
		{"*.uk", "", "public suffix"},
		{"*.github.io", "", "public suffix"},
		{"*.GitHub.io.", "", "public suffix"},
		{"*.s3.amazonaws.com", "", "public suffix"},
		{"*.amazonaws.com", "", "anyone can have a name"},
		{"*.foo.ck", "", "public suffix"},
		{"*.internal", "", "public suffix"},
		{"*.xn--p1ai", "", "public suffix"},
		{"*.рф", "", "public suffix"},
		{"a*.example.com", "", "only in front"},
		{"a.*.example.com", "", "only in front"},
		{"*.*.example.com", "", "only in front"},
		{"exa mple.com", "", "no name"},
		{"a..b", "", "1 to 63"},
		{strings.Repeat("a", 64) + ".example", "", "no name"},
		{strings.Repeat("a.", 127) + "example", "", "no name"},
		{"127.1", "", "ends in a number"},
		{"0x7f.0x1", "", "ends in a number"},
		{"https://api.example.com/", "", "fields of their own"},
		{"api.example.com/v1", "", "fields of their own"},
		{"192.0.2.7/24", "", "written 192.0.2.0/24"},
		{"0.0.0.0/0", "", "wider than /8"},
		{"128.0.0.0/1", "", "wider than /8"},
		{"2000::/3", "", "wider than /16"},
		{"192.0.2.0/33", "", "no range"},
		{"fe80::1%eth0", "", "zone"},
	} {
		got, err := checkTo(c.in)
		switch {
		case c.err == "" && (err != nil || got != c.out):
			t.Errorf("%q: %q %v, want %q", c.in, got, err, c.out)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%q: %q %v, want an error with %q", c.in, got, err, c.err)
		}
	}
}

func TestParseGrantTarget(t *testing.T) {
	for _, c := range []struct {
		in  string
		out Target
		err string
	}{
		{"https://api.example.com/v1/", Target{"api.example.com", "https", 0, "/v1/"}, ""},
		{"HTTPS://API.example.com/v1$", Target{"api.example.com", "https", 0, "/v1$"}, ""},
		{"http://api.example.com:8080/", Target{"api.example.com", "http", 8080, ""}, ""},
		{"https://*.example.com", Target{"*.example.com", "https", 0, ""}, ""},
		{"*.example.com", Target{"*.example.com", "", 0, ""}, ""},
		{"api.example.com:8443/a/*/b", Target{"api.example.com", "", 8443, "/a/*/b"}, ""},
		{"192.0.2.0/24", Target{"192.0.2.0/24", "", 0, ""}, ""},
		{"2001:db8::/32", Target{"2001:db8::/32", "", 0, ""}, ""},
		{"https://[2001:db8::7]:8443/x", Target{"2001:db8::7", "https", 8443, "/x"}, ""},
		{"2001:db8::7", Target{"2001:db8::7", "", 0, ""}, ""},
		{"https://api.example.com/@team%2flib", Target{"api.example.com", "https", 0, "/@team%2Flib"}, ""},
		{"ftp://api.example.com/", Target{}, "http or https"},
		{"https://api.example.com/v1?x=1", Target{}, "without user, query"},
		{"https://user@api.example.com/", Target{}, "without user, query"},
		{"https://api.example.com:0/", Target{}, "no port"},
		{"https://api.example.com:x/", Target{}, "no port"},
		{"https://api.exam%70le.com/", Target{}, "no percent-encodings"},
		{"https:///v1", Target{}, "name the destination"},
		{"https://*.com/", Target{}, "public suffix"},
		{"https://api.example.com/../x", Target{}, "dot segment"},
		{"", Target{}, "name the destination"},
	} {
		got, err := ParseGrantTarget(c.in)
		switch {
		case c.err == "" && (err != nil || got != c.out):
			t.Errorf("%q: %+v %v, want %+v", c.in, got, err, c.out)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%q: %+v %v, want an error with %q", c.in, got, err, c.err)
		}
	}
}
