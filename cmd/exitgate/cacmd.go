package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate/ca"
	"github.com/exitgate/exitgate/ca/export"
	"github.com/exitgate/exitgate/web"
)

func caCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "ca",
		Short: "Look at the interception CA, hand out its root, and rotate it; and the authority of hosts' identities",
		Long: `Hosts trust the root of the interception CA; an issuer under it, which the gateway renews by itself, signs a leaf for
each name. Every verb asks the running gateway. Those that only look (status, root, fingerprint, export) read the
files in the data directory where no gateway runs.`,
	}
	c.AddCommand(caStatusCommand(), caRootCommand(), caFingerprintCommand(), caExportCommand(), caRotateCommand(),
		caRequestCommand(), caInstallCommand(), caCreateRootCommand(), caSignCommand(), caBridgeCommand(), caIdentityCommand())
	return c
}

// gatewayRuns reports whether a gateway answers on the data directory.
func gatewayRuns(ctx context.Context, dir string) bool {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", adminSocket(dir))
	if err == nil {
		conn.Close()
	}
	return err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED)
}

// askCA returns how the CA stands: from the running gateway, or from its files.
func askCA(c *cobra.Command) (s web.CAState, err error) {
	dir := dataDir(c)
	if gatewayRuns(c.Context(), dir) {
		return s, dial(c).call(c.Context(), http.MethodGet, "ca", nil, &s)
	}
	folder := filepath.Join(dir, "ca")
	if _, err := os.Stat(folder); err != nil {
		return s, fmt.Errorf("no gateway is running on %s, and there is no CA: %w", dir, err)
	}
	state, err := ca.Read(folder)
	if err != nil {
		return s, err
	}
	return caState(state), nil
}

func caStatusCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "status", Short: "Say how the CA stands, and what it needs a person for",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := askCA(c)
			if err != nil {
				return err
			}
			return printCA(c, s, output)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return c
}

func printCA(c *cobra.Command, s web.CAState, output string) error {
	w := c.OutOrStdout()
	if done, err := asJSON(c, output, s); done {
		return err
	}
	rows := [][]string{{"phase", phaseText(s)}}
	for _, r := range s.Roots {
		rows = append(rows, []string{r.Role + " root", certText(r)}, []string{"", "SHA-256 " + r.Fingerprint})
	}
	if s.Issuer != nil {
		rows = append(rows, []string{"issuer", certText(*s.Issuer)})
	}
	if s.RootKey != "" {
		rows = append(rows, []string{"keys", "root: " + plain(s.RootKey) + ", issuer: " + plain(s.Key)})
	}
	if len(s.Past) > 0 {
		rows = append(rows, []string{"past", "roots that hosts should trust no more: " + strconv.Itoa(len(s.Past))})
	}
	for _, concern := range s.Concerns {
		rows = append(rows, []string{"SEE TO", plain(concern)})
	}
	st := styleFor(w)
	columns(w, rows, func(_, column int, text string) string {
		if column == 0 {
			return st.dim(text)
		}
		return text
	})
	return nil
}

func certText(c web.CACertificate) string {
	return plain(c.Subject) + ", ends " + c.NotAfter.Local().Format(time.DateTime)
}

// phaseText says where a rotation stands, and what comes next.
func phaseText(s web.CAState) string {
	switch s.Phase {
	case "overlap":
		when := `when it is told to: exitgate ca rotate --switch --reason "..."`
		if !s.SwitchAt.IsZero() {
			when = "at " + s.SwitchAt.Local().Format(time.DateTime)
		}
		return "overlap: hosts should trust both roots; leaves still chain to the current one, and switch " + when
	case "leaving":
		old := "refuse leaves"
		if s.Bridged {
			old = "accept leaves until then"
		}
		return `leaving: leaves chain to the current root; the leaving one is published until: exitgate ca rotate --finish --reason "..."; hosts that know only that one ` + old
	}
	return "steady: one root"
}

