package policy

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// A LintError is something in a policy directory that loads, and that will not do what its author thinks.
type LintError struct {
	File string `json:"file"` // relative to the directory
	Line int    `json:"line"`
	Col  int    `json:"col"`
	Lint string `json:"lint"` // one of Lints
	What string `json:"what"` // what is wrong, one sentence
	Fix  string `json:"fix"`  // what to write instead
}

// Error returns all of it on one line, the place in front.
func (e LintError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s: %s; %s", e.File, e.Line, e.Col, e.Lint, e.What, e.Fix)
}

// The lints. A comment "# lint:ignore NAME WHY" in the line of what it finds, or in the line before, lets it pass.
const (
	LintHostText  = "host-text"   // a destination's name is compared as text
	LintPathText  = "path-text"   // a path or URL is compared by its beginning as text
	LintLength    = "length"      // a body's length is compared, and what is said of a body without one is an accident
	LintIteration = "iteration"   // a rule goes through all grants
	LintMetadata  = "metadata"    // a rule that decides does not say what it is for
	LintSchema    = "schema"      // metadata takes a rule out of the schema's hands
	LintIgnore    = "lint"        // a comment that lets a lint pass does not say which, or why
	ignoreComment = "lint:ignore" //
)

// Lints returns the names of all lints.
func Lints() []string {
	return []string{LintHostText, LintPathText, LintLength, LintIteration, LintMetadata, LintSchema}
}

// Lint loads dir as Check does and looks for what would not do what its author thinks. It looks at the rules of dir alone,
// tests left out, and returns what it finds in the order of the files and lines.
func Lint(ctx context.Context, dir string) ([]LintError, error) {
	if _, err := Check(ctx, dir); err != nil {
		return nil, err
	}
	e := &Engine{options: Options{Dir: dir}}
	src, err := load(dir, Data{}, nil)
	if err != nil {
		return nil, e.loadError(err)
	}
	return lint(src.rego, baseDir)
}

// lint looks at all files but those below skip.
func lint(files []file, skip string) ([]LintError, error) {
	parsed, err := parse(files)
	if err != nil {
		return nil, err
	}
	c, err := newCompiler()
	if err != nil {
		return nil, err
	}
	if c.Compile(parsed); c.Failed() { // it compiles copies
		return nil, regoError(c.Errors)
	}
	l := &linter{compiler: c, facts: map[string]facts{}, skip: skip}
	for name, m := range parsed {
		if !l.skips(name) {
			l.metadata(m)
			l.schemas(m)
		}
	}
	l.rules()
	out := l.ignored(parsed)
	slices.SortFunc(out, func(a, b LintError) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col), cmp.Compare(a.Lint, b.Lint))
	})
	return slices.Compact(out), nil
}

// A linter gathers what is found.
type linter struct {
	compiler *ast.Compiler
	facts    map[string]facts // what the values of rules, and the arguments of functions, are made of
	changed  bool             // facts grew
	guarded  map[string]bool  // lengths that some rule compares with what stands for "not declared"
	skip     string
	found    []LintError
}

func (l *linter) skips(file string) bool { return l.skip != "" && strings.HasPrefix(file, l.skip) }

func (l *linter) add(at *ast.Location, lint, what, fix string) {
	if at == nil || l.skips(at.File) {
		return
	}
	l.found = append(l.found, LintError{at.File, at.Row, at.Col, lint, what, fix})
}

// deciding are the sets that decide.
var deciding = []string{"deny", "grants", "exemptions", "rewrite"}

// metadata wants a title and a description of each rule that decides.
func (l *linter) metadata(m *ast.Module) {
	if m.Package.Path.String() != ownPackage {
		return
	}
	set, errs := ast.BuildAnnotationSet([]*ast.Module{m})
	if len(errs) > 0 {
		return // the compiler says it
	}
	for _, r := range m.Rules {
		name := r.Head.Ref()[0].Value.String()
		if !slices.Contains(deciding, name) {
			continue
		}
		all := set.GetRuleScope(r)
		if doc := set.GetDocumentScope(r.Ref().GroundPrefix()); doc != nil {
			all = append(slices.Clone(all), doc)
		}
		said := func(a *ast.Annotations) bool {
			return strings.TrimSpace(a.Title) != "" && strings.TrimSpace(a.Description) != ""
		}
		if !slices.ContainsFunc(all, said) {
			l.add(r.Location, LintMetadata, "the rule decides ("+name+") and does not say what it is for",
				"put a comment in front: # METADATA, # title: ..., # description: ...")
		}
	}
}

// schemas wants that metadata checks input by the published schema, if by any.
func (l *linter) schemas(m *ast.Module) {
	for _, a := range m.Annotations {
		for _, s := range a.Schemas {
			if len(s.Path) > 0 && s.Path[0].Equal(ast.InputRootDocument) && !(len(s.Path) == 1 && s.Schema.Equal(inputSchemaRef)) {
				l.add(a.Location, LintSchema, "the metadata checks "+s.Path.String()+" by another schema than the gateway's, so that a misspelled field passes",
					"write: schemas: [input: schema.input]")
			}
		}
	}
}

// ignored drops what comments let pass.
func (l *linter) ignored(modules map[string]*ast.Module) []LintError {
	out := slices.Clone(l.found)
	for name, m := range modules {
		if l.skips(name) {
			continue
		}
		for _, c := range m.Comments {
			rest, ok := strings.CutPrefix(strings.TrimSpace(string(c.Text)), ignoreComment)
			if !ok {
				continue
			}
			words := strings.Fields(rest)
			if len(words) < 2 || !slices.Contains(Lints(), words[0]) {
				out = append(out, LintError{name, c.Location.Row, c.Location.Col, LintIgnore, "the comment does not say which lint it lets pass, and why",
					"write: # " + ignoreComment + " NAME WHY, with NAME one of " + strings.Join(Lints(), ", ")})
				continue
			}
			out = slices.DeleteFunc(out, func(e LintError) bool {
				return e.File == name && e.Lint == words[0] && (e.Line == c.Location.Row || e.Line == c.Location.Row+1)
			})
		}
	}
	return out
}
