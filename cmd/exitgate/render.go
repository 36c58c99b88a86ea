package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate/deploy/provision"
	"github.com/exitgate/exitgate/web"
)

func renderCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "render",
		Short: "Write what provisions a host, an image or a cluster",
		Long: `Writes files for the tools that make hosts: what they have to trust and to set, and where they enrol. It asks the gateway
for what the flags do not say; with --roots and --proxy nobody is asked.`,
	}
	c.AddCommand(
		renderFormat(provision.CloudInit, "cloud-init", "User data that enrol a host when it first boots", `  exitgate host token --class build --reason "new runner" --secret-file token
  exitgate render cloud-init --class build --token-file token -o user-data`),
		renderFormat(provision.Dockerfile, "dockerfile", "A fragment for images that are built and run behind the gateway",
			"  exitgate render dockerfile --class build"),
		renderFormat(provision.Kubernetes, "k8s", "A trust-manager Bundle and a ConfigMap, or the patch that takes them", `  exitgate render k8s --class app --namespace shop | kubectl apply -f -
  exitgate render k8s --class app --patch --container web -o patch.yaml`),
		renderFormat(provision.PowerShell, "gpo", "A startup script for a Windows group policy, or a .reg file",
			"  exitgate render gpo --class office -o exitgate.ps1"),
		renderFormat(provision.Env, "env", "Variables, for a POSIX shell to source",
			`  exitgate render env --class build -o exitgate.env && . ./exitgate.env`),
	)
	return c
}

// renderFlags are the facts that flags say.
type renderFlags struct {
	facts                       provision.Facts
	proxy, roots, token, output string
	reg, patch, init            bool
}

func renderFormat(format provision.Format, name, short, example string) *cobra.Command {
	r := &renderFlags{}
	c := &cobra.Command{
		Use: name + " --class CLASS", Short: short, Example: example,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if r.facts.Class == "" {
				return usage(c, errors.New("say for which class: --class NAME"))
			}
			if r.init && !r.patch {
				return usage(c, errors.New("--init-container is for --patch"))
			}
			return r.render(c, r.format(format))
		},
	}
	r.register(c, format)
	return c
}

// register gives c the flags that the format has a use for.
func (r *renderFlags) register(c *cobra.Command, format provision.Format) {
	f := c.Flags()
	f.StringVar(&r.facts.Class, "class", "", "the class of what is provisioned (required)")
	f.StringVar(&r.roots, "roots", "", "file with the interception roots (PEM; default: the gateway's)")
	f.StringVar(&r.proxy, "proxy", "", "URL of the proxy, or off for none (default: the gateway's)")
	f.StringSliceVar(&r.facts.NoProxy, "no-proxy", nil, "what is reached without the proxy; may be given several times (default: the gateway's)")
	f.StringVarP(&r.output, "output", "o", "", "write this file, and not to standard output")
	f.StringVar(&r.facts.Bundle, "bundle", "", "the file that has all roots that the system trusts (default "+provision.DefaultBundle+")")
	switch format {
	case provision.CloudInit:
		f.StringVar(&r.facts.Gateway, "gateway", "", "URL that hosts enrol at (default: the gateway's; without one there is no enrolment)")
		f.StringVar(&r.facts.Fingerprint, "fingerprint", "", "SHA-256 of the gateway's identity root (default: the gateway's)")
		f.StringVar(&r.facts.Name, "name", "", "name that the host enrols under (default: its hostname)")
		f.StringVar(&r.token, "token-file", "", "file with the token to put into it; - reads standard input (default: none, it comes some other way)")
	case provision.Kubernetes:
		f.StringVar(&r.facts.Namespace, "namespace", "", "namespace of the workloads (default default)")
		f.BoolVar(&r.patch, "patch", false, "write the patch of a Deployment that takes the Bundle and the ConfigMap")
		f.StringVar(&r.facts.Container, "container", "", "name of the container that the patch is for (default app)")
		f.BoolVar(&r.init, "init-container", false, "with --patch: make the bundle in an init container, where there is no trust-manager")
		f.StringVar(&r.facts.Image, "image", "", "image of the init container (default debian:stable-slim)")
	case provision.PowerShell:
		f.StringVar(&r.facts.PAC, "pac", "", "URL of the PAC file (default: the gateway's)")
		f.BoolVar(&r.reg, "reg", false, "write a .reg file")
	}
}

