package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage"
)

func demoCommand() *cobra.Command {
	var fast, once bool
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show every kind of flow with sample hosts, origins and traffic",
		Long: `Runs a gateway in a temporary directory, with sample origins on this machine, hosts of three classes, grants and an
exemption, and a minute of traffic: allowed, refused, over a limit, exempted, and with origins that fail. Then it
keeps serving, so that you can look around, until it is interrupted; the directory is removed at the end.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := os.MkdirTemp("", "exitgate-demo-")
			if err != nil {
				return fmt.Errorf("make a directory for the demo: %w", err)
			}
			defer os.RemoveAll(dir)
			d := &demo{out: c.OutOrStdout(), style: styleFor(c.OutOrStdout()), dir: dir, fast: fast, once: once}
			return d.run(c)
		},
	}
	c.Flags().BoolVar(&fast, "fast", false, "do not pause between requests")
	c.Flags().BoolVar(&once, "once", false, "end when the traffic has ended")
	return c
}

// A demo is one run of the verb.
type demo struct {
	out        io.Writer
	style      style
	dir        string
	fast, once bool
	gateway    *gateway
	origins    *origins

	counts map[string]int    // flows by outcome, owned by watch
	sample map[string]string // the ID of one flow of each outcome, owned by watch
}

func (d *demo) run(c *cobra.Command) error {
	ctx, hurry, stop := signals(c.Context())
	defer stop()
	origins, err := openOrigins(d.dir)
	if err != nil {
		return err
	}
	defer origins.close()
	d.origins = origins
	file := filepath.Join(d.dir, "exitgate.yaml")
	if err := os.WriteFile(file, []byte(d.config(origins)), 0o600); err != nil {
		return fmt.Errorf("write the demo's configuration: %w", err)
	}
	cfg, err := readConfig(file)
	if err != nil {
		return err
	}
	if d.gateway, err = openGateway(ctx, cfg, file, newLogger(c.ErrOrStderr(), cfg.Log)); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	serving, stopServing := context.WithCancel(ctx)
	defer stopServing()
	served := make(chan error, 1)
	go func() { served <- d.gateway.serve(serving, hurry) }()
	err = d.show(ctx, c)
	if err == nil && !d.once && ctx.Err() == nil {
		fmt.Fprintln(d.out, "\nServing until you interrupt (Ctrl-C).")
		<-ctx.Done()
	}
	stopServing()
	return errors.Join(err, <-served)
}

// show makes the grants, then the traffic, prints each flow as it ends, and sums up.
func (d *demo) show(ctx context.Context, c *cobra.Command) error {
	fmt.Fprintf(d.out, "%s\n\n  %s %s\n  %s %s\n\n", d.style.bold("exitgate demo"),
		d.style.dim("proxy         "), d.gateway.listenProxy.Addr(),
		d.style.dim("configuration "), filepath.Join(d.dir, "exitgate.yaml"))
	c.Flags().Set("data", filepath.Join(d.dir, "data"))
	if err := d.permit(ctx, dial(c)); err != nil {
		return err
	}
	fmt.Fprintln(d.out)
	tail, stopTail := context.WithCancel(ctx)
	defer stopTail()
	flows := d.gateway.journal.Tail(tail, storage.Filter{})
	var wg sync.WaitGroup
	ended := make(chan struct{}, 4096) // one for each flow: more than the traffic makes
	wg.Go(func() { d.watch(flows, ended) })
	want, err := d.traffic(ctx)
	for i := 0; i < want && err == nil; i++ {
		select {
		case <-ended:
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(10 * time.Second):
			err = fmt.Errorf("the demo made %d requests and saw %d flows", want, i)
		}
	}
	stopTail()
	wg.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	if err == nil {
		d.sum()
	}
	return err
}

// permit adds what hosts may do, through the admin API, as the verbs grant and exempt do.
func (d *demo) permit(ctx context.Context, api *client) error {
	for _, g := range demoGrants() {
		if err := api.call(ctx, http.MethodPost, "grants", g, nil); err != nil {
			return fmt.Errorf("grant: %w", err)
		}
		fmt.Fprintf(d.out, "  granted   class %-6s %-9s %s\n", g.Class, methodsText(g.Methods), grantURL(g))
	}
	for _, x := range demoExemptions(time.Now()) {
		if err := api.call(ctx, http.MethodPost, "exemptions", x, nil); err != nil {
			return fmt.Errorf("exempt: %w", err)
		}
		fmt.Fprintf(d.out, "  exempted  class %-6s %-9s %s (%s)\n", x.Class, "unread", exemptText(x), x.Reason)
	}
	return nil
}

func demoGrants() []exitgate.Grant {
	grant := func(id string, class exitgate.Class, to string, g exitgate.Grant) exitgate.Grant {
		g.ID, g.Class, g.To = id, class, to
		return g
	}
	return []exitgate.Grant{
		grant("packages", "build", "packages.example.com", exitgate.Grant{Paths: []string{"/simple"}, MaxResponse: 1 << 20, Reason: "package downloads"}),
		grant("orders", "app", "api.example.com", exitgate.Grant{Methods: []string{"POST"}, Paths: []string{"/v1/orders$"}, MaxRequest: 64 << 10, Reason: "orders, ticket 4711"}),
		grant("status", "app", "api.example.com", exitgate.Grant{Paths: []string{"/v1/status"}, Reason: "health checks"}),
		grant("team", "ci", "git.example.org", exitgate.Grant{Paths: []string{"/team"}, Reason: "our repositories"}),
		grant("mirror", "ci", "mirror.example.org", exitgate.Grant{Scheme: "http", Paths: []string{"/debian"}, Reason: "signed packages over plain HTTP"}),
		grant("partners", "ci", "*.partners.example.net", exitgate.Grant{Methods: []string{"*"}, Reason: "origins that fail, each in its way"}),
	}
}

func demoExemptions(now time.Time) []exitgate.Exemption {
	return []exitgate.Exemption{{ID: "updater", Class: "app", To: "updates.example.net", Until: now.AddDate(0, 1, 0).UTC().Truncate(time.Second),
		Reason: "the updater pins its certificate"}}
}

// watch prints a line for each flow that ends.
func (d *demo) watch(flows <-chan *exitgate.Flow, ended chan<- struct{}) {
	d.counts, d.sample = map[string]int{}, map[string]string{}
	for f := range flows {
		word := outcomeWord(f)
		kind := word
		if f.Verdict.Rule == exitgate.RuleLimit || f.RequestBody == exitgate.BodyOverLimit || f.ResponseBody == exitgate.BodyOverLimit {
			kind = "over a limit"
		}
		d.counts[kind]++
		d.sample[kind] = f.ID.String()
		why := ""
		switch {
		case f.Fault != nil:
			why = f.Fault.Reason
		case f.Outcome() == exitgate.OutcomeRefused:
			why = f.Verdict.Reason
		}
		fmt.Fprintf(d.out, "%s  %s  %-17s %-4s %3s %9s  %s\n", f.Begin.Local().Format(time.TimeOnly), d.style.outcome(fmt.Sprintf("%-7s", word)),
			hostText(f.Question.Host), methodText(f), statusText(f), bytesText(f.Received.Body), whatText(f))
		if why != "" {
			fmt.Fprintf(d.out, "%s\n", d.style.dim("                   "+plain(why)))
		}
		ended <- struct{}{}
	}
}

// sum says what was seen and what to try.
func (d *demo) sum() {
	total := 0
	for _, n := range d.counts {
		total += n
	}
	fmt.Fprintf(d.out, "\n%s\n\n", d.style.bold(fmt.Sprintf("%d flows", total)))
	for _, kind := range []struct{ name, what string }{
		{"allowed", "carried to the end, under a grant"},
		{"refused", "policy, or a law of the gateway, said no"},
		{"over a limit", "a body larger than its grant allows: stopped, and not delivered whole"},
		{"spliced", "carried unread under an exemption, still named and counted"},
		{"fault", "granted, but the origin failed: never shown as a refusal"},
	} {
		fmt.Fprintf(d.out, "  %3d  %s  %s\n", d.counts[kind.name], d.style.outcome(fmt.Sprintf("%-12s", kind.name)), kind.what)
	}
	if d.once {
		return
	}
	ex := strings.Join(quoteAll(d.gateway.command()), " ")
	fmt.Fprintf(d.out, `
Try, in another terminal:

  %[1]s explain %[2]s        why it was refused
  %[1]s flows show %[3]s     what is known of one that was carried unread
  %[1]s flows outcome:refused class:build
  %[1]s explain --class build --method POST https://packages.example.com/upload
  %[1]s grant list

  # be the build host, whose address is 127.0.0.12
  curl --interface 127.0.0.12 --cacert %[4]s -x http://%[5]s https://packages.example.com/simple/
`, ex, d.sample["refused"], d.sample["spliced"], shellQuote(d.gateway.issuer.RootFile()), d.gateway.listenProxy.Addr())
}
