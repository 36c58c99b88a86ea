package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/policy"
)

func policyCommand() *cobra.Command {
	c := &cobra.Command{Use: "policy", Short: "Work on the policy directory: test, fmt, check, eval"}
	return c
}

type tmpExplanation struct{ Verdict exitgate.Verdict }

func (e tmpExplanation) WriteText(w io.Writer) error {
	_, err := fmt.Fprintf(w, "%s by %s: %s\n", e.Verdict.Action, e.Verdict.Rule, e.Verdict.Reason)
	return err
}

func explainTmp(ctx context.Context, e *policy.Engine, q *exitgate.Question) (tmpExplanation, error) {
	v, err := e.Decide(ctx, q)
	return tmpExplanation{v}, err
}