// format is the one that the flags mean.
func (r *renderFlags) format(f provision.Format) provision.Format {
	switch {
	case r.reg:
		return provision.Registry
	case r.patch && r.init:
		return provision.PatchInit
	case r.patch:
		return provision.Patch
	}
	return f
}

func (r *renderFlags) render(c *cobra.Command, format provision.Format) error {
	if err := r.complete(c); err != nil {
		return err
	}
	if err := r.facts.Check(); err != nil {
		return fmt.Errorf("render %s: %w", format, err)
	}
	if u, err := url.Parse(r.facts.HTTPS); err == nil {
		if a, err := netip.ParseAddr(u.Hostname()); err == nil && a.IsLoopback() {
			fmt.Fprintf(c.ErrOrStderr(), "note: the proxy %s is reached from the gateway's own machine only; set listen.proxy and public_name, or say --proxy\n", r.facts.HTTPS)
		}
	}
	b, err := provision.Render(format, r.facts)
	if err != nil {
		return err
	}
	if r.output == "" || r.output == "-" {
		_, err := c.OutOrStdout().Write(b)
		return err
	}
	return writeRendered(r.output, b, r.facts.Token != "")
}

// complete asks the gateway for what the flags do not say.
func (r *renderFlags) complete(c *cobra.Command) (err error) {
	if r.facts.Token, err = readTokenFile(c.InOrStdin(), r.token); err != nil {
		return fmt.Errorf("read the token: %w", err)
	}
	if err := r.completeTrust(c); err != nil {
		return err
	}
	return r.completeProxy(c)
}

func (r *renderFlags) completeTrust(c *cobra.Command) error {
	f := &r.facts
	if r.roots != "" {
		b, err := os.ReadFile(r.roots)
		if err != nil {
			return fmt.Errorf("read the roots: %w", err)
		}
		f.Roots = string(b)
		return nil
	}
	var t web.Trust
	if err := dial(c).call(c.Context(), http.MethodGet, "trust", nil, &t); err != nil {
		return fmt.Errorf("ask for the roots: %w", err)
	}
	f.Roots = t.Roots
	if c.Flags().Lookup("gateway") != nil {
		f.Gateway = cmp.Or(f.Gateway, t.Enroll)
	}
	if f.Gateway != "" {
		f.Fingerprint = cmp.Or(f.Fingerprint, t.Identity)
	}
	return nil
}

func (r *renderFlags) completeProxy(c *cobra.Command) error {
	f := &r.facts
	switch r.proxy {
	case "":
	case "off":
		return nil
	default:
		f.HTTP, f.HTTPS = r.proxy, r.proxy
		return nil
	}
	var p web.ProxySettings
	if err := dial(c).call(c.Context(), http.MethodGet, "proxy", nil, &p); err != nil {
		return fmt.Errorf("ask for the proxy: %w", err)
	}
	f.HTTP, f.HTTPS, f.PAC = p.HTTP, p.HTTPS, cmp.Or(f.PAC, p.PACURL)
	if len(f.NoProxy) == 0 {
		f.NoProxy = p.NoProxy
	}
	return nil
}

// readTokenFile reads a token from a file, or from in where it is -.
func readTokenFile(in io.Reader, name string) (string, error) {
	if name == "" {
		return "", nil
	}
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, 4096))
	if err == nil && len(bytes.TrimSpace(b)) == 0 {
		err = fmt.Errorf("%s is empty", name)
	}
	return string(bytes.TrimSpace(b)), err
}

// writeRendered puts a file in place of another of the name, whole or not at all; one that holds a secret only its owner
// can read.
func writeRendered(name string, b []byte, secret bool) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".exitgate-*") // only its owner can read it
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil && !secret {
		err = f.Chmod(0o644)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
