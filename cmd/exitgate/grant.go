package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/policy"
	"github.com/exitgate/exitgate/web"
)

func grantCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "grant",
		Short: "Let a class of hosts, or one host, reach a resource",
		Long: `A grant lets one class (or one host) reach one resource: destination, path, methods and limits, with who,
why and until when. A change holds from the next request on. Grants that stand in the policy directory are
listed here too; they are changed there.`,
	}
	c.AddCommand(grantAddCommand(), grantListCommand(), grantRenewCommand(), grantRemoveCommand())
	return c
}

func grantAddCommand() *cobra.Command {
	var g exitgate.Grant
	var class, until, maxRequest, maxResponse string
	var headers map[string]string
	c := &cobra.Command{
		Use:   "add (--class NAME | --host NAME) --reason TEXT URL",
		Short: "Grant access to a URL and all below it",
		Long: `Grants access to a URL and all below it: https://example.com/api is /api and /api/..., never /apis. A path that
ends in "$" is only itself, one that ends in "/" only what is below it, and a segment "*" any one segment.
https://*.example.com/ is every name below example.com, but not example.com itself. Without --method, GET and HEAD
are granted.`,
		Example: `  exitgate grant add --class build --reason "package downloads" https://packages.example.com/simple
  exitgate grant add --class app --method POST --max-request 64KiB --until 30d \
      --reason "orders, ticket 4711" 'https://api.example.org/v1/orders$'`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			g.Class = exitgate.Class(class)
			if err := firstError(checkWho(class, g.Host), checkReason(g.Reason)); err != nil {
				return usage(c, err)
			}
			return addGrant(c, g, args[0], until, maxRequest, maxResponse, headers)
		},
	}
	f := c.Flags()
	whoFlags(c, &class, &g.Host)
	f.StringSliceVar(&g.Methods, "method", nil, `a method that is granted ("*" any); may be given several times`)
	f.StringVar(&g.Reason, "reason", "", "why (required)")
	f.StringVar(&until, "until", "", untilUsage)
	f.StringVar(&g.Lease, "lease", "", "end it when it is neither used nor renewed for so long, such as 30d")
	f.StringVar(&g.ID, "id", "", "an id for it (default: one is made)")
	f.StringVar(&maxRequest, "max-request", "", "largest request body, such as 64KiB")
	f.StringVar(&maxResponse, "max-response", "", "largest response body, such as 100MiB")
	f.StringToStringVar(&headers, "header", nil, "a request header and the glob that a value of it must match, as name=glob")
	f.BoolVar(&g.EncodedSlash, "encoded-slash", false, "this server takes %2F inside a path segment")
	f.BoolVar(&g.Audit, "audit", false, "carry, and record that it would be refused")
	return c
}

// addGrant completes g with what the URL and the flags say and sends it.
func addGrant(c *cobra.Command, g exitgate.Grant, target, until, maxRequest, maxResponse string, headers map[string]string) error {
	t, err := policy.ParseGrantTarget(target)
	if err != nil {
		return usage(c, err)
	}
	g.To, g.Scheme = t.To, t.Scheme
	if t.Port != 0 {
		g.Ports = []uint16{t.Port}
	}
	if t.Path != "" {
		g.Paths = []string{t.Path}
	}
	if g.Until, err = parseUntil(until, time.Now()); err != nil {
		return usage(c, err)
	}
	for _, s := range []struct {
		flag, text string
		to         *int64
	}{{"max-request", maxRequest, &g.MaxRequest}, {"max-response", maxResponse, &g.MaxResponse}} {
		if s.text == "" {
			continue
		}
		if *s.to, err = parseSize(s.text); err != nil {
			return usage(c, fmt.Errorf("--%s %q: %w", s.flag, s.text, err))
		}
	}
	for i, m := range g.Methods {
		g.Methods[i] = strings.ToUpper(m)
	}
	for name, glob := range headers {
		if g.Headers == nil {
			g.Headers = map[string]string{}
		}
		g.Headers[strings.ToLower(name)] = glob
	}
	var made exitgate.Grant
	if err := dial(c).call(c.Context(), http.MethodPost, "grants", g, &made); err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "granted %s: %s may %s %s%s\n", made.ID, whoText(string(made.Class), made.Host),
		methodsText(made.Methods), plain(grantURL(made)), untilSuffix(made.Until))
	return nil
}

func untilSuffix(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return ", until " + untilText(t)
}

func methodsText(methods []string) string {
	switch {
	case len(methods) == 0:
		return "GET,HEAD"
	case len(methods) == 1 && methods[0] == "*":
		return "use any method on"
	}
	return plain(strings.Join(methods, ","))
}

