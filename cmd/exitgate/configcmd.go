package main

import (
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
)

func configCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Check and print the configuration",
		Long: `The configuration says how the appliance runs; every key may be left out. What hosts may reach is not in it:
that is in grants, exemptions and the policy directory.`,
	}
	c.AddCommand(configCheckCommand(), configPrintCommand())
	return c
}

func configCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Say what is wrong with a configuration (default exitgate.yaml), with file, line and column",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			name := "exitgate.yaml"
			if len(args) > 0 {
				name = args[0]
			}
			if _, err := readConfig(name); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s: good\n", name)
			return nil
		},
	}
}

func configPrintCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "print [FILE]",
		Short: "Print the configuration in force, with every key, its default and what it means",
		Long: `Prints every key with its comment: of FILE, or of exitgate.yaml where there is one, or of the starter
configuration. The output is a configuration that means the same, but for passwords, which are left out.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			} else if _, err := os.Stat("exitgate.yaml"); err == nil {
				name = "exitgate.yaml"
			} else if !os.IsNotExist(err) {
				return fmt.Errorf("look for exitgate.yaml: %w", fs.ErrPermission)
			}
			cfg, err := readConfig(name)
			if err != nil {
				return err
			}
			return cfg.print(c.OutOrStdout())
		},
	}
}
