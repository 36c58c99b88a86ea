package policy

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/exitgate/exitgate"
)

type exitgateGrant = exitgate.Grant

func mustAddrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func mustAddr(s string) netip.Addr { return netip.MustParseAddr(s) }

// evalTerm evaluates a query with all that the tests of dir have.
func evalTerm(ctx context.Context, dir, query string) (ast.Value, error) {
	modules, s, err := testModules(ctx, Options{Dir: dir})
	if err != nil {
		return nil, err
	}
	c, err := testCompiler()
	if err != nil {
		return nil, err
	}
	if c.Compile(modules); c.Failed() {
		return nil, c.Errors
	}
	rs, err := rego.New(rego.Query(query), rego.Compiler(c), rego.Store(s.store), rego.Transaction(s.txn),
		rego.GenerateJSON(func(t *ast.Term, _ *rego.EvalContext) (any, error) { return t.Value, nil })).Eval(ctx)
	if err != nil || len(rs) != 1 {
		return nil, fmt.Errorf("%v %w", rs, err)
	}
	return rs[0].Expressions[0].Value.(ast.Value), nil
}
