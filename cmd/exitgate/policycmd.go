package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate/policy/policycmd"
)

// policyCommand works on the directory that is named, or on the one in the data directory.
func policyCommand() *cobra.Command {
	c := policycmd.Command(func(c *cobra.Command) (string, error) {
		dir := filepath.Join(dataDir(c), "policy")
		if _, err := os.Stat(dir); os.IsNotExist(err) {
			return "", nil // the shipped policy alone
		}
		return dir, nil
	})
	c.AddCommand(policyDiffCommand(), policyRevisionsCommand(), policyReachCommand())
	c.Args = nil // what is not a verb below it is a wrong command line, which wrapUsage says
	return c
}
