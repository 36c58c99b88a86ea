package main

import (
	"cmp"
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate/web"
)

func statusCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "status", Short: "Say how the running gateway stands",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var s web.Status
			if err := dial(c).call(c.Context(), http.MethodGet, "status", nil, &s); err != nil {
				return err
			}
			return printStatus(c, s, output)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return c
}

// asJSON prints v when output is json, and says what is wrong when it is neither that nor text; done: there is nothing more
// to print.
func asJSON(c *cobra.Command, output string, v any) (done bool, err error) {
	switch output {
	case "json":
		return true, printJSON(c.OutOrStdout(), v)
	case "text":
		return false, nil
	}
	return true, usage(c, fmt.Errorf("-o %q: it is text or json", output))
}

func printStatus(c *cobra.Command, s web.Status, output string) error {
	w := c.OutOrStdout()
	if done, err := asJSON(c, output, s); done {
		return err
	}
	config := s.Config
	if config == "" {
		config = "none: the starter configuration"
	}
	rows := [][]string{
		{"gateway", fmt.Sprintf("%s, version %s, process %d, since %s", s.Gateway, s.Version, s.PID, s.Since.Local().Format(time.DateTime))},
		{"data", s.Data},
		{"configuration", config},
		{"listens", strings.Join(s.Listen, ", ")},
		{"connections", strconv.Itoa(s.Connections) + " open"},
		{"policy", fmt.Sprintf("revision %s, %d grants, %d exemptions, %d hosts", s.Revision, s.Grants, s.Exemptions, s.Hosts)},
		{"CA certificate", s.Root},
		{"", "SHA-256 " + s.Fingerprint},
		{"journal", fmt.Sprintf("%s of %s", bytesText(s.Journal.Bytes), bytesText(s.Journal.MaxBytes))},
	}
	if s.Reload != "" {
		rows = append(rows, []string{"last reload", "FAILED, the state before it is kept: " + plain(s.Reload)})
	}
	for _, check := range s.Checks {
		state := "ok"
		if check.Wrong != "" {
			state = "WRONG: " + plain(check.Wrong)
		}
		rows = append(rows, []string{check.Name, state})
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

func reloadCommand() *cobra.Command {
	return &cobra.Command{
		Use: "reload", Short: "Load policy and configuration again, as SIGHUP does",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var s web.Status
			if err := dial(c).call(c.Context(), http.MethodPost, "reload", nil, &s); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "reloaded: policy revision %s, %d grants, %d exemptions\n", s.Revision, s.Grants, s.Exemptions)
			return nil
		},
	}
}

func auditCommand() *cobra.Command {
	var output string
	var limit int
	c := &cobra.Command{
		Use: "audit", Short: "List who changed what, and why",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var list []web.Entry
			if err := dial(c).call(c.Context(), http.MethodGet, "audit?limit="+strconv.Itoa(limit), nil, &list); err != nil {
				return err
			}
			rows := [][]string{{"TIME", "WHO", "ACTION", "ID", "REASON"}}
			for _, e := range list {
				rows = append(rows, []string{e.At.Local().Format(time.DateTime), plain(e.Who), plain(e.Action), plain(e.Object), plain(e.Reason)})
			}
			return printList(c, output, list, rows, "nothing was changed through the gateway yet\n")
		},
	}
	listFlags(c, &output)
	c.Flags().IntVarP(&limit, "number", "n", 50, "at most this many, the newest")
	return c
}

// build says which build this is.
// version is set by the linker (see Makefile).
var version string

func build() web.Build {
	b := web.Build{Version: cmp.Or(version, "devel"), Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; version == "" && v != "" && v != "(devel)" {
		b.Version = v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.Revision = s.Value
		}
	}
	return b
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version",
		Args: cobra.NoArgs,
		Run: func(c *cobra.Command, _ []string) {
			b := build()
			fmt.Fprintf(c.OutOrStdout(), "exitgate %s %s %s/%s\n", b.Version, b.Go, runtime.GOOS, runtime.GOARCH)
			if b.Revision != "" {
				fmt.Fprintf(c.OutOrStdout(), "revision %s\n", b.Revision)
			}
		},
	}
}
