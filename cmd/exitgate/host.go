package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/web"
)

func hostCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "host",
		Short: "Register hosts, and make the tokens that they enrol with",
		Long: `A host is known by its address, or by the identity that it gets when it enrols with a token. Hosts that stand in the
configuration are listed here too; they are changed there.`,
	}
	c.AddCommand(hostAddCommand(), hostListCommand(), hostTokenCommand(),
		ableCommand("disable", true), ableCommand("enable", false), removeCommand("host", "hosts"))
	return c
}

func hostAddCommand() *cobra.Command {
	var h web.Host
	var class string
	var addresses []string
	var replace bool
	c := &cobra.Command{
		Use:   "add NAME --class CLASS --reason TEXT",
		Short: "Register a host",
		Example: `  exitgate host add web-01 --class app --address 192.0.2.10 --reason "shop front"
  exitgate host add runners --class build --address 192.0.2.128/28 --reason "CI subnet"`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			h.Name, h.Class = args[0], exitgate.Class(class)
			if class == "" {
				return usage(c, errors.New("say of which class: --class NAME"))
			}
			if h.Addresses, err = rangesOf("address", addresses); err != nil {
				return usage(c, err)
			}
			if err := checkReason(h.Reason); err != nil {
				return usage(c, err)
			}
			var made web.Host
			if err := make1(c, "hosts", h.Name, replace, h, &made); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "host %s is registered: class %s, %s\n", made.Name, made.Class, cmp.Or(addressesText(made.Addresses), "no addresses"))
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&class, "class", "", "its class (required)")
	f.StringSliceVar(&addresses, "address", nil, "an address or a range (CIDR) that its connections come from; may be given several times")
	f.StringVar(&h.Reason, "reason", "", "why (required)")
	replaceFlag(c, &replace)
	return c
}

func rangesOf(flag string, list []string) (out []web.Range, err error) {
	for _, s := range list {
		r, err := web.ParseRange(s)
		if err != nil {
			return nil, fmt.Errorf("--%s: %w", flag, err)
		}
		out = append(out, r)
	}
	return out, nil
}

func addressesText(list []web.Range) string {
	words := make([]string, len(list))
	for i, r := range list {
		words[i] = r.String()
	}
	if len(words) > 4 {
		words = append(words[:3], fmt.Sprintf("and %d more", len(list)-3))
	}
	return strings.Join(words, " ")
}

func hostListCommand() *cobra.Command {
	var output, class string
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the hosts",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := listAll[web.Host](c, "hosts"+query("class", class))
			if err != nil {
				return err
			}
			rows := [][]string{{"NAME", "CLASS", "ADDRESSES", "SEEN", "IDENTITY UNTIL", "STATE", "BY", "FROM", "REASON"}}
			for _, h := range list {
				state, identity := "enabled", "-"
				if h.Disabled {
					state = "disabled"
				}
				if h.Identity != nil {
					identity = untilText(h.Identity.NotAfter)
				}
				rows = append(rows, []string{plain(h.Name), plain(string(h.Class)), dash(addressesText(h.Addresses)), untilText(h.Seen), identity,
					state, dash(h.By), plain(h.Source), dash(h.Reason)})
			}
			return printList(c, output, list, rows, "no hosts: everybody is unknown, and refused\n")
		},
	}
	listFlags(c, &output)
	c.Flags().StringVar(&class, "class", "", "only of this class")
	return c
}

