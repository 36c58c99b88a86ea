package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate/policy"
)

// keptRevisions are the revisions of the gateway whose data is in dir.
func keptRevisions(dir string) *policy.Revisions {
	return policy.NewRevisions(filepath.Join(dir, "revisions"), policy.RevisionBounds{})
}

func policyRevisionsCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "revisions",
		Short: "List the revisions of the policy that can be asked again",
		Long: `Lists the revisions that the gateway had loaded and still keeps, newest first: at most 1,000, and 256 MiB. Explain, reach and diff
take them by their first digits.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := keptRevisions(dataDir(c)).List()
			if err != nil {
				return err
			}
			if output == "json" {
				e := json.NewEncoder(c.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(list)
			}
			rows := [][]string{{"REVISION", "IN FORCE FROM", "GRANTS", "EXEMPTIONS"}}
			for _, r := range list {
				rows = append(rows, []string{r.Revision, r.At.Local().Format("2006-01-02 15:04:05"), strconv.Itoa(r.Grants), strconv.Itoa(r.Exemptions)})
			}
			st := styleFor(c.OutOrStdout())
			columns(c.OutOrStdout(), rows, func(row, _ int, s string) string {
				if row == 0 {
					return st.dim(s)
				}
				return s
			})
			if len(list) == 0 {
				fmt.Fprintln(c.ErrOrStderr(), "no revision is kept")
			}
			return nil
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return c
}

// An exitError ends the program with a code of its own, and says nothing: all was said.
type exitError int

func (exitError) Error() string { return "" }

// ExitCode is the code.
func (e exitError) ExitCode() int { return int(e) }
