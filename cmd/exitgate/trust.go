package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate/ca/enroll"
	"github.com/exitgate/exitgate/ca/trust"
)

// probeURL is answered by every gateway itself, over a leaf like any other.
const probeURL = "https://probe.exitgate.internal/"

func trustCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "trust",
		Short: "On a host: who trusts the gateway, and let them",
		Long: `Run on a host. "trust check" runs the programs that are found against the gateway and says which accept it. "trust
install" and "trust remove" are the part of enrolment that concerns trust stores, for images that get no identity.`,
	}
	c.AddCommand(trustCheckCommand(), trustInstallCommand(), trustRemoveCommand())
	return c
}

func checkOutput(s string) error {
	if s != "text" && s != "json" {
		return fmt.Errorf("-o %q: it is text or json", s)
	}
	return nil
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func trustCheckCommand() *cobra.Command {
	var which hostFlags
	var url, proxy, output string
	var asIs bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Try each runtime of this host against the gateway",
		Long: `Runs each program that is found (curl, wget, Python, Node, Java, git, Go and others) against a name that the gateway
answers itself, and says which accept its certificate, where they have their roots from, and the one thing to do about
one that does not. Two run at a time, for ten seconds at most. The exit code is 1 when one fails.

Programs get the variables that enrolment wrote, as a new session would; with --env they get those of this one.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return usage(c, err)
			}
			host, err := which.host()
			if err != nil {
				return err
			}
			checker, err := newChecker(host, url, proxy, asIs)
			if err != nil {
				return plainError(err)
			}
			results, err := checker.Check(c.Context())
			if err != nil {
				return plainError(err)
			}
			return printCheck(c, results, output)
		},
	}
	f := c.Flags()
	f.StringVar(&url, "url", probeURL, "what is opened")
	f.StringVar(&proxy, "proxy", "", "proxy to go through (default: that of the enrolment); off for none")
	f.BoolVar(&asIs, "env", false, "give programs the variables of this session as they are")
	f.StringVarP(&output, "output", "o", "text", "text or json")
	which.register(c)
	return c
}

// newChecker gives programs the variables of a new session: ours, with those of the enrolment in place of ours.
func newChecker(host *enroll.Host, url, proxy string, asIs bool) (trust.Checker, error) {
	enrolled, vars, err := enrolledProxy(host)
	if errors.Is(err, enroll.ErrNotEnrolled) && (url != probeURL || proxy != "") {
		err = nil // the caller says where to go
	}
	if err != nil {
		return trust.Checker{}, err
	}
	env := os.Environ()
	if !asIs {
		for _, v := range vars {
			env = slices.DeleteFunc(env, func(s string) bool { return strings.HasPrefix(s, v.Name+"=") })
			env = append(env, v.Name+"="+v.Value)
		}
	}
	switch proxy {
	case "":
		proxy = enrolled
	case "off":
		proxy = ""
	default:
		for _, name := range []string{"http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"} {
			env = append(slices.DeleteFunc(env, func(s string) bool { return strings.HasPrefix(s, name+"=") }), name+"="+proxy)
		}
	}
	return trust.Checker{URL: url, Proxy: proxy, Env: env}, nil
}

func printCheck(c *cobra.Command, results []trust.Result, output string) error {
	w, failed := c.OutOrStdout(), 0
	rows := [][]string{{"RUNTIME", "VERSION", "RESULT", "READ", "DO"}}
	for _, r := range results {
		if r.Result == trust.Failed {
			failed++
		}
		do := r.Do
		if r.Said != "" {
			do += " (it said: " + r.Said + ")"
		}
		rows = append(rows, []string{r.Runtime, plain(r.Version), r.Result, plain(r.Read), plain(do)})
	}
	if output == "json" {
		if err := printJSON(w, results); err != nil {
			return err
		}
	} else {
		st := styleFor(w)
		columns(w, rows, func(row, column int, text string) string {
			switch {
			case row == 0:
				return st.dim(text)
			case column == 2 && rows[row][2] == trust.Failed:
				return st.paint("31", text)
			}
			return text
		})
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d do not accept the gateway", failed, len(results))
	}
	return nil
}

func trustInstallCommand() *cobra.Command {
	var which hostFlags
	var file string
	var dry bool
	c := &cobra.Command{
		Use:   "install --roots FILE",
		Short: "Put roots into every trust store of this host",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			host, err := which.host()
			if err != nil {
				return err
			}
			if _, err := host.ReadState(); !errors.Is(err, enroll.ErrNotEnrolled) {
				return errors.New("this host is enrolled, and its roots come from the gateway: exitgate enroll --renew fetches them")
			}
			b, err := os.ReadFile(file)
			if err != nil {
				return usage(c, fmt.Errorf("--roots: %w", err))
			}
			roots, err := trust.ParseRoots(b)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			changes, err := host.Trust.Install(c.Context(), trust.Want{Roots: roots}, dry)
			if err != nil {
				return plainError(err)
			}
			if !trust.Changed(changes) {
				fmt.Fprintln(c.OutOrStdout(), "nothing to change: the roots are in every store")
			}
			printChanges(c.OutOrStdout(), changes, nil, dry)
			return nil
		},
	}
	which.register(c)
	c.Flags().StringVar(&file, "roots", "", "PEM file of the roots (required)")
	c.Flags().BoolVar(&dry, "dry-run", false, "say what would be done")
	return c
}

func trustRemoveCommand() *cobra.Command {
	var which hostFlags
	var dry bool
	c := &cobra.Command{
		Use:   "remove",
		Short: "Undo what trust install did",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			host, err := which.host()
			if err != nil {
				return err
			}
			if _, err := host.ReadState(); !errors.Is(err, enroll.ErrNotEnrolled) {
				return errors.New("this host is enrolled: exitgate unenroll undoes that")
			}
			changes, err := host.Trust.Remove(c.Context(), dry)
			if err != nil {
				return plainError(err)
			}
			if !trust.Changed(changes) {
				fmt.Fprintln(c.OutOrStdout(), "nothing to undo")
			}
			printChanges(c.OutOrStdout(), changes, nil, dry)
			return nil
		},
	}
	which.register(c)
	c.Flags().BoolVar(&dry, "dry-run", false, "say what would be undone")
	return c
}
