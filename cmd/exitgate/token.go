package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/web"
)

func tokenCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "token",
		Short: "Make the tokens with which machines use the API (Terraform, pipelines, --api)",
		Long: `An API token has a role: viewer (read what is granted), auditor (and the records), provisioner (and register hosts,
without the records), editor (and change classes, grants, exemptions and requests), admin (everything). A provisioner
or an editor can be bound to classes. Hosts enrol with other tokens: see "exitgate host token".`,
	}
	c.AddCommand(tokenAddCommand(), tokenListCommand(), removeCommand("API token", "api-tokens"))
	return c
}

func tokenAddCommand() *cobra.Command {
	var t web.APIToken
	var role, until, file, output string
	var classes []string
	c := &cobra.Command{
		Use:   "add NAME --role ROLE --reason TEXT",
		Short: "Make an API token",
		Example: `  exitgate token add terraform --role editor --until 90d --reason "infrastructure repository" --secret-file token
  exitgate token add runners --role provisioner --class build --reason "autoscaling"`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			t.Name, t.Role = args[0], web.Role(role)
			for _, class := range classes {
				t.Classes = append(t.Classes, exitgate.Class(class))
			}
			if role == "" {
				return usage(c, errors.New("say what it may do: --role viewer, auditor, provisioner, editor or admin"))
			}
			if t.Until, err = parseUntil(until, time.Now()); err != nil {
				return usage(c, err)
			}
			if err := checkReason(t.Reason); err != nil {
				return usage(c, err)
			}
			var made web.APIToken
			if err := dial(c).call(c.Context(), http.MethodPost, "api-tokens", t, &made); err != nil {
				return err
			}
			if output == "json" {
				return printList(c, output, made, nil, "")
			}
			head := fmt.Sprintf("API token %s: %s is %s, until %s", made.ID, made.Name, made.Role, untilText(made.Until))
			return printSecret(c, head, made.Secret, file, "Clients send it as Authorization: Bearer; exitgate reads it from the file that EXITGATE_TOKEN_FILE names.")
		},
	}
	f := c.Flags()
	f.StringVar(&role, "role", "", "what it may do: viewer, auditor, provisioner, editor or admin (required)")
	f.StringSliceVar(&classes, "class", nil, "a class that it may change, and no others; may be given several times")
	f.StringVar(&until, "until", "", untilUsage+" (default 90d)")
	f.StringVar(&t.Reason, "reason", "", "why (required)")
	secretFlags(c, &file, &output)
	return c
}

// secretFlags are for verbs that make a secret.
func secretFlags(c *cobra.Command, file, output *string) {
	c.Flags().StringVar(file, "secret-file", "", "write the secret into this new file, which only you can read, and do not print it")
	c.Flags().StringVarP(output, "output", "o", "text", "text or json")
}

// printSecret shows a secret, which is shown only now, or writes it into a file.
func printSecret(c *cobra.Command, head, secret, file, hint string) error {
	w := c.OutOrStdout()
	if file == "" {
		fmt.Fprintf(w, "%s\nIts secret is shown only now:\n\n  %s\n\n%s\n", head, secret, hint)
		return nil
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_, err = f.WriteString(secret + "\n")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("%s, but its secret cannot be written and is lost: %w\nremove the token, and make another", head, err)
	}
	fmt.Fprintf(w, "%s\nIts secret is in %s.\n\n%s\n", head, file, hint)
	return nil
}

func tokenListCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the API tokens",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := listAll[web.APIToken](c, "api-tokens")
			if err != nil {
				return err
			}
			rows := [][]string{{"ID", "NAME", "ROLE", "CLASSES", "USED", "UNTIL", "BY", "REASON"}}
			for _, t := range list {
				var classes []string
				for _, class := range t.Classes {
					classes = append(classes, string(class))
				}
				rows = append(rows, []string{plain(t.ID), plain(t.Name), plain(string(t.Role)), dash(strings.Join(classes, ",")),
					untilText(t.Used), untilText(t.Until), plain(t.By), plain(t.Reason)})
			}
			return printList(c, output, list, rows, "no API tokens\n")
		},
	}
	listFlags(c, &output)
	return c
}
