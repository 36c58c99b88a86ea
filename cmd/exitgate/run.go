package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

func runCommand() *cobra.Command {
	var file, listen, admin string
	c := &cobra.Command{
		Use:   "run",
		Short: "Start the gateway",
		Long: `Starts the gateway. Without -c it needs nothing: it makes a data directory with its CA, an embedded store and a
policy directory, listens on 127.0.0.1:3128, and knows one host, this machine, which may reach nothing until it is
granted.

SIGHUP loads policy and configuration again; a reload that fails keeps what was loaded. SIGTERM and SIGINT stop
accepting and wait for the flows that are open; a second one cuts them.`,
		Example: `  exitgate run
  exitgate run --data ./data
  exitgate run -c /etc/exitgate/exitgate.yaml`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := readConfig(file)
			if err != nil {
				return err
			}
			data, _ := c.Flags().GetString("data")
			if file != "" && data+listen+admin != "" {
				return usage(c, errors.New("with -c the configuration says where the data is and where to listen; leave out --data, --listen and --admin"))
			}
			if file == "" {
				if cfg, err = starterWith(data, listen, admin); err != nil {
					return usage(c, err)
				}
			}
			return runGateway(c, cfg, file)
		},
	}
	c.Flags().StringVarP(&file, "config", "c", "", "configuration file (exitgate.yaml)")
	c.Flags().StringVar(&listen, "listen", "", "address:port of the proxy, without -c (default 127.0.0.1:3128)")
	c.Flags().StringVar(&admin, "admin", "", "address:port of metrics, livez and readyz, without -c; off for none (default 127.0.0.1:9128)")
	return c
}

// starterWith is the starter configuration with what flags say; "" leaves the default.
func starterWith(data, listen, admin string) (*Config, error) {
	for flag, addr := range map[string]string{"listen": listen, "admin": admin} {
		if err := checkValue("HostPort", cmp.Or(addr, "127.0.0.1:1")); err != nil || flag == "listen" && addr == "off" {
			return nil, fmt.Errorf("--%s %q: %w", flag, addr, cmp.Or(err, errors.New("a gateway without a way in carries nothing")))
		}
	}
	c := &Config{DataDir: data, Hosts: starterConfig().Hosts}
	c.Listen.Proxy, c.Listen.Admin = HostPort(listen), HostPort(admin)
	return c.complete("."), nil
}

// runGateway runs until a signal ends it.
func runGateway(c *cobra.Command, cfg *Config, file string) error {
	log := newLogger(c.ErrOrStderr(), cfg.Log)
	// Nothing here writes to the standard logger but net/http's transport, which quotes stray bytes of upstreams: they may
	// hold secrets, and no record is made of them there.
	stdlog.SetOutput(io.Discard)
	ctx, hurry, stop := signals(c.Context())
	defer stop()
	g, err := openGateway(ctx, cfg, file, log)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	reloads := make(chan os.Signal, 1)
	signal.Notify(reloads, syscall.SIGHUP)
	defer signal.Stop(reloads)
	go g.reloadOn(ctx, reloads)
	g.banner(c.OutOrStdout())
	return g.serve(ctx, hurry)
}

// signals returns a context that the first SIGTERM or SIGINT ends, and one that the second does.
func signals(parent context.Context) (first, second context.Context, stop func()) {
	first, stopFirst := context.WithCancel(parent)
	second, stopSecond := context.WithCancel(parent)
	ch := make(chan os.Signal, 2)
	signal.Notify(ch, syscall.SIGTERM, os.Interrupt)
	go func() {
		for _, cancel := range []func(){stopFirst, stopSecond} {
			select {
			case <-ch:
				cancel()
			case <-second.Done():
				return
			}
		}
	}()
	return first, second, func() { signal.Stop(ch); stopFirst(); stopSecond() }
}

// reloadOn reloads for each signal until ctx ends. It logs what goes wrong itself.
func (g *gateway) reloadOn(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case <-signals:
			g.reload(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// newLogger writes text for people at a terminal and JSON for machines.
func newLogger(w io.Writer, c Log) *slog.Logger {
	level := map[LogLevel]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}[c.Level]
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "text" || c.Format != "json" && isTerminal(w) {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}

// banner says what a newcomer does first.
func (g *gateway) banner(w io.Writer) {
	c, st := g.settings(), styleFor(w)
	proxy := g.listenProxy.Addr().String()
	command := strings.Join(quoteAll(g.command()), " ")
	line := func(name, value string) { fmt.Fprintf(w, "  %s %s\n", st.dim(fmt.Sprintf("%-15s", name)), value) }
	fmt.Fprintf(w, "%s\n\n", st.bold("exitgate "+build().Version+" is ready"))
	line("proxy", "http://"+proxy)
	line("CA certificate", g.issuer.RootFile())
	line("", "SHA-256 "+g.issuer.Fingerprint())
	line("data", c.DataDir)
	line("policy", c.Policy.Dir)
	line("admin socket", adminSocket(c.DataDir))
	if g.listenAdmin != nil {
		line("metrics", "http://"+g.listenAdmin.Addr().String()+"/metrics (also /livez, /readyz)")
	}
	if g.file == "" {
		fmt.Fprintf(w, "\nThis machine is host localhost of class local, and may reach nothing yet. Try what is refused; the answer says\nhow to grant it:\n\n  %s\n",
			st.bold("curl --cacert "+shellQuote(g.issuer.RootFile())+" -x http://"+reachable(proxy)+" https://example.com/"))
	}
	fmt.Fprintf(w, "\nThen: %s\n\n", cmp.Or(command, "exitgate")+" flows   "+command+" grant list   "+command+" explain FLOW")
}

// reachable is the address under which this machine reaches a listener on all addresses.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return addr
}

func quoteAll(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = shellQuote(w)
	}
	return out
}
