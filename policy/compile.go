package policy

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/util"
)

const (
	ownPackage   = "data.exitgate"
	matchPackage = "data.exitgate.match"
	// testingPackage has what tests write questions with; it is there for tests alone.
	testingPackage = "data.exitgate.testing"
	// denials is the set that is asked for. Each rule "deny contains reason" has a twin "denials contains
	// [place, reason]", made when it is loaded, so that a refusal can say which rule it comes from.
	denials = "denials"
)

// inputSchemaRef is how metadata names the schema of input: "schemas: [input: schema.input]".
var inputSchemaRef = ast.MustParseRef("schema.input")

// reaching lists builtins that look at the world outside of the question, or that let a rule run for long on a
// short input.
var reaching = []string{
	"http.send", "net.lookup_ip_addr", "opa.runtime", "rand.intn", "uuid.rfc4122", "time.now_ns",
	"io.jwt.decode_verify", "io.jwt.encode_sign", "io.jwt.encode_sign_raw",
	"providers.aws.sign_req", "rego.parse_module", "walk", "numbers.range", "numbers.range_step", "net.cidr_expand",
	"graphql.is_valid", "graphql.parse", "graphql.parse_and_verify", "graphql.parse_query", "graphql.parse_schema", "graphql.schema_is_valid",
	"json.match_schema", "json.verify_schema", "trace",
}

// Capabilities returns what a policy may use: all that OPA has but what reaches outside of the question.
func Capabilities() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(slices.Clone(c.Builtins), func(b *ast.Builtin) bool {
		return b.Nondeterministic || slices.Contains(reaching, b.Name)
	})
	c.AllowNet = []string{}
	return c
}

// newCompiler returns a compiler that is strict, that knows only Capabilities, and to which a field of input that
// does not exist is an error.
func newCompiler() (*ast.Compiler, error) {
	var schema any
	if err := util.Unmarshal(inputSchema, &schema); err != nil {
		return nil, fmt.Errorf("read the schema of input: %w", err)
	}
	schemas := ast.NewSchemaSet()
	schemas.Put(ast.SchemaRootRef, schema) // holds every rule to it
	schemas.Put(inputSchemaRef, schema)    // for rules whose metadata names it, so that editors check them too
	return ast.NewCompiler().WithStrict(true).WithCapabilities(Capabilities()).WithSchemas(schemas).WithUseTypeCheckAnnotations(true), nil
}

// compile parses and compiles the rules of a revision.
func compile(files []file) (*ast.Compiler, error) {
	modules, err := parse(files)
	if err != nil {
		return nil, err
	}
	for name, m := range modules {
		addTwins(name, m)
	}
	c, err := newCompiler()
	if err != nil {
		return nil, err
	}
	if c.Compile(modules); c.Failed() {
		return nil, regoError(c.Errors)
	}
	return c, nil
}

// parse parses files as Rego v1. Only the base policy may have rules in the package of its conditions, where
// another rule with the same name would widen every grant.
func parse(files []file) (map[string]*ast.Module, error) {
	modules := make(map[string]*ast.Module, len(files))
	options := ast.ParserOptions{RegoVersion: ast.RegoV1, Capabilities: Capabilities(), ProcessAnnotation: true}
	for _, f := range files {
		if len(bytes.TrimSpace(f.text)) == 0 {
			continue
		}
		m, err := ast.ParseModuleWithOpts(f.name, string(f.text), options)
		if err != nil {
			return nil, regoError(err)
		}
		own := strings.HasPrefix(f.name, baseDir)
		if p := m.Package.Path.String(); !own && (p == matchPackage || strings.HasPrefix(p, matchPackage+".") || strings.HasPrefix(p, ownPackage+".table") || p == testingPackage) {
			return nil, fmt.Errorf("%s:%d:%d: %s belongs to the shipped policy; use another package", f.name, m.Package.Location.Row, m.Package.Location.Col, p)
		}
		if r := reserved(m); r != nil && !own {
			return nil, fmt.Errorf("%s:%d:%d: the name %s is taken by the gateway", f.name, r.Location.Row, r.Location.Col, r.Head.Name)
		}
		modules[f.name] = m
	}
	return modules, nil
}

