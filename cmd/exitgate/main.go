package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

func main() { os.Exit(mainExit(os.Args[1:])) }

// mainExit runs one command line and returns the exit code.
func mainExit(args []string) int {
	root := rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return 0
	}
	if err.Error() != "" { // the mounted policy tools have said it already
		fmt.Fprintln(os.Stderr, "exitgate:", err)
	}
	var usage *usageError
	if errors.As(err, &usage) {
		return 2
	}
	var coded exitError
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	return 1
}

// rootCommand lists every verb.
func rootCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "exitgate",
		Short: "A gateway for the traffic that leaves a private network",
		Long: `Exitgate is a gateway for the traffic that leaves a private network. It knows each host and its class, reads
what the host sends, asks a policy about every destination and request, carries what is granted, refuses the
rest quickly and recognisably, and records every flow.

Begin with "exitgate run", which needs no configuration, or "exitgate demo", which shows every kind of flow.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.PersistentFlags().String("data", "", "data directory of the gateway (default $EXITGATE_DATA, or "+defaultData()+")")
	c.PersistentFlags().String("api", "", "URL of a gateway's API, instead of the one on this machine (default $EXITGATE_API)")
	c.PersistentFlags().String("api-token-file", "", "file with the token for --api (default $EXITGATE_TOKEN_FILE)")
	c.PersistentFlags().String("api-ca", "", "file with the CA certificate of --api (default $EXITGATE_API_CA, or the system's)")
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usage(c, err) })
	c.AddGroup(&cobra.Group{ID: "gateway", Title: "The gateway:"}, &cobra.Group{ID: "access", Title: "Who may reach what:"},
		&cobra.Group{ID: "look", Title: "What happened, and why:"}, &cobra.Group{ID: "host", Title: "On a host behind the gateway:"})
	add := func(group string, commands ...*cobra.Command) {
		for _, sub := range commands {
			sub.GroupID = group
			c.AddCommand(sub)
		}
	}
	add("gateway", runCommand(), demoCommand(), statusCommand(), reloadCommand(), configCommand(), caCommand())
	add("access", classCommand(), hostCommand(), grantCommand(), exemptCommand(), requestCommand(), policyCommand(), tokenCommand(), renderCommand(), auditCommand())
	add("look", flowsCommand(), explainCommand(), doctorCommand())
	add("host", enrollCommand(), unenrollCommand(), trustCommand())
	c.AddCommand(versionCommand())
	wrapUsage(c)
	return c
}

// A usageError is a command line that is wrong: exit code 2.
type usageError struct {
	err  error
	hint string
}

func (u *usageError) Error() string { return u.err.Error() + "\n" + u.hint }

// Unwrap returns what is wrong.
func (u *usageError) Unwrap() error { return u.err }

func usage(c *cobra.Command, err error) error {
	return &usageError{err, fmt.Sprintf("%q says how it is used", c.CommandPath()+" --help")}
}

// wrapUsage makes wrong arguments, of c and of every verb below it, usage errors; a verb that only holds others
// refuses what it does not know.
func wrapUsage(c *cobra.Command) {
	if args := c.Args; args != nil {
		c.Args = func(c *cobra.Command, a []string) error {
			if err := args(c, a); err != nil {
				return usage(c, err)
			}
			return nil
		}
	} else if c.HasSubCommands() && c.Run == nil && c.RunE == nil {
		c.Args = cobra.ArbitraryArgs // else cobra answers for the root, in its own words
		c.RunE = func(c *cobra.Command, a []string) error {
			if len(a) == 0 {
				return c.Help()
			}
			return usage(c, unknownVerb(c, a[0]))
		}
	}
	for _, sub := range c.Commands() {
		wrapUsage(sub)
	}
}

func unknownVerb(c *cobra.Command, arg string) error {
	var words []string
	for _, sub := range c.Commands() {
		words = append(words, sub.Name())
	}
	return fmt.Errorf("%q has no verb %q%s", c.CommandPath(), arg, didYouMean(arg, words))
}