func caRootCommand() *cobra.Command {
	return &cobra.Command{
		Use: "root", Short: "Print the roots that hosts should trust, as PEM: two while one is being replaced",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := askCA(c)
			if err != nil {
				return err
			}
			for _, r := range s.Roots {
				fmt.Fprint(c.OutOrStdout(), r.Certificate)
			}
			return nil
		},
	}
}

func caFingerprintCommand() *cobra.Command {
	return &cobra.Command{
		Use: "fingerprint", Short: "Print the SHA-256 of each root that hosts should trust",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := askCA(c)
			if err != nil {
				return err
			}
			for _, r := range s.Roots {
				line := r.Fingerprint
				if len(s.Roots) > 1 {
					line += "  " + r.Role
				}
				fmt.Fprintln(c.OutOrStdout(), line)
			}
			return nil
		},
	}
}

func caExportCommand() *cobra.Command {
	var format, out, passwordFile, fingerprint string
	c := &cobra.Command{
		Use:   "export [--format pem|der|p7b|jks|p12] [-o FILE]",
		Short: "Write the roots that hosts should trust, for a trust store",
		Long: `Writes the roots that hosts should trust: two while one is being replaced. der holds one certificate, the root that
leaves chain to, unless --fingerprint names the other. jks and p12 hold no secret; their readers ask for a password all
the same, which is "changeit" unless --password-file says another.`,
		Example: `  exitgate ca export --format p7b -o roots.p7b
  exitgate ca export --format jks --password-file pw -o truststore.jks`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := export.Parse(format)
			if err != nil {
				return usage(c, fmt.Errorf("--format: %w", err))
			}
			roots, err := rootsToExport(c, fingerprint)
			if err != nil {
				return err
			}
			var password []byte
			if passwordFile != "" {
				if password, err = Secret("file:" + passwordFile).value(); err != nil {
					return fmt.Errorf("--password-file: %w", err)
				}
			}
			b, err := f.Encode(roots, string(password))
			if err != nil {
				return err
			}
			if n := f.Holds(); n > 0 && len(roots) > n {
				fmt.Fprintf(c.ErrOrStderr(), "exitgate: %s holds one certificate, and there are %d roots: this is %s; --fingerprint names the other\n", f, len(roots), ca.Fingerprint(roots[0]))
			}
			return writeOut(c, out, b, f == export.PEM, 0o644)
		},
	}
	c.Flags().StringVar(&format, "format", "pem", "pem, der, p7b, jks or p12")
	c.Flags().StringVarP(&out, "output", "o", "-", "file to write; - for standard output")
	c.Flags().StringVar(&passwordFile, "password-file", "", "file that holds the password of jks and p12")
	c.Flags().StringVar(&fingerprint, "fingerprint", "", "only the root with this SHA-256, of which the beginning is enough")
	return c
}

func rootsToExport(c *cobra.Command, fingerprint string) ([]*x509.Certificate, error) {
	s, err := askCA(c)
	if err != nil {
		return nil, err
	}
	var roots []*x509.Certificate
	for _, r := range s.Roots {
		if !strings.HasPrefix(r.Fingerprint, strings.ToLower(fingerprint)) {
			continue
		}
		block, _ := pem.Decode([]byte(r.Certificate))
		if block == nil {
			return nil, errors.New("read the gateway's answer: a root is not PEM")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read the gateway's answer: %w", err)
		}
		roots = append(roots, cert)
	}
	if len(roots) == 0 {
		return nil, fmt.Errorf("no root begins with fingerprint %.64q", fingerprint)
	}
	return roots, nil
}

// writeOut writes b to a file, or to standard output, which is no terminal unless b is text.
func writeOut(c *cobra.Command, out string, b []byte, text bool, perm fs.FileMode) error {
	if out == "-" {
		w := c.OutOrStdout()
		if !text && isTerminal(w) {
			return errors.New("this is not text, and standard output is a terminal: say -o FILE")
		}
		_, err := w.Write(b)
		return err
	}
	if err := os.WriteFile(out, b, perm); err != nil {
		return err
	}
	fmt.Fprintln(c.ErrOrStderr(), "wrote", plain(out))
	return nil
}
