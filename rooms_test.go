package exitgate_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/exitgate/exitgate"

// rooms are the top-level folders that hold Go code; only cmd may join them.
var rooms = []string{"mitm", "inspect", "policy", "ca", "storage", "web", "deploy"}

// heavy names each dependency that stays locked in the rooms given.
var heavy = map[string][]string{
	"github.com/google/martian/":       {"mitm", "inspect", "cmd"},
	"github.com/open-policy-agent/opa": {"policy"},
	"github.com/smallstep/":            {"ca"},
	"go.step.sm/":                      {"ca"},
	"github.com/pavlo-v-chernykh/":     {"ca/export"},
	"software.sslmate.com/":            {"ca/export"},
	"github.com/jackc/pgx":             {"storage/postgres"},
	"modernc.org/sqlite":               {"storage/sqlite"},
	"github.com/prometheus/":           {"web"},
	"github.com/pb33f/":                {"web"}, // in its tests only
	"github.com/spf13/cobra":           {"cmd", "policy"},
}

// goFiles yields every Go file below the module root, parsed with comments.
func goFiles(t *testing.T, visit func(path string, f *ast.File)) {
	t.Helper()
	fset := token.NewFileSet()
	seen := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path != "." && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".")) {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(path, "go.mod")); path != "." && err == nil {
				return filepath.SkipDir // another module
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		seen++
		visit(filepath.ToSlash(path), f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 5 {
		t.Fatalf("only %d files seen: the walk is broken", seen)
	}
}

func in(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

// TestRooms fails when a room reaches into another, when the root imports more than the standard library, or
// when a heavy dependency leaves its room.
func TestRooms(t *testing.T) {
	goFiles(t, func(path string, f *ast.File) {
		room, _, nested := strings.Cut(path, "/")
		if !nested {
			room = "" // the root package
		}
		for _, spec := range f.Imports {
			imp, _ := strconv.Unquote(spec.Path.Value)
			if room == "" && strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") && imp != module {
				t.Errorf("%s: the root package imports %s; it may use the standard library only", path, imp)
			}
			for _, other := range rooms {
				if room != "cmd" && room != "" && room != other && in(imp, module+"/"+other) {
					t.Errorf("%s: room %s imports room %s; only cmd joins rooms", path, room, other)
				}
			}
			for dep, allowed := range heavy {
				if !strings.HasPrefix(imp, dep) {
					continue
				}
				ok := false
				for _, a := range allowed {
					ok = ok || in(path, a)
				}
				if !ok {
					t.Errorf("%s: imports %s, which is locked in %s", path, imp, strings.Join(allowed, ", "))
				}
			}
		}
	})
}

// TestDial fails when anything but mitm/dial.go of the engine can reach the outside (law 1).
func TestDial(t *testing.T) {
	goFiles(t, func(path string, f *ast.File) {
		if !in(path, "mitm") && !in(path, "inspect") || path == "mitm/dial.go" || strings.HasSuffix(path, "_test.go") {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, _ := sel.X.(*ast.Ident)
			if pkg == nil {
				return true
			}
			switch name := pkg.Name + "." + sel.Sel.Name; name {
			case "net.Dial", "net.DialTimeout", "net.DialTCP", "net.DialUDP", "net.DialUnix", "net.Dialer", "tls.Dial", "tls.DialWithDialer", "tls.Dialer",
				"http.Get", "http.Post", "http.PostForm", "http.Head", "http.DefaultClient", "http.DefaultTransport":
				t.Errorf("%s: %s: only mitm/dial.go reaches the outside", path, name)
			}
			return true
		})
	})
}

// TestPackageDocs fails when a package has no essay, or more than one.
func TestPackageDocs(t *testing.T) {
	docs := map[string]int{}
	goFiles(t, func(path string, f *ast.File) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		dir := filepath.Dir(path)
		docs[dir] += 0
		if f.Doc != nil && len(strings.Fields(f.Doc.Text())) > 20 {
			docs[dir]++
		}
	})
	for dir, n := range docs {
		if n != 1 {
			t.Errorf("%s: %d package essays, want 1 (doc.go)", dir, n)
		}
	}
}

// TestRootIsSmall holds the nouns to 600 lines, so that they stay a page of words.
func TestRootIsSmall(t *testing.T) {
	lines := 0
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		lines += strings.Count(string(b), "\n")
	}
	if lines > 600 {
		t.Errorf("the root package has %d lines, more than 600: a noun grew behaviour, or a room's business moved in", lines)
	}
}
