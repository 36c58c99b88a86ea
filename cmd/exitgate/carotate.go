package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate/ca"
	"github.com/exitgate/exitgate/web"
)

func caRotateCommand() *cobra.Command {
	var r web.CARotation
	var overlap, certificate string
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
			if certificate != "" {
				b, err := os.ReadFile(certificate)
				if err != nil {
					return fmt.Errorf("--certificate: %w", err)
				}
				r.Certificate = string(b)
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
	f.StringVar(&r.Reason, "reason", "", "why (required)")
	return c
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

func caCreateRootCommand() *cobra.Command {
	var dir, key, name, passphrase string
	var years int
	c := &cobra.Command{
		Use:   "create-root --dir DIR",
		Short: "Make a root where its key shall stay, away from the gateways",
		Long: `Makes a root and its key in a directory of its own, on a machine that may have no network. DIR/root.crt is what gateways
are given; DIR/root.pem, the key, stays. With --key the key is made in an HSM or TPM.`,
		Example: `  exitgate ca create-root --dir /media/vault/exitgate --passphrase file:/media/other/passphrase`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if dir == "" {
				return usage(c, errors.New("say where: --dir DIR"))
			}
			phrase, err := secretFlag("--passphrase", passphrase)
			if err != nil {
				return err
			}
			o := ca.Options{Dir: dir, Gateway: name, RootKey: key, RootPassphrase: phrase, Lifetimes: ca.Lifetimes{Root: time.Duration(years) * 365 * 24 * time.Hour}}
			if key == ca.Offline {
				return usage(c, errors.New("--key: a key cannot be made that is not here"))
			}
			root, err := ca.CreateRoot(o)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "made %s, which ends %s\nSHA-256 %s\ngive %s to gateways and hosts\n", plain(root.Subject.String()),
				root.NotAfter.Local().Format(time.DateOnly), ca.Fingerprint(root), plain(filepath.Join(dir, "root.crt")))
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&dir, "dir", "", "directory to make it in (required)")
	f.StringVar(&key, "key", "", "URI of its key, in an HSM or TPM (default: a file in DIR)")
	f.StringVar(&name, "organization", "", "organization in its subject (default exitgate)")
	f.IntVar(&years, "years", 10, "how long it lives")
	f.StringVar(&passphrase, "passphrase", "", "what encrypts the file: file:PATH, env:NAME or credential:NAME")
	return c
}

// secretFlag reads a secret from where a flag says that it is.
func secretFlag(flag, value string) ([]byte, error) {
	if value == "" {
		return nil, nil
	}
	err := checkSecret(value)
	var b []byte
	if err == nil {
		b, err = Secret(value).value()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return b, nil
}

func caSignCommand() *cobra.Command {
	var root, key, out, passphrase, lifetime string
	c := &cobra.Command{
		Use:   "sign-issuer --root FILE [--root-key URI] REQUEST",
		Short: "Sign a gateway's request for an issuer, where the root's key is",
		Long: `Signs what "exitgate ca issuer-request" wrote on a gateway. It needs no gateway and no network. Whatever the request asks
for, the certificate is for leaves of servers only, within the name constraints that are shown.`,
		Example: `  exitgate ca sign-issuer --root /media/vault/exitgate/root.pem -o issuer.crt issuer.csr
  exitgate ca sign-issuer --root root.crt --root-key "pkcs11:token=vault;object=root?pin-source=pin" -o issuer.crt issuer.csr`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s := ca.Signing{Key: key}
			var err error
			if lifetime != "" {
				if s.Lifetime, err = parseDuration(lifetime); err != nil {
					return usage(c, fmt.Errorf("--lifetime %q: %w", lifetime, err))
				}
			}
			if root == "" {
				return usage(c, errors.New("say which root signs: --root FILE"))
			}
			if s.Root, err = os.ReadFile(root); err != nil {
				return fmt.Errorf("--root: %w", err)
			}
			if s.Passphrase, err = secretFlag("--passphrase", passphrase); err != nil {
				return err
			}
			request, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			cert, err := ca.SignIssuer(request, s)
			if err != nil {
				return err
			}
			signed := caCertificate("issuer", cert)
			fmt.Fprintf(c.ErrOrStderr(), "signed %s\nnever intercepted: %s\nintercepted alone: %s\n", certText(signed), listText(cert.ExcludedDNSDomains, "nothing"),
				listText(cert.PermittedDNSDomains, "everything else"))
			return writeOut(c, out, []byte(signed.Certificate), true, 0o644)
		},
	}
	f := c.Flags()
	f.StringVar(&root, "root", "", "root.pem, which holds the key too, or root.crt with --root-key (required)")
	f.StringVar(&key, "root-key", "", "URI of the root's key, or a file that holds it alone")
	f.StringVar(&passphrase, "passphrase", "", "of a key in a file: file:PATH, env:NAME or credential:NAME")
	f.StringVar(&lifetime, "lifetime", "", "how long the issuer lives (default 90d)")
	f.StringVarP(&out, "output", "o", "-", "file to write; - for standard output")
	return c
}

func listText(list []string, none string) string {
	if len(list) == 0 {
		return none
	}
	text := ""
	for i, s := range list {
		if i > 0 {
			text += ", "
		}
		text += plain(s)
	}
	return text
}
