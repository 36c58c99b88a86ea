package policy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/tester"
)

// A TestResult is the outcome of one Rego test.
type TestResult struct {
	Name   string        `json:"name"`  // package and rule
	Place  string        `json:"place"` // file:line
	Passed bool          `json:"passed"`
	Why    string        `json:"why"`    // one line, when it did not
	Output string        `json:"output"` // what it printed
	Took   time.Duration `json:"took"`
}

// testTimeout bounds one Rego test.
const testTimeout = 10 * time.Second

// Check loads dir as New would, its tests included, and returns the revision that it makes.
func Check(ctx context.Context, dir string) (revision string, err error) {
	e, err := New(ctx, Options{Dir: dir}, Data{})
	if err != nil {
		return "", err
	}
	_, _, err = testModules(ctx, Options{Dir: dir})
	return e.Revision(), err
}

// Test runs the tests of the base policy and those of dir ("" for none), all against the rules, grants and
// exemptions of dir.
func Test(ctx context.Context, dir string) ([]TestResult, error) {
	return runTests(ctx, Options{Dir: dir})
}

func runTests(ctx context.Context, o Options) ([]TestResult, error) {
	modules, s, err := testModules(ctx, o)
	if err != nil {
		return nil, err
	}
	c, err := testCompiler()
	if err != nil {
		return nil, err
	}
	var out []TestResult
	err = storage.Txn(ctx, s.store, storage.TransactionParams{}, func(txn storage.Transaction) error {
		ch, err := tester.NewRunner().SetCompiler(c).SetStore(s.store).RaiseBuiltinErrors(true).
			CapturePrintOutput(true).SetTimeout(testTimeout).SetModules(modules).RunTests(ctx, txn)
		if err != nil {
			return regoError(err)
		}
		for r := range ch {
			out = append(out, testResult(r))
		}
		return nil
	})
	if err == nil && len(out) == 0 {
		err = errors.New("run the policy's tests: there are none")
	}
	return out, err
}

func testResult(r *tester.Result) TestResult {
	t := TestResult{
		Name: strings.TrimPrefix(r.Package, "data.") + "." + r.Name, Passed: r.Pass(), Output: string(r.Output), Took: r.Duration,
		Place: fmt.Sprintf("%s:%d", r.Location.File, r.Location.Row),
	}
	switch {
	case t.Passed:
	case r.Error != nil:
		t.Why = regoError(r.Error).Error()
	case r.Skip:
		t.Why = "it is marked to be skipped; a test that does not run shows nothing"
	default:
		t.Why = "it is not true"
	}
	return t
}

// testModules parses the rules of o with all tests, as they stand in the files, and compiles a copy of them.
func testModules(ctx context.Context, o Options) (map[string]*ast.Module, *snapshot, error) {
	e := &Engine{options: o}
	src, err := load(o.Dir, Data{}, o.base)
	if err != nil {
		return nil, nil, e.loadError(err)
	}
	s, err := newSnapshot(ctx, src, o)
	if err != nil {
		return nil, nil, e.loadError(err)
	}
	modules, err := parse(append(src.rego, src.tests...))
	if err != nil {
		return nil, nil, e.loadError(err)
	}
	c, err := testCompiler()
	if err != nil {
		return nil, nil, err
	}
	if c.Compile(modules); c.Failed() { // it compiles copies
		return nil, nil, e.loadError(regoError(c.Errors))
	}
	return modules, s, nil
}

func testCompiler() (*ast.Compiler, error) {
	c, err := newCompiler()
	if err != nil {
		return nil, err
	}
	return c.WithEnablePrintStatements(true), nil
}
