package main

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/web"
)

func classCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "class",
		Short: "Make the classes that hosts are provisioned into",
		Long: `A class is a kind of host (app, build, ...): what access is granted to. Classes that stand in the configuration are
listed here too; they are changed there.`,
	}
	c.AddCommand(classAddCommand(), classListCommand(), removeCommand("class", "classes"))
	return c
}

func classAddCommand() *cobra.Command {
	var class web.Class
	var replace bool
	c := &cobra.Command{
		Use:   "add NAME --reason TEXT",
		Short: "Make a class",
		Example: `  exitgate class add build --description "CI runners" --reason "new CI, ticket 4711"
  exitgate class add build --audit --reason "learn what it needs for a week" --replace`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			class.Name = exitgate.Class(args[0])
			if err := checkReason(class.Reason); err != nil {
				return usage(c, err)
			}
			var made web.Class
			if err := make1(c, "classes", args[0], replace, class, &made); err != nil {
				return err
			}
			audit := ""
			if made.Audit {
				audit = ", in audit mode: what policy would refuse is carried and recorded"
			}
			fmt.Fprintf(c.OutOrStdout(), "class %s is made%s\n", made.Name, audit)
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&class.Description, "description", "", "what hosts are of it")
	f.BoolVar(&class.Audit, "audit", false, "carry what policy would refuse, and record that it would")
	f.StringVar(&class.Reason, "reason", "", "why (required)")
	replaceFlag(c, &replace)
	return c
}

func replaceFlag(c *cobra.Command, replace *bool) {
	c.Flags().BoolVar(replace, "replace", false, "put it in place of the one that is there")
}

// make1 makes one entry of a collection, or puts it in place of another.
func make1(c *cobra.Command, collection, id string, replace bool, in, out any) error {
	method, path := http.MethodPost, collection
	if replace {
		method, path = http.MethodPut, collection+"/"+url.PathEscape(id)
	}
	return dial(c).call(c.Context(), method, path, in, out)
}

func classListCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the classes",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := listAll[web.Class](c, "classes")
			if err != nil {
				return err
			}
			rows := [][]string{{"NAME", "MODE", "DESCRIPTION", "BY", "FROM", "REASON"}}
			for _, class := range list {
				mode := "enforced"
				if class.Audit {
					mode = "audit"
				}
				rows = append(rows, []string{plain(string(class.Name)), mode, dash(class.Description), dash(class.By), plain(class.Source), dash(class.Reason)})
			}
			return printList(c, output, list, rows, "no classes\n")
		},
	}
	listFlags(c, &output)
	return c
}

// dash returns s as it is shown in a table, where nothing is a dash.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return plain(s)
}
