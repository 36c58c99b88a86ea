package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate"
)

func exemptCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "exempt",
		Short: "Let a class of hosts reach a destination unread (pinned applications)",
		Long: `An exemption lets one class (or one host) splice to one destination: the bytes are carried unread, because the
application accepts no certificate but its own. It still is named, limited and recorded, and it always ends.`,
	}
	c.AddCommand(exemptAddCommand(), exemptListCommand(), removeCommand("exemption", "exemptions"))
	return c
}

func exemptAddCommand() *cobra.Command {
	var x exitgate.Exemption
	var class, until, maxBytes string
	c := &cobra.Command{
		Use:   "add (--class NAME | --host NAME) --reason TEXT --until WHEN NAME[:PORT]",
		Short: "Exempt a destination",
		Example: `  exitgate exempt add --class app --until 90d --reason "pinned updater, ticket 815" updates.example.com
  exitgate exempt add --host backup-1 --until 2030-01-31 --raw --reason "ssh to the vault" vault.example.org:22`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			x.Class = exitgate.Class(class)
			if until == "" {
				return usage(c, errors.New("say until when: --until 90d; an exemption always ends"))
			}
			end, uerr := parseUntil(until, time.Now())
			x.Until = end
			if err := firstError(checkWho(class, x.Host), checkReason(x.Reason), uerr, exemptTarget(&x, args[0])); err != nil {
				return usage(c, err)
			}
			if maxBytes != "" {
				var err error
				if x.MaxBytes, err = parseSize(maxBytes); err != nil {
					return usage(c, fmt.Errorf("--max-bytes %q: %w", maxBytes, err))
				}
			}
			return addExemption(c, x)
		},
	}
	whoFlags(c, &class, &x.Host)
	f := c.Flags()
	f.StringVar(&x.Reason, "reason", "", "why (required)")
	f.StringVar(&until, "until", "", untilUsage+" (required)")
	f.StringVar(&x.ID, "id", "", "an id for it (default: one is made)")
	f.BoolVar(&x.Raw, "raw", false, "the protocol is not TLS, so that there is no name to compare (ssh, a database)")
	f.StringVar(&maxBytes, "max-bytes", "", "most bytes of one flow, both directions together, such as 10GiB")
	return c
}

// exemptTarget reads NAME, NAME:PORT or [ADDRESS]:PORT into x.
func exemptTarget(x *exitgate.Exemption, s string) error {
	if strings.Contains(s, "/") && !strings.Contains(s, "://") {
		x.To = s // a range of addresses; the gateway checks it
		return nil
	}
	if strings.Contains(s, "://") {
		return fmt.Errorf("%q: what is carried unread has no path; give the name and port only", s)
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		x.To = strings.Trim(s, "[]")
		return nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("%q: the port is not a number from 1 to 65535", s)
	}
	x.To, x.Ports = host, []uint16{uint16(n)}
	return nil
}

func addExemption(c *cobra.Command, x exitgate.Exemption) error {
	var made exitgate.Exemption
	if err := dial(c).call(c.Context(), http.MethodPost, "exemptions", x, &made); err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "exempted %s: %s may reach %s unread%s\n", made.ID, whoText(string(made.Class), made.Host),
		plain(exemptText(made)), untilSuffix(made.Until))
	return nil
}

func exemptText(x exitgate.Exemption) string {
	to := x.To
	if strings.Contains(to, ":") {
		to = "[" + to + "]"
	}
	if len(x.Ports) > 0 {
		to += ":" + portsText(x.Ports)
	}
	if x.Raw {
		to += " (raw)"
	}
	return to
}

func exemptListCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the exemptions",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := listAll[exitgate.Exemption](c, "exemptions")
			if err != nil {
				return err
			}
			rows := [][]string{{"ID", "FOR", "TO", "UNTIL", "BY", "FROM", "REASON"}}
			for _, x := range list {
				rows = append(rows, []string{plain(x.ID), whoText(string(x.Class), x.Host), plain(exemptText(x)),
					untilText(x.Until), plain(x.By), plain(x.Source), plain(x.Reason)})
			}
			return printList(c, output, list, rows, "no exemptions: everything is read\n")
		},
	}
	listFlags(c, &output)
	return c
}
