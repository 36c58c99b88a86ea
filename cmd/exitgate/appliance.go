package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate/ca"
	"github.com/exitgate/exitgate/cmd/internal/doctor"
	"github.com/exitgate/exitgate/policy"
	"github.com/exitgate/exitgate/storage/postgres"
	"github.com/exitgate/exitgate/storage/sqlite"
	"github.com/exitgate/exitgate/web"
)

// systemConfig is where the unit has its configuration.
const systemConfig = "/etc/exitgate/exitgate.yaml"

func examineAppliance(c *cobra.Command, file, output string) error {
	if flagOr(c, "api", "EXITGATE_API") != "" {
		return usage(c, errors.New("the doctor looks at the machine that it runs on; leave out --api"))
	}
	return printChecks(c, applianceOf(c, file).Check(c.Context()), output)
}

// applianceOf is the gateway that is meant: of the configuration that is named, of the one that runs on the data
// directory, or of the one that the unit has.
func applianceOf(c *cobra.Command, file string) doctor.Appliance {
	named := flagOr(c, "data", "EXITGATE_DATA")
	if file == "" && named == "" && exists(systemConfig) {
		file = systemConfig
	}
	if file == "" {
		if s, err := statusOf(c.Context(), dataDir(c)); err == nil {
			file = s.Config
		}
	}
	cfg, err := readConfig(file)
	if err != nil {
		cfg = starterConfig()
		cfg.DataDir = "" // nobody knows
	}
	if file == "" {
		cfg = (&Config{DataDir: dataDir(c), Hosts: starterConfig().Hosts}).complete(".")
	}
	return lookAt(cfg, file, err)
}

// statusOf asks the gateway that runs on a data directory.
func statusOf(ctx context.Context, dir string) (s web.Status, err error) {
	return s, dialData(dir).call(ctx, http.MethodGet, "status", nil, &s)
}

// lookAt is the gateway of a configuration; wrong is what is wrong with it.
func lookAt(c *Config, file string, wrong error) doctor.Appliance {
	a := doctor.Appliance{
		Config: func() (string, error) {
			if file == "" {
				return "none: the starter configuration", wrong
			}
			return file + " can be loaded", wrong
		},
		Status: func(ctx context.Context) (doctor.Running, error) { return running(ctx, c.DataDir) },
	}
	if wrong != nil {
		a.Status = func(context.Context) (doctor.Running, error) {
			return doctor.Running{}, errors.New("where its data is was not to be found out, so the gateway was not asked")
		}
		return a
	}
	a.Data = c.DataDir
	a.Authority = []doctor.Authority{{Name: "interception", Read: func() (doctor.AuthorityState, error) { return readCA(inData(c, "ca")) }}}
	if dir := inData(c, "identity"); exists(dir) {
		a.Authority = append(a.Authority, doctor.Authority{Name: "identity", Read: func() (doctor.AuthorityState, error) { return doctor.ReadAuthority(dir) }})
	}
	a.Store = func(ctx context.Context) (string, error) { return storeState(ctx, c.storeURL()) }
	a.Journal = doctor.Journal{Dir: c.Journal.Dir, MaxBytes: c.Journal.MaxBytes.value()}
	a.Policy = func(ctx context.Context) (string, error) { return policyOf(ctx, c) }
	a.Listen = listenersOf(c)
	a.Connections = c.Limits.Connections.value()
	if c.Upstream.Proxy != "" {
		a.Parent = redactedHost(string(c.Upstream.Proxy))
	}
	return a
}

// listenersOf lists where the configuration has the gateway listen.
func listenersOf(c *Config) (list []doctor.Listener) {
	for _, l := range []struct {
		key  string
		addr HostPort
	}{
		{"listen.proxy", c.Listen.Proxy}, {"listen.tls_proxy", c.Listen.TLSProxy}, {"listen.enroll", c.Listen.Enroll},
		{"listen.plain", c.Listen.Plain}, {"listen.admin", c.Listen.Admin}, {"listen.api", c.Listen.API},
	} {
		if l.addr != "off" && l.addr != "" {
			list = append(list, doctor.Listener{Key: l.key, Addr: string(l.addr)})
		}
	}
	return list
}

