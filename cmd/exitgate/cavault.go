package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate/ca"
)

// The verbs for the place where the root's key is: they need no gateway and no network.

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

// signingFlags add the flags that say with what is signed.
type signingFlags struct{ root, key, passphrase, out string }

func (s *signingFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&s.root, "root", "", "root.pem, which holds the key too, or root.crt with --root-key (required)")
	f.StringVar(&s.key, "root-key", "", "URI of the root's key, or a file that holds it alone")
	f.StringVar(&s.passphrase, "passphrase", "", "of a key in a file: file:PATH, env:NAME or credential:NAME")
	f.StringVarP(&s.out, "output", "o", "-", "file to write; - for standard output")
}

func (s *signingFlags) read(c *cobra.Command) (with ca.Signing, err error) {
	if s.root == "" {
		return with, usage(c, errors.New("say which root signs: --root FILE"))
	}
	with.Key = s.key
	if with.Root, err = os.ReadFile(s.root); err != nil {
		return with, fmt.Errorf("--root: %w", err)
	}
	with.Passphrase, err = secretFlag("--passphrase", s.passphrase)
	return with, err
}

func caSignCommand() *cobra.Command {
	var s signingFlags
	var lifetime string
	c := &cobra.Command{
		Use:   "sign-issuer --root FILE [--root-key URI] REQUEST",
		Short: "Sign a gateway's request for an issuer, where the root's key is",
		Long: `Signs what "exitgate ca issuer-request" wrote on a gateway. It needs no gateway and no network. Whatever the request asks
for, the certificate is for leaves of servers only, within the name constraints that are shown.`,
		Example: `  exitgate ca sign-issuer --root /media/vault/exitgate/root.pem -o issuer.crt issuer.csr
  exitgate ca sign-issuer --root root.crt --root-key "pkcs11:token=vault;object=root?pin-source=pin" -o issuer.crt issuer.csr`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			with, err := s.read(c)
			if err != nil {
				return err
			}
			if lifetime != "" {
				if with.Lifetime, err = parseDuration(lifetime); err != nil {
					return usage(c, fmt.Errorf("--lifetime %q: %w", lifetime, err))
				}
			}
			request, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			cert, err := ca.SignIssuer(request, with)
			if err != nil {
				return err
			}
			signed := caCertificate("issuer", cert)
			fmt.Fprintf(c.ErrOrStderr(), "signed %s\nnever intercepted: %s\nintercepted alone: %s\n", certText(signed), listText(cert.ExcludedDNSDomains, "nothing"),
				listText(cert.PermittedDNSDomains, "everything else"))
			return writeOut(c, s.out, []byte(signed.Certificate), true, 0o644)
		},
	}
	s.add(c)
	c.Flags().StringVar(&lifetime, "lifetime", "", "how long the issuer lives (default 90d)")
	return c
}

func caBridgeCommand() *cobra.Command {
	var s signingFlags
	c := &cobra.Command{
		Use:   "sign-bridge --root FILE [--root-key URI] NEXT-ROOT",
		Short: "Sign the next root with the one that it follows, where that one's key is",
		Long: `Signs the certificate of the next root with the current one, so that hosts that know only the current one accept leaves
after the switch. A gateway whose root's key is here does this by itself.`,
		Example: `  exitgate ca sign-bridge --root vault/root.pem -o bridge.crt next-vault/root.crt`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			with, err := s.read(c)
			if err != nil {
				return err
			}
			var text string
			if err := readInto("NEXT-ROOT", args[0], &text); err != nil {
				return err
			}
			next, err := oneCertificate("the next root", text)
			if err != nil {
				return err
			}
			if next == nil {
				return fmt.Errorf("%s is empty", args[0])
			}
			bridge, err := ca.SignBridge(next, with)
			if err != nil {
				return err
			}
			return writeOut(c, s.out, []byte(caCertificate("bridge", bridge).Certificate), true, 0o644)
		},
	}
	s.add(c)
	return c
}

func listText(list []string, none string) string {
	if len(list) == 0 {
		return none
	}
	return plain(strings.Join(list, ", "))
}
