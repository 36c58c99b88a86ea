package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/policy"
)

func policyReachCommand() *cobra.Command {
	var class, host, of, against, output string
	var exitCode bool
	c := &cobra.Command{
		Use:   "reach --class CLASS",
		Short: "Say all that a class can get at, and what another policy would widen or narrow",
		Long: `Lists what hosts of a class can get at under the policy that the gateway has loaded, the widest first: destinations and how
many they are, methods, paths, the largest bodies, and until when. With --host, what is granted to that host by itself as well.

With --against it says instead what another policy, a directory or a revision, would widen and narrow. Rules of the policy
directory are listed beside: what they add and take away is seen by asking recorded traffic (exitgate policy diff).`,
		Example: `  exitgate policy reach --class build
  exitgate policy reach --class build --against ./policy --exit-code`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case class == "":
				return usage(c, errors.New("say for which class: --class CLASS"))
			case output != "text" && output != "json":
				return usage(c, fmt.Errorf("-o %q: it is text or json", output))
			}
			base, err := openPolicy(c, of, nil)
			if err != nil {
				return err
			}
			now := time.Now()
			reach := base.Reach(c.Context(), exitgate.Class(class), host, now)
			if against == "" {
				return printReach(c.OutOrStdout(), output, reach, func(w io.Writer) { writeReach(w, reach) })
			}
			candidate, err := openPolicy(c, against, base)
			if err != nil {
				return err
			}
			d := reach.Compare(candidate.Reach(c.Context(), exitgate.Class(class), host, now))
			err = printReach(c.OutOrStdout(), output, d, func(w io.Writer) { writeReachDiff(w, class, d) })
			if err == nil && exitCode && d.Changed() {
				err = exitError(differs)
			}
			return err
		},
	}
	c.Flags().StringVar(&class, "class", "", "the class")
	c.Flags().StringVar(&host, "host", "", "also what is granted to this host")
	c.Flags().StringVar(&of, "of", "", "of this directory or revision instead of what the gateway has loaded")
	c.Flags().StringVar(&against, "against", "", "say what this directory or revision would widen and narrow")
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	c.Flags().BoolVar(&exitCode, "exit-code", false, "with --against: exit with 3 where something differs")
	return c
}

func printReach(w io.Writer, output string, v any, text func(io.Writer)) error {
	if output == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	b := bufio.NewWriter(w)
	text(b)
	return b.Flush()
}

func writeReach(w io.Writer, r policy.Reach) {
	if r.Audit {
		fmt.Fprintf(w, "class %s is in audit mode: everything is carried, whatever is granted\n", plain(string(r.Class)))
	}
	fmt.Fprintf(w, "class %s under revision %s: %d ways out\n", plain(string(r.Class)), r.Revision, len(r.Access))
	for _, a := range r.Access {
		writeAccess(w, a)
	}
	writeRules(w, "rules of the policy directory that decide as well", r.Rules)
}

func writeAccess(w io.Writer, a policy.Access) {
	fmt.Fprintf(w, "\n  %s  (%s; %s %s, %s)\n", plain(a.To), plain(a.Width.Text), a.Kind, plain(a.ID), plain(a.Source))
	line := func(name, text string) { fmt.Fprintf(w, "    %-9s %s\n", name, plain(text)) }
	ports := "port " + strings.ReplaceAll(portsText(a.Ports), ",", ", ")
	if a.Kind == "exemption" {
		line("unread", ports+"; at most "+defaultOr(a.MaxBytes))
	} else {
		line("what", strings.ReplaceAll(strings.Join(a.Methods, " "), "*", "any method")+" by "+strings.Join(a.Schemes, " and ")+", "+ports)
		if len(a.Paths) > 0 {
			line("paths", strings.Join(a.Paths, " "))
		}
		for name, glob := range a.Headers {
			line("header", name+" like "+glob)
		}
		line("largest", "out "+defaultOr(a.MaxRequest)+", in "+defaultOr(a.MaxResponse))
	}
	if !a.Until.IsZero() {
		line("until", untilText(a.Until))
	}
	if a.Audit {
		line("audit", "it would be refused: the grant is in audit mode")
	}
	line("why", a.Reason)
}

func defaultOr(n int64) string {
	if n == 0 {
		return "the gateway's limit"
	}
	return bytesText(n)
}

func writeRules(w io.Writer, title string, rules []policy.ReachRule) {
	if len(rules) > 0 {
		fmt.Fprintf(w, "\n%s:\n", title)
	}
	for _, r := range rules {
		fmt.Fprintf(w, "  %-10s %s  %s\n", r.Set, plain(r.Place), plain(r.Title))
	}
}

func writeReachDiff(w io.Writer, class string, d policy.ReachDifference) {
	if !d.Changed() {
		fmt.Fprintf(w, "class %s: revisions %s and %s reach the same\n", plain(class), d.Base, d.Candidate)
		return
	}
	fmt.Fprintf(w, "class %s: revision %s against %s\n", plain(class), d.Base, d.Candidate)
	if d.AuditWas != d.AuditIs {
		fmt.Fprintf(w, "\naudit mode of the class: %v, was %v\n", d.AuditIs, d.AuditWas)
	}
	for _, part := range []struct {
		title string
		list  []policy.ReachChange
	}{{"widened", d.Widened}, {"narrowed (what is no longer)", d.Narrowed}} {
		if len(part.list) > 0 {
			fmt.Fprintf(w, "\n%s:\n", part.title)
		}
		for _, c := range part.list {
			fmt.Fprintf(w, "  %s %s (%s; %s)\n", c.Access.Kind, plain(c.Access.ID), plain(c.Access.Width.Text), plain(c.Access.Source))
			for _, what := range c.What {
				fmt.Fprintf(w, "    %s\n", plain(what))
			}
		}
	}
	writeRules(w, "rules that are new or changed", d.RulesAdded)
	writeRules(w, "rules that are gone or changed", d.RulesRemoved)
}