// ableCommand disables or enables a host.
func ableCommand(verb string, disabled bool) *cobra.Command {
	var reason string
	short := map[bool]string{true: "Refuse a host, whatever is granted, from now on", false: "Let a host pass again"}[disabled]
	c := &cobra.Command{
		Use: verb + " NAME --reason TEXT", Short: short,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkReason(reason); err != nil {
				return usage(c, err)
			}
			var h web.Host
			err := edit(c, "hosts/"+url.PathEscape(args[0]), &h, func() { h.Disabled, h.Reason = disabled, reason })
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%sd host %s\n", verb, plain(args[0]))
			return nil
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why (required)")
	return c
}

// edit reads an entry into v, changes it and puts it back, unless somebody else changed it meanwhile.
func edit(c *cobra.Command, path string, v any, change func()) error {
	gateway := dial(c)
	res, err := gateway.send(c.Context(), http.MethodGet, path, nil, "application/json")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(v); err != nil {
		return fmt.Errorf("read the gateway's answer: %w", err)
	}
	change()
	header := []string{}
	if tag := res.Header.Get("ETag"); tag != "" {
		header = append(header, "If-Match", tag)
	}
	put, err := gateway.send(c.Context(), http.MethodPut, path, v, "application/json", header...)
	if err != nil {
		return err
	}
	return put.Body.Close()
}

func hostTokenCommand() *cobra.Command {
	var t web.HostToken
	var class, ttl, file, output string
	var networks []string
	c := &cobra.Command{
		Use:   "token --class CLASS --reason TEXT",
		Short: "Make a token that hosts enrol with, and print what to run on the host",
		Long: `Makes a token with which a host gets its identity, its class and all that it needs to use the gateway. It is shown
once. A token without --host enrols any name that is free; a host that is registered already enrols anew only with a
token that names it.`,
		Example: `  exitgate host token --class build --host runner-07 --reason "new runner"
  exitgate host token --class build --uses 50 --ttl 30d --network 192.0.2.128/25 --reason "autoscaling group"`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			t.Class = exitgate.Class(class)
			if class == "" {
				return usage(c, errors.New("say for which class: --class NAME"))
			}
			if t.Networks, err = rangesOf("network", networks); err != nil {
				return usage(c, err)
			}
			if t.Until, err = parseUntil(ttl, time.Now()); err != nil {
				return usage(c, errors.New(strings.Replace(err.Error(), "--until", "--ttl", 1)))
			}
			if err := checkReason(t.Reason); err != nil {
				return usage(c, err)
			}
			return makeHostToken(c, t, file, output)
		},
	}
	f := c.Flags()
	f.StringVar(&class, "class", "", "the class of the hosts that it enrols (required)")
	f.StringVar(&t.Host, "host", "", "the one host that it enrols")
	f.IntVar(&t.Uses, "uses", 1, "how many hosts it enrols")
	f.StringVar(&ttl, "ttl", "1d", "how long it is valid, or until when")
	f.StringSliceVar(&networks, "network", nil, "where it may be used from (CIDR); may be given several times")
	f.StringVar(&t.Reason, "reason", "", "why (required)")
	secretFlags(c, &file, &output)
	c.AddCommand(hostTokenListCommand(), removeCommand("host token", "host-tokens"))
	return c
}

func makeHostToken(c *cobra.Command, t web.HostToken, file, output string) error {
	gateway := dial(c)
	var trust web.Trust
	if err := gateway.call(c.Context(), http.MethodGet, "trust", nil, &trust); err != nil {
		return err
	}
	var made web.HostToken
	if err := gateway.call(c.Context(), http.MethodPost, "host-tokens", t, &made); err != nil {
		return err
	}
	if output == "json" {
		return printList(c, output, made, nil, "")
	}
	whom := fmt.Sprintf("%d hosts", made.Uses)
	if made.Uses == 1 {
		whom = "one host"
	}
	if made.Host != "" {
		whom = "host " + made.Host
	}
	head := fmt.Sprintf("token %s enrols %s of class %s, until %s", made.ID, whom, made.Class, untilText(made.Until))
	return printSecret(c, head, made.Secret, file, enrolHint(trust, made))
}

// enrolHint says what to run on a host that has the token.
func enrolHint(trust web.Trust, t web.HostToken) string {
	if trust.Enroll == "" {
		return "This gateway has no listener for enrolment: set listen.enroll."
	}
	name := ""
	if t.Host != "" {
		name = " --name " + shellQuote(t.Host)
	}
	command := []string{"exitgate", "enroll", "--gateway", trust.Enroll, "--fingerprint", trust.Identity, "--token", "-"}
	return "On the host, as root; it asks for the token:\n\n  " + enrolCommand(trust.Enroll, trust.Identity) + name +
		"\n\nThe same where exitgate is installed:\n\n  " + strings.Join(quoteAll(command), " ") + name
}

func hostTokenListCommand() *cobra.Command {
	var output, class string
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the tokens that hosts enrol with",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := listAll[web.HostToken](c, "host-tokens"+query("class", class))
			if err != nil {
				return err
			}
			rows := [][]string{{"ID", "CLASS", "HOST", "USED", "UNTIL", "FROM NETWORKS", "BY", "REASON"}}
			for _, t := range list {
				rows = append(rows, []string{plain(t.ID), plain(string(t.Class)), dash(t.Host), fmt.Sprintf("%d of %d", t.Used, t.Uses),
					untilText(t.Until), dash(addressesText(t.Networks)), plain(t.By), plain(t.Reason)})
			}
			return printList(c, output, list, rows, "no host tokens\n")
		},
	}
	listFlags(c, &output)
	c.Flags().StringVar(&class, "class", "", "only of this class")
	return c
}