func reserved(m *ast.Module) *ast.Rule {
	if m.Package.Path.String() != ownPackage {
		return nil
	}
	for _, r := range m.Rules {
		if h := r.Head.Ref(); h[0].Value.Compare(ast.Var(denials)) == 0 || h[0].Value.Compare(ast.Var("table")) == 0 {
			return r
		}
	}
	return nil
}

// addTwins gives each deny rule of m its twin.
func addTwins(name string, m *ast.Module) {
	if m.Package.Path.String() != ownPackage {
		return
	}
	for _, r := range m.Rules {
		if r.Head.Ref().String() != "deny" || r.Head.Key == nil {
			continue
		}
		twin := r.Copy()
		twin.Annotations = nil
		twin.Module = m
		place := fmt.Sprintf("%s:%d", name, r.Location.Row)
		twin.Head.Name = denials
		twin.Head.Reference = ast.Ref{ast.VarTerm(denials)}
		twin.Head.Key = ast.ArrayTerm(ast.StringTerm(place), twin.Head.Key).SetLocation(r.Head.Key.Location)
		m.Rules = append(m.Rules, twin)
	}
}

// regoError makes one line of the errors of OPA's parser and compiler.
func regoError(err error) error {
	var list ast.Errors
	var one *ast.Error
	switch {
	case errors.As(err, &list) && len(list) > 0:
	case errors.As(err, &one):
		list = ast.Errors{one}
	default:
		return err
	}
	e := list[0]
	if i := slices.IndexFunc(list, func(e *ast.Error) bool { return !strings.HasSuffix(e.Message, " unused") }); i >= 0 {
		e = list[i] // what is unused often is so because of what is wrong
	}
	var b strings.Builder
	if l := e.Location; l != nil {
		fmt.Fprintf(&b, "%s:%d:%d: ", l.File, l.Row, l.Col)
	}
	b.WriteString(strings.Join(strings.Fields(e.Message), " "))
	b.WriteString(missingBuiltin(e.Message))
	if d, ok := e.Details.(*ast.RefErrInvalidDetail); ok && len(d.OneOf) > 0 {
		fmt.Fprintf(&b, " (%s is not one of %s)", bare(d.Ref[d.Pos].Value), oneOf(d.OneOf))
	}
	if n := countErrors(list); n > 1 {
		fmt.Fprintf(&b, " (and %d more)", n-1)
	}
	return errors.New(b.String())
}

// countErrors counts what is wrong once, although a rule that denies is compiled twice.
func countErrors(list ast.Errors) int {
	seen := map[string]bool{}
	for _, e := range list {
		seen[e.Error()] = true
	}
	return len(seen)
}

// missingBuiltin says why a builtin that OPA has is no function here, and what a rule can do instead.
func missingBuiltin(message string) string {
	name, ok := strings.CutPrefix(message, "undefined function ")
	switch {
	case !ok || !isMissing(name):
		return ""
	case name == "time.now_ns":
		return ": rules cannot read the clock, so that an answer can be given again; write time.parse_rfc3339_ns(input.at)"
	case strings.HasPrefix(name, "numbers.range"), name == "walk", name == "net.cidr_expand", strings.HasPrefix(name, "graphql."), strings.HasPrefix(name, "json."):
		return ": it can run for long on a short input, and is not there for rules"
	}
	return ": rules cannot look outside of the question, so that an answer can be given again; put what it would find into data.yaml"
}

func isMissing(name string) bool {
	named := func(b *ast.Builtin) bool { return b.Name == name }
	return slices.ContainsFunc(ast.CapabilitiesForThisVersion().Builtins, named) && !slices.ContainsFunc(Capabilities().Builtins, named)
}

func oneOf(values []ast.Value) string {
	names := make([]string, len(values))
	for i, v := range values {
		names[i] = bare(v)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// bare writes a value as it stands in a reference.
func bare(v ast.Value) string { return strings.Trim(v.String(), `"`) }