func redactedHost(proxy string) string {
	if i := strings.LastIndexByte(proxy, '@'); i >= 0 {
		return proxy[i+1:]
	}
	return proxy
}

func running(ctx context.Context, dir string) (r doctor.Running, err error) {
	s, err := statusOf(ctx, dir)
	if err != nil {
		text, _, _ := strings.Cut(err.Error(), "\n")
		return r, errors.New(text)
	}
	r = doctor.Running{PID: s.PID, Version: s.Version, Config: s.Config,
		Text: fmt.Sprintf("%s, version %s, process %d, policy revision %s, %d grants, %d hosts, %d connections", s.Gateway, s.Version, s.PID, s.Revision, s.Grants, s.Hosts, s.Connections)}
	if s.Reload != "" {
		r.Wrong = append(r.Wrong, "the last reload failed, and what was loaded before is in force: "+s.Reload)
	}
	for _, check := range s.Checks {
		if check.Wrong != "" {
			r.Wrong = append(r.Wrong, check.Name+": "+check.Wrong)
		}
	}
	return r, nil
}

// readCA reads the folder of the interception CA.
func readCA(dir string) (a doctor.AuthorityState, err error) {
	if !exists(dir) {
		return a, nil
	}
	s, err := ca.Read(dir)
	if errors.Is(err, fs.ErrPermission) {
		return a, fmt.Errorf("%w: run this as the user that the gateway runs as, or with sudo", err)
	}
	return doctor.AuthorityState{Root: s.Root, Issuer: s.Issuer, Phase: string(s.Phase), SwitchAt: s.SwitchAt, Concerns: s.Concerns}, err
}

// storeState looks at the store without changing it.
func storeState(ctx context.Context, url string) (string, error) {
	what, have, known, err := "the Postgres store", 0, 0, error(nil)
	if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
		what = path
		have, known, err = sqlite.Version(ctx, path)
		if errors.Is(err, fs.ErrNotExist) {
			return path + " is made at the first start", nil
		}
	} else {
		have, known, err = postgres.Version(ctx, url)
	}
	switch {
	case err != nil:
		return "", oneLine{err}
	case have == 0:
		return what + " answers, and gets its tables at the first start", nil
	case have < known:
		return fmt.Sprintf("%s has schema %d; the next start brings it to %d", what, have, known), nil
	}
	return fmt.Sprintf("%s answers, schema %d", what, have), nil
}

// policyOf loads the policy as the gateway does, without what is in the store, and runs its tests.
func policyOf(ctx context.Context, c *Config) (string, error) {
	dir := c.Policy.Dir
	if !exists(dir) {
		if dir != filepath.Join(c.DataDir, "policy") {
			return "", fmt.Errorf("the policy directory %s is not there", dir)
		}
		dir = ""
	}
	if _, err := os.ReadDir(dir); dir != "" && err != nil {
		return "", err
	}
	results, err := policy.Test(ctx, dir)
	if err != nil {
		return "", err
	}
	var failed []string
	for _, r := range results {
		if !r.Passed {
			failed = append(failed, fmt.Sprintf("%s (%s): %s", r.Name, r.Place, r.Why))
		}
	}
	if len(failed) > 0 {
		return "", fmt.Errorf("%d of %d tests do not pass:\n%s", len(failed), len(results), strings.Join(failed[:min(len(failed), 5)], "\n"))
	}
	if dir == "" {
		return fmt.Sprintf("the shipped policy alone loads, and its %d tests pass", len(results)), nil
	}
	return fmt.Sprintf("%s loads, and %d tests pass, the shipped ones included", dir, len(results)), nil
}
