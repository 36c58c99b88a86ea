package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate/ca/trust"
)

func unenrollCommand() *cobra.Command {
	var which hostFlags
	var output string
	var dry bool
	c := &cobra.Command{
		Use:   "unenroll",
		Short: "On a host: undo all that enroll did, and tell the gateway",
		Long: `Run on a host. Undoes what "exitgate enroll" recorded, newest first: files come back as they were, roots leave every
store, the timer goes, and with it key and certificate. What somebody changed since stays; only our part is taken out.
The gateway is told when it answers; when it does not, a note says so and the rest is done all the same.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return usage(c, err)
			}
			host, err := which.host()
			if err != nil {
				return err
			}
			r, err := host.Leave(c.Context(), dry)
			if err != nil {
				return plainError(err)
			}
			if output == "json" {
				return printJSON(c.OutOrStdout(), r)
			}
			w := c.OutOrStdout()
			if !trust.Changed(r.Changes) {
				fmt.Fprintln(w, "nothing to undo: this host is not enrolled")
				return nil
			}
			if r.Gateway != "" {
				fmt.Fprintf(w, "left %s\n", plain(r.Gateway))
			}
			printChanges(w, r.Changes, r.Notes, dry)
			return nil
		},
	}
	which.register(c)
	c.Flags().BoolVar(&dry, "dry-run", false, "say what would be undone")
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return c
}
