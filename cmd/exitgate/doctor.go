package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate/cmd/internal/doctor"
)

func doctorCommand() *cobra.Command {
	var file, output string
	var user bool
	c := &cobra.Command{
		Use:   "doctor [URL]",
		Short: "Find out why something does not work, on a host or on the gateway",
		Long: `With a URL, on a host: compares what the host sees of it with what the gateway sees (DNS, address, route, proxy,
certificate, trust, protocol, clock) and what the gateway decides, says which side is off and what to do. No request is
sent to the destination. As root, since the host's identity is for root only; without one, or on a host that is not
enrolled, it tells what the host alone can see.

Without a URL, on a gateway: looks at all that it stands on: configuration, data directory, certificates, store, journal,
policy, ports, resolver, clock, limits. It works when the gateway is down, and changes nothing. On an enrolled host that
is no gateway, it opens the name that the gateway answers itself.

The exit code is 1 when something is wrong.`,
		Example: `  sudo exitgate doctor https://www.example.com/
  exitgate doctor -c /etc/exitgate/exitgate.yaml
  exitgate doctor -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return usage(c, err)
			}
			host, err := doctorHost(user)
			if err != nil {
				return err
			}
			if len(args) == 0 && (file != "" || !isHostOnly(c, host)) {
				return examineAppliance(c, file, output)
			}
			target := probeURL
			if len(args) == 1 {
				target = args[0]
			}
			u, err := doctorURL(target)
			if err != nil {
				return usage(c, err)
			}
			return printReport(c, host.Examine(c.Context(), u), output)
		},
	}
	c.Flags().StringVarP(&file, "config", "c", "", "on a gateway: its configuration file (default: the one it runs with, or /etc/exitgate/exitgate.yaml)")
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	c.Flags().BoolVar(&user, "user", false, "on a host: the enrolment of this account only")
	return c
}

// doctorHost is this machine, or one account of it.
func doctorHost(user bool) (doctor.Host, error) {
	h := doctor.Host{Config: hostFile, State: hostState}
	if user {
		home, err := os.UserHomeDir()
		if err != nil {
			return h, fmt.Errorf("find the home directory: %w", err)
		}
		h.Config, h.State = filepath.Join(home, ".config/exitgate/host.json"), filepath.Join(home, ".local/state/exitgate-host")
	}
	return h, nil
}

// isHostOnly reports whether this machine is enrolled and nothing says that it is a gateway.
func isHostOnly(c *cobra.Command, h doctor.Host) bool {
	if flagOr(c, "data", "EXITGATE_DATA") != "" || exists(dataDir(c)) || exists(systemConfig) {
		return false
	}
	return exists(h.Config)
}

// exists reports whether something is there, or cannot be looked at.
func exists(name string) bool {
	_, err := os.Lstat(name)
	return !errors.Is(err, os.ErrNotExist)
}

// doctorURL reads what a person gives: a URL, or a name.
func doctorURL(s string) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%q is not a URL", plain(s))
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return nil, fmt.Errorf("%q: give a URL that begins with http:// or https://", plain(s))
	case u.User != nil:
		return nil, errors.New("leave user and password out of the URL: it is told to the gateway")
	case strings.HasSuffix(u.Host, ":"):
		return nil, fmt.Errorf("%q: there is no port behind the colon", plain(s))
	}
	u.Fragment = ""
	return u, nil
}
