package policycmd

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate/policy"
)

func checkCommand(dir func(*cobra.Command) (string, error)) *cobra.Command {
	var noLint bool
	var output string
	c := &cobra.Command{
		Use:   "check [DIR]",
		Short: "Load a policy directory as the gateway would, and say what is wrong with it",
		Long: `Loads a policy directory as the gateway would: syntax, fields of input that do not exist, builtins that rules may not use,
grants that cannot be. Then it looks for rules that would load and not do what their author thinks:

  host-text   a destination's name is compared as text: notexample.com passes for example.com
  path-text   a path or URL is compared by its beginning as text: /companyevil passes for /company
  length      a body's length is compared, and what becomes of a body that declares none is an accident
  iteration   a rule goes through the table of all grants
  metadata    a rule that denies or grants has no title and description in a METADATA comment
  schema      metadata checks input by another schema than the gateway's

Each stands with file, line and column, and with what to write instead. A comment "# lint:ignore NAME WHY" in the line, or in
the one before, lets it pass.`,
		Example: "  exitgate policy check /etc/exitgate/policy",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := argument(c, args, dir)
			if err != nil {
				return err
			}
			if output != "text" && output != "json" {
				return fmt.Errorf("-o %q: it is text or json", output)
			}
			revision, err := policy.Check(c.Context(), d)
			if err != nil {
				return err
			}
			found := []policy.LintError{}
			if !noLint {
				if found, err = policy.Lint(c.Context(), d); err != nil {
					return err
				}
			}
			return reportCheck(c.OutOrStdout(), d, revision, found, output)
		},
	}
	c.Flags().BoolVar(&noLint, "no-lint", false, "only load it")
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return c
}

func reportCheck(w io.Writer, dir, revision string, found []policy.LintError, output string) error {
	if output == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		if err := e.Encode(map[string]any{"revision": revision, "found": append([]policy.LintError{}, found...)}); err != nil {
			return err
		}
	} else {
		for _, f := range found {
			fmt.Fprintln(w, f.Error())
		}
	}
	switch {
	case len(found) == 1:
		return fmt.Errorf("%s can be loaded, and 1 thing in it is not what it seems", named(dir))
	case len(found) > 1:
		return fmt.Errorf("%s can be loaded, and %d things in it are not what they seem", named(dir), len(found))
	case output == "text":
		fmt.Fprintf(w, "%s can be loaded; by itself it is revision %s\n", named(dir), revision)
	}
	return nil
}

func schemaCommand() *cobra.Command {
	var write string
	c := &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of input, the document that rules look at",
		Long: `Prints the JSON Schema (draft 07) of input. The gateway holds every rule to it by itself. Editors, and opa check -s schemas, find
it as schemas/input.json in the policy directory; --write puts it there.`,
		Example: "  exitgate policy schema --write /etc/exitgate/policy",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if write != "" {
				return policy.WriteSchema(write)
			}
			_, err := c.OutOrStdout().Write(policy.InputSchema())
			return err
		},
	}
	c.Flags().StringVar(&write, "write", "", "write it to schemas/input.json below this policy directory")
	return c
}
