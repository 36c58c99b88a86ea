package main

import (
	"fmt"
	"net/http"
	"os"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate/ca"
	"github.com/exitgate/exitgate/web"
)

func caRotateCommand() *cobra.Command {
	var r web.CARotation
	var overlap, certificate, bridge string
	step := map[string]*bool{}
	c := &cobra.Command{
		Use:   "rotate [--root|--issuer|--switch|--finish|--cancel] --reason TEXT",
		Short: "Replace the root, step by step, or the issuer",
		Long: `The root is replaced in three steps, so that no host is left behind:

  exitgate ca rotate --root     makes the next root, and publishes it beside the current one, to which leaves still chain
  exitgate ca rotate --switch   leaves chain to the next root; with --overlap this comes by itself
  exitgate ca rotate --finish   the old root is no longer published, and its key is gone

Between the first two, hosts are given both roots ("exitgate ca root", ca/roots.crt). Between the last two, a host that
knows only the old root accepts leaves all the same where the old root could sign a bridge, which "exitgate ca status"
says. Before the switch, --cancel takes it back. --issuer replaces the issuer under the same root, which no host
notices.`,
		Example: `  exitgate ca rotate --root --overlap 30d --reason "the root ends in March"
  exitgate ca rotate --issuer --reason "the disk was copied"`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := rotateArgs(&r, step, overlap); err != nil {
				return usage(c, err)
			}
			if err := firstError(readInto("--certificate", certificate, &r.Certificate), readInto("--bridge", bridge, &r.Bridge)); err != nil {
				return err
			}
			var s web.CAState
			if err := dial(c).call(c.Context(), http.MethodPost, "ca/rotate", r, &s); err != nil {
				return err
			}
			return printCA(c, s, "text")
		},
	}
	f := c.Flags()
	for name, help := range map[string]string{
		web.CARotateRoot: "make the next root and publish it (default)", web.CARotateIssuer: "make a new issuer under the same root",
		web.CASwitch: "let leaves chain to the next root", web.CAFinish: "no longer publish the old root", web.CACancel: "before the switch: no longer publish the next root",
	} {
		step[name] = f.Bool(name, false, help)
	}
	f.StringVar(&overlap, "overlap", "", "with --root: switch by itself after this time span, such as 30d (default: when it is told to)")
	f.StringVar(&r.Key, "key", "", "with --root: URI of the next root's key (default: as ca.root_key says)")
	f.StringVar(&certificate, "certificate", "", "with --root: file with the next root, whose key is offline")
	f.StringVar(&bridge, "bridge", "", `with --certificate: file with the bridge that "exitgate ca sign-bridge" wrote`)
	f.StringVar(&r.Reason, "reason", "", "why (required)")
	return c
}

// readInto reads the file that a flag names, if it names one.
func readInto(flag, name string, to *string) error {
	if name == "" {
		return nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	*to = string(b)
	return nil
}

// rotateArgs says which step the flags mean.
func rotateArgs(r *web.CARotation, step map[string]*bool, overlap string) error {
	for _, name := range []string{web.CARotateRoot, web.CARotateIssuer, web.CASwitch, web.CAFinish, web.CACancel} {
		if !*step[name] {
			continue
		}
		if r.Step != "" {
			return fmt.Errorf("--%s and --%s are two steps: one at a time", r.Step, name)
		}
		r.Step = name
	}
	if r.Step == "" {
		r.Step = web.CARotateRoot
	}
	if overlap != "" {
		d, err := parseDuration(overlap)
		if err != nil || d == 0 {
			return fmt.Errorf("--overlap %q: it is not a time span such as 30d", overlap)
		}
		r.Overlap = d.String()
	}
	return checkReason(r.Reason)
}

// caHere are the options of a CA on which no gateway runs; the configuration says where it is.
func caHere(c *cobra.Command, file string) (ca.Options, error) {
	cfg, err := readConfig(file)
	if err != nil {
		return ca.Options{}, err
	}
	if file == "" {
		cfg.DataDir = dataDir(c)
	}
	return caOptions(cfg)
}

// configFlag adds -c for verbs that also work where no gateway runs.
func configFlag(c *cobra.Command, file *string) {
	c.Flags().StringVarP(file, "config", "c", "", "configuration file of the gateway, where none is running")
}

// runsFor reports whether a gateway runs on the data directory that the verb means, and makes that the one to ask.
func runsFor(c *cobra.Command, file string) (bool, error) {
	if file != "" {
		cfg, err := readConfig(file)
		if err != nil {
			return false, err
		}
		if err := c.Flags().Set("data", cfg.DataDir); err != nil {
			return false, err
		}
	}
	return gatewayRuns(c.Context(), dataDir(c)), nil
}

func caRequestCommand() *cobra.Command {
	var out, file string
	c := &cobra.Command{
		Use:   "issuer-request [-c exitgate.yaml] [-o FILE]",
		Short: "Write a request for an issuer, to be signed where the root's key is",
		Long: `Writes a certificate signing request for an issuer of this gateway. The key stays here. Where the root's key is,
"exitgate ca sign-issuer" makes a certificate of it, which "exitgate ca install-issuer" takes.

For the first issuer of a gateway there is no gateway running yet: put the root's certificate into ca/root.crt of the data
directory, and say with -c which configuration it shall run with (ca.root_key: offline).`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			request, err := requestIssuer(c, file)
			if err != nil {
				return err
			}
			return writeOut(c, out, request, true, 0o644)
		},
	}
	configFlag(c, &file)
	c.Flags().StringVarP(&out, "output", "o", "-", "file to write; - for standard output")
	return c
}

func requestIssuer(c *cobra.Command, file string) ([]byte, error) {
	runs, err := runsFor(c, file)
	if err != nil {
		return nil, err
	}
	if runs {
		var r web.CARequest
		err := dial(c).call(c.Context(), http.MethodPost, "ca/request", struct{}{}, &r)
		return []byte(r.Request), err
	}
	o, err := caHere(c, file)
	if err != nil {
		return nil, err
	}
	return ca.Request(o)
}

func caInstallCommand() *cobra.Command {
	var file, reason string
	c := &cobra.Command{
		Use:   "install-issuer [-c exitgate.yaml] --reason TEXT FILE",
		Short: "Take an issuer that was signed where the root's key is",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkReason(reason); err != nil {
				return usage(c, err)
			}
			b, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			if err := installIssuer(c, file, b, reason); err != nil {
				return err
			}
			s, err := askCA(c)
			if err != nil {
				return err
			}
			return printCA(c, s, "text")
		},
	}
	configFlag(c, &file)
	c.Flags().StringVar(&reason, "reason", "", "why (required)")
	return c
}

func installIssuer(c *cobra.Command, file string, certificate []byte, reason string) error {
	runs, err := runsFor(c, file)
	if err != nil {
		return err
	}
	if runs {
		return dial(c).call(c.Context(), http.MethodPost, "ca/issuer", web.CAIssuer{Certificate: string(certificate), Reason: reason}, nil)
	}
	o, err := caHere(c, file)
	if err != nil {
		return err
	}
	return ca.Install(o, certificate)
}
