package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate/ca/enroll"
	"github.com/exitgate/exitgate/ca/trust"
)

// hostFlags say which host is meant: this machine, a file tree, or one user of it.
type hostFlags struct {
	root string
	user bool
}

func (h *hostFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&h.root, "root", "/", "directory that the host sees as its root, for images and tests; commands run in it")
	c.Flags().BoolVar(&h.user, "user", false, "change this account only; needs no root rights")
}

func (h *hostFlags) host() (*enroll.Host, error) {
	root, err := filepath.Abs(h.root)
	if err != nil {
		return nil, err
	}
	host := &enroll.Host{Trust: trust.Host{Root: root}}
	if h.user {
		if host.Trust.Home, err = os.UserHomeDir(); err != nil {
			return nil, fmt.Errorf("find the home directory: %w", err)
		}
	}
	if self, err := os.Executable(); err == nil && root == "/" {
		host.Program = self
	}
	return host, nil
}

func enrollCommand() *cobra.Command {
	var inv enroll.Invitation
	var which hostFlags
	var token, tokenFile, output string
	var renew bool
	var addresses []string
	c := &cobra.Command{
		Use:   "enroll --gateway URL --fingerprint SHA256 [--token-file FILE | --token -]",
		Short: "On a host: trust a gateway, get an identity, use its proxy",
		Long: `Run on a host. Fetches the gateway's identity root and compares it with the fingerprint, redeems the token of
"exitgate host token" for an identity certificate, puts the interception root into every trust store that is found,
writes the proxy settings, registers the host's addresses, and installs a timer that keeps all of that fresh. It is all
or nothing: after an error the host is as it was. A second run changes nothing. "exitgate unenroll" undoes it.

The token is read from the environment variable EXITGATE_TOKEN, from a file, or with "--token -" from standard input.
One that is given on the command line is erased from the process list as soon as it was read; it stays in the history
of the shell.`,
		Example: `  exitgate enroll --gateway https://gate.example.com:3130 --fingerprint 3f5c... --token-file token
  exitgate enroll --gateway https://gate.example.com:3130 --fingerprint 3f5c... --dry-run
  exitgate enroll --renew`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return usage(c, err)
			}
			host, err := which.host()
			if err != nil {
				return err
			}
			host.Addresses = addresses
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM) // what was done is taken back then
			defer stop()
			var report *enroll.Report
			if renew {
				report, err = host.Renew(ctx)
			} else if inv.Gateway == "" || inv.Fingerprint == "" {
				return usage(c, errors.New("say which gateway, and how it is known: --gateway and --fingerprint"))
			} else if inv.Token, err = enroll.ReadToken(token, tokenFile, c.InOrStdin()); err != nil {
				return usage(c, err)
			} else {
				report, err = host.Enroll(ctx, inv)
			}
			if err != nil {
				return plainError(err)
			}
			return printEnrolment(c, report, output, renew, inv.DryRun)
		},
	}
	f := c.Flags()
	f.StringVar(&inv.Gateway, "gateway", "", "URL of the gateway's enrolment listener (required)")
	f.StringVar(&inv.Fingerprint, "fingerprint", "", "SHA-256 of the gateway's identity root (required)")
	f.StringVar(&token, "token", "", "- reads the token from standard input; better not given literally")
	f.StringVar(&tokenFile, "token-file", "", "file that holds the token")
	f.StringVar(&inv.Name, "name", "", "name of this host (default: its hostname)")
	f.StringSliceVar(&addresses, "address", nil, "address of this host, as the gateway sees it (default: that of the interface that leads there)")
	f.BoolVar(&inv.DryRun, "dry-run", false, "check, and say what would be done; the token stays good")
	f.BoolVar(&renew, "renew", false, "what the timer runs: renew the identity when it is due, and take up what changed")
	f.StringVarP(&output, "output", "o", "text", "text or json")
	which.register(c)
	return c
}

// plainError lets nothing that a gateway or a file said reach the terminal as it came.
func plainError(err error) error {
	lines := strings.Split(err.Error(), "\n")
	for i, line := range lines {
		lines[i] = plain(line)
	}
	return errors.New(strings.Join(lines, "\n"))
}

func printEnrolment(c *cobra.Command, r *enroll.Report, output string, renew, dry bool) error {
	w := c.OutOrStdout()
	if output == "json" {
		return printJSON(w, r)
	}
	head := "enrolled"
	switch changed := trust.Changed(r.Changes); {
	case dry:
		head = "would enrol"
	case !changed && renew:
		return nil // a timer that has nothing to say says nothing
	case !changed:
		head = "nothing to change: enrolled"
	case renew:
		head = "refreshed"
	}
	if r.Name != "" {
		head += " as " + plain(r.Name) + ", class " + plain(r.Class) + ","
	}
	fmt.Fprintf(w, "%s with %s", head, plain(r.Gateway))
	if r.Mode != "" {
		fmt.Fprintf(w, " (%s)", plain(r.Way()))
	}
	fmt.Fprintln(w)
	if !r.NotAfter.IsZero() {
		fmt.Fprintf(w, "  identity until %s, renewed in time\n", r.NotAfter.Local().Format("2006-01-02 15:04"))
	}
	printChanges(w, r.Changes, r.Notes, dry)
	return nil
}

// printChanges lists what was done, or would be, in order.
func printChanges(w io.Writer, changes []trust.Change, notes []string, dry bool) {
	would := strings.NewReplacer("wrote", "would write", "imported", "would import", "enabled", "would enable", "disabled", "would disable",
		"removed", "would remove", "restored", "would restore", "ran", "would run")
	for _, ch := range changes {
		if dry {
			ch.What = would.Replace(ch.What)
		}
		fmt.Fprintf(w, "  %s\n", plain(ch.String()))
	}
	for _, n := range notes {
		fmt.Fprintf(w, "note: %s\n", plain(n))
	}
}

// enrolledProxy returns the proxy and the variables of the host, when it is enrolled.
func enrolledProxy(h *enroll.Host) (proxy string, vars []trust.Variable, err error) {
	s, err := h.ReadState()
	if err != nil {
		return "", nil, err
	}
	vars, err = h.Trust.Variables()
	if errors.Is(err, os.ErrPermission) {
		err = nil // the record is root's; the session has read the variables itself, if it is one
	}
	return s.Proxy.HTTPS, vars, err
}
