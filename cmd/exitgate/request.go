package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/web"
)

func requestCommand() *cobra.Command {
	c := askCommand()
	c.Use = "request --reason TEXT (FLOW | URL)"
	c.Short = "Ask for access that was refused, and decide what others ask for"
	add := askCommand()
	add.Use, add.Short = "add --reason TEXT (FLOW | URL)", "File a request for access"
	c.AddCommand(add, requestListCommand(), approveCommand(), rejectCommand(), removeCommand("request", "requests"))
	return c
}

// askCommand files a request.
func askCommand() *cobra.Command {
	var ask web.Ask
	var class string
	c := &cobra.Command{
		Long: `Files a request for access: for what a flow was refused, whose id the refusal shows, or for a URL. Somebody else
approves it or rejects it. On a host that is enrolled it is sent with the host's identity; elsewhere to the gateway on
this machine, or to --api.`,
		Example: `  exitgate request --reason "package downloads of the shop" 01k8zq2v7r3m5n9w4x6t8y0abc
  exitgate request --reason "new supplier" --class app --method POST https://api.example.com/v1/orders`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkReason(ask.Reason); err != nil {
				return usage(c, err)
			}
			ask.Class = exitgate.Class(class)
			if strings.Contains(args[0], "://") {
				ask.URL = args[0]
			} else if _, err := exitgate.ParseID(args[0]); err != nil {
				return usage(c, fmt.Errorf("%.60q is neither the id of a flow nor a URL%s", args[0], didYouMean(args[0], []string{"list", "approve", "reject", "add"})))
			} else {
				ask.Flow, ask.Method = args[0], ""
			}
			return fileRequest(c, ask)
		},
	}
	f := c.Flags()
	f.StringVar(&ask.Reason, "reason", "", "why (required)")
	f.StringVar(&class, "class", "", "with a URL: the class that needs it")
	f.StringVar(&ask.Host, "host", "", "with a URL: the host that needs it")
	f.StringVar(&ask.Method, "method", "", "with a URL: the method (default GET)")
	return c
}

func fileRequest(c *cobra.Command, ask web.Ask) error {
	var q web.Request
	if enrolled, err := dialAsHost(c); err != nil {
		return err
	} else if enrolled != nil {
		err = enrolled.call(c.Context(), http.MethodPost, "requests", struct {
			Flow   string `json:"flow"`
			Method string `json:"method"`
			URL    string `json:"url"`
			Reason string `json:"reason"`
		}{ask.Flow, ask.Method, ask.URL, ask.Reason}, &q)
		if err != nil {
			return err
		}
	} else if err := dial(c).call(c.Context(), http.MethodPost, "requests", ask, &q); err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "request %s is %s: %s may %s %s\n", q.ID, q.State, whoText(string(q.Class), ""), plain(q.Method), plain(q.URL))
	fmt.Fprintf(c.OutOrStdout(), "An approver decides it: exitgate request approve %s --reason WHY\n", q.ID)
	return nil
}

func requestListCommand() *cobra.Command {
	var output, class, state string
	var all bool
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the requests that are open",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if all {
				state = ""
			}
			list, err := listAll[web.Request](c, "requests"+query("class", class, "state", state))
			if err != nil {
				return err
			}
			rows := [][]string{{"ID", "FOR", "METHOD", "URL", "STATE", "BY", "AT", "REASON"}}
			for _, q := range list {
				how := string(q.State)
				if q.State != web.StateOpen {
					how = fmt.Sprintf("%s by %s (%s)", q.State, q.DecidedBy, q.Decision)
				}
				whom := whoText(string(q.Class), "")
				if q.Host != "" {
					whom += " (" + plain(q.Host) + ")"
				}
				rows = append(rows, []string{plain(q.ID), whom, plain(q.Method), plain(q.URL), plain(how), plain(q.By), untilText(q.At), plain(q.Reason)})
			}
			return printList(c, output, list, rows, "no requests\n")
		},
	}
	listFlags(c, &output)
	c.Flags().StringVar(&class, "class", "", "only of this class")
	c.Flags().StringVar(&state, "state", string(web.StateOpen), "open, granted or rejected")
	c.Flags().BoolVar(&all, "all", false, "whatever their state")
	return c
}

func approveCommand() *cobra.Command {
	var in web.Approval
	var until string
	c := &cobra.Command{
		Use:   "approve ID --reason TEXT",
		Short: "Grant what a request asks for",
		Long: `Grants exactly what was asked for: the URL itself and its method, for the class of the host. The flags make it
narrower or wider. Who filed a request over the API cannot approve it.`,
		Example: `  exitgate request approve r-4x6t8y0a --reason "as agreed" --until 30d
  exitgate request approve r-4x6t8y0a --reason "all of it" --path /v1/ --lease 30d`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if in.Until, err = parseUntil(until, time.Now()); err != nil {
				return usage(c, err)
			}
			if err := checkReason(in.Reason); err != nil {
				return usage(c, err)
			}
			for i, m := range in.Methods {
				in.Methods[i] = strings.ToUpper(m)
			}
			var q web.Request
			if err := dial(c).call(c.Context(), http.MethodPost, "requests/"+url.PathEscape(args[0])+"/approve", in, &q); err != nil {
				return err
			}
			var g exitgate.Grant
			if err := dial(c).call(c.Context(), http.MethodGet, "grants/"+url.PathEscape(q.Grant), nil, &g); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "granted %s: %s may %s %s%s\n", g.ID, whoText(string(g.Class), g.Host),
				methodsText(g.Methods), plain(grantURL(g)), untilSuffix(g.Until))
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&in.Reason, "reason", "", "why (required)")
	f.StringVar(&in.For, "for", "class", "whom it is granted to: class, or host for the one that asked")
	f.StringVar(&until, "until", "", untilUsage)
	f.StringVar(&in.Lease, "lease", "", "end it when it is neither used nor renewed for so long, such as 30d")
	f.StringSliceVar(&in.Methods, "method", nil, "a method, instead of the one that was asked for")
	f.StringVar(&in.Path, "path", "", "a path, instead of the one that was asked for, as in a grant")
	return c
}

func rejectCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "reject ID --reason TEXT", Short: "Say no to a request",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkReason(reason); err != nil {
				return usage(c, err)
			}
			in := map[string]string{"reason": reason}
			if err := dial(c).call(c.Context(), http.MethodPost, "requests/"+url.PathEscape(args[0])+"/reject", in, nil); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "rejected %s\n", plain(args[0]))
			return nil
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why (required)")
	return c
}
