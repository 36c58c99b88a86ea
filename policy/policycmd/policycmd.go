package policycmd

import (
	"encoding/json"
	"fmt"
	"io"

	opacmd "github.com/open-policy-agent/opa/cmd"
	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate/policy"
)

// Command returns the command "policy" with test, check, fmt and eval below it. Dir names the directory that check
// and test take when none is given; it is asked when they run, and may return "" for the base policy alone.
func Command(dir func(*cobra.Command) (string, error)) *cobra.Command {
	c := &cobra.Command{
		Use:   "policy",
		Short: "Work on policies: check, test, compare, ask again",
		Long: `Works on policy directories: Rego rules, grants.yaml and exemptions.yaml. check and test load a directory as the
gateway does, together with the shipped policy; reach and diff say what a policy allows, and what a change of it would
change; fmt and eval are the commands of Open Policy Agent.`,
		Args: cobra.NoArgs,
	}
	c.AddCommand(checkCommand(dir), testCommand(dir), schemaCommand())
	opa := opacmd.Command(&cobra.Command{Use: "policy"}, "exitgate")
	for _, sub := range opa.Commands() {
		if sub.Name() == "fmt" || sub.Name() == "eval" {
			opa.RemoveCommand(sub)
			c.AddCommand(sub)
		}
	}
	return c
}

func argument(c *cobra.Command, args []string, dir func(*cobra.Command) (string, error)) (string, error) {
	if len(args) == 1 {
		return args[0], nil
	}
	return dir(c)
}

func named(dir string) string {
	if dir == "" {
		return "the shipped policy"
	}
	return dir
}

func testCommand(dir func(*cobra.Command) (string, error)) *cobra.Command {
	var verbose bool
	var output string
	c := &cobra.Command{
		Use:     "test [DIR]",
		Short:   "Run the Rego tests of a policy directory, and those of the shipped policy with its rules",
		Example: "  exitgate policy test /etc/exitgate/policy",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := argument(c, args, dir)
			if err != nil {
				return err
			}
			results, err := policy.Test(c.Context(), d)
			if err != nil {
				return err
			}
			return report(c.OutOrStdout(), results, output, verbose)
		},
	}
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "name the tests that pass, too")
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return c
}

// report prints results and returns an error where one did not pass.
func report(w io.Writer, results []policy.TestResult, output string, verbose bool) error {
	failed := 0
	for _, r := range results {
		if !r.Passed {
			failed++
		}
		if output == "text" {
			reportOne(w, r, verbose)
		}
	}
	switch output {
	case "text":
		fmt.Fprintf(w, "%d passed, %d failed\n", len(results)-failed, failed)
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		if err := e.Encode(results); err != nil {
			return err
		}
	default:
		return fmt.Errorf("-o %q: it is text or json", output)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d policy tests failed", failed, len(results))
	}
	return nil
}

func reportOne(w io.Writer, r policy.TestResult, verbose bool) {
	switch {
	case !r.Passed:
		fmt.Fprintf(w, "FAIL %s: %s: %s\n", r.Place, r.Name, r.Why)
	case verbose:
		fmt.Fprintf(w, "ok   %s: %s\n", r.Place, r.Name)
	default:
		return
	}
	if r.Output != "" {
		fmt.Fprintf(w, "%s\n", r.Output)
	}
}