// grantURL writes what a grant reaches the way it would be granted.
func grantURL(g exitgate.Grant) string {
	scheme := g.Scheme
	switch scheme {
	case "":
		scheme = "https"
	case "any":
		scheme = "http(s)"
	}
	to := g.To
	if strings.Contains(to, ":") {
		to = "[" + to + "]"
	}
	if len(g.Ports) > 0 {
		to += ":" + portsText(g.Ports)
	}
	path := "/"
	if len(g.Paths) > 0 {
		path = strings.Join(g.Paths, " ")
	}
	return scheme + "://" + to + path
}

func grantListCommand() *cobra.Command {
	var output, class, host, unused string
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the grants that hold",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return listGrants(c, output, class, host, unused)
		},
	}
	listFlags(c, &output)
	c.Flags().StringVar(&class, "class", "", "only of this class")
	c.Flags().StringVar(&host, "host", "", "only of this host")
	c.Flags().StringVar(&unused, "unused", "", "only what was made and not used for so long, such as 30d")
	return c
}

func listGrants(c *cobra.Command, output, class, host, unused string) error {
	var since time.Time
	if unused != "" {
		d, err := parseDuration(unused)
		if err != nil {
			return usage(c, fmt.Errorf("--unused %q: %w", unused, err))
		}
		since = time.Now().Add(-d)
	}
	list, err := listAll[exitgate.Grant](c, "grants"+query("class", class, "host", host))
	if err != nil {
		return err
	}
	uses, err := listAll[web.Use](c, "uses")
	if err != nil {
		return err
	}
	last := map[string]time.Time{}
	for _, u := range uses {
		last[u.ID] = u.Last
	}
	rows := [][]string{{"ID", "FOR", "METHODS", "TO", "USED", "UNTIL", "BY", "FROM", "REASON"}}
	kept := []exitgate.Grant{}
	for _, g := range list {
		if !since.IsZero() && (g.At.After(since) || last[g.ID].After(since)) {
			continue
		}
		kept = append(kept, g)
		until := untilText(g.Until)
		if g.Lease != "" {
			until = strings.TrimPrefix(until+" or ", "- or ") + plain(g.Lease) + " unused"
		}
		rows = append(rows, []string{plain(g.ID), whoText(string(g.Class), g.Host), strings.Replace(methodsText(g.Methods), "use any method on", "*", 1),
			plain(grantURL(g)), untilText(last[g.ID]), until, plain(g.By), plain(g.Source), plain(g.Reason)})
	}
	return printList(c, output, kept, rows, "no grants: everything is refused\n")
}

// query writes names and values as the query of a URL, without those that are empty.
func query(pairs ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	if len(q) == 0 {
		return ""
	}
	return "?" + q.Encode()
}

func grantRenewCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "renew ID --reason TEXT", Short: "Let the lease of a grant begin anew",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkReason(reason); err != nil {
				return usage(c, err)
			}
			var g exitgate.Grant
			in := map[string]string{"reason": reason}
			if err := dial(c).call(c.Context(), http.MethodPost, "grants/"+url.PathEscape(args[0])+"/renew", in, &g); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "renewed %s: it ends when it is not used for %s%s\n", g.ID, plain(g.Lease), untilSuffix(g.Until))
			return nil
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why (required)")
	return c
}

func listFlags(c *cobra.Command, output *string) {
	c.Flags().StringVarP(output, "output", "o", "table", "table or json")
}

// printList prints rows, the first of which is the heading, or list as JSON.
func printList(c *cobra.Command, output string, list any, rows [][]string, none string) error {
	w := c.OutOrStdout()
	switch output {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(list)
	case "table":
	default:
		return usage(c, fmt.Errorf("-o %q: it is table or json", output))
	}
	if len(rows) == 1 {
		fmt.Fprint(c.ErrOrStderr(), none)
		return nil
	}
	st := styleFor(w)
	columns(w, rows, func(row, _ int, s string) string {
		if row == 0 {
			return st.dim(s)
		}
		return s
	})
	return nil
}

// article writes a noun with its article.
func article(noun string) string {
	if strings.ContainsAny(noun[:1], "aeiouA") {
		return "an " + noun
	}
	return "a " + noun
}

func grantRemoveCommand() *cobra.Command { return removeCommand("grant", "grants") }

// removeCommand removes an entry of the collection, by its id.
func removeCommand(noun, collection string) *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "rm ID --reason TEXT", Aliases: []string{"remove"}, Short: "Remove " + article(noun),
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return removeEntry(c, noun, collection, args[0], reason)
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why (required)")
	return c
}

func removeEntry(c *cobra.Command, noun, collection, id, reason string) error {
	if err := checkReason(reason); err != nil {
		return usage(c, err)
	}
	path := collection + "/" + url.PathEscape(id) + query("reason", reason)
	if err := dial(c).call(c.Context(), http.MethodDelete, path, nil, nil); err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "removed %s %s\n", noun, plain(id))
	return nil
}
