package enroll

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/exitgate/exitgate/ca/trust"
)

// files lists what an enrolled host has besides its stores. A dry run has no key and no identity.
func (h *Host) files(s State, roots []*x509.Certificate, key []byte, identity *tls.Certificate) []trust.File {
	config, _ := json.MarshalIndent(s, "", "  ") // strings only
	list := []trust.File{
		{Path: h.statePath("root.crt"), Content: chainPEM(roots), Mode: 0o644},
		{Path: h.statePath("identity.key"), Content: key, Mode: 0o600},
		{Path: h.statePath("identity.crt"), Mode: 0o644},
		{Path: h.configPath(), Content: append(config, '\n'), Mode: 0o644},
	}
	if identity != nil {
		list[2].Content = identityPEM(identity)
	}
	return append(list, h.timerFiles()...)
}

// How the renewal is started.
const (
	timerNone    = ""
	timerSystemd = "systemd"
	timerCron    = "cron"
)

const timerUnit = "exitgate-host.timer"

func (h *Host) timer() string {
	if h.Trust.HasSystemd() {
		return timerSystemd
	}
	if fi, err := os.Stat(filepath.Join(h.Trust.Root, "/etc/cron.d")); err == nil && fi.IsDir() && !h.user() {
		return timerCron
	}
	return timerNone
}

func (h *Host) units() []string {
	if h.timer() == timerSystemd {
		return []string{timerUnit}
	}
	return nil
}

// timerFiles lists the units, or the line for cron. They start the renewal often and let it decide: a look costs the
// gateway two small answers, and roots that change must reach hosts within the hour.
func (h *Host) timerFiles() []trust.File {
	flag := ""
	if h.user() {
		flag = " --user"
	}
	switch h.timer() {
	case timerSystemd:
		service := `# Written by exitgate; "exitgate unenroll" removes this file.
[Unit]
Description=Renew this host's exitgate identity, and take up roots that changed
Documentation=https://github.com/exitgate/exitgate
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart=` + unitQuote(h.program()) + ` enroll --renew` + flag + `
TimeoutStartSec=5min
`
		timer := `# Written by exitgate; "exitgate unenroll" removes this file.
[Unit]
Description=Renew this host's exitgate identity in time

[Timer]
OnActiveSec=10min
OnBootSec=1min
OnUnitActiveSec=10min
RandomizedDelaySec=5min

[Install]
WantedBy=timers.target
`
		return []trust.File{
			{Path: h.Trust.UnitDir() + "/exitgate-host.service", Content: []byte(service), Mode: 0o644},
			{Path: h.Trust.UnitDir() + "/" + timerUnit, Content: []byte(timer), Mode: 0o644},
		}
	case timerCron:
		// The names of files in cron.d have no dots.
		line := "# Written by exitgate; \"exitgate unenroll\" removes this file.\n*/15 * * * * root " + shellQuote(h.program()) + " enroll --renew >/dev/null 2>&1\n"
		return []trust.File{{Path: "/etc/cron.d/exitgate-host", Content: []byte(line), Mode: 0o644}}
	}
	return nil
}

// unitQuote writes one word of a unit's command line.
func unitQuote(s string) string {
	q := strconv.Quote(s)
	out := ""
	for _, r := range q {
		if r == '%' || r == '$' {
			out += string(r)
		}
		out += string(r)
	}
	return out
}

// addresses lists what the gateway may see this host as: the addresses of the interface through which it was reached,
// and not those of bridges that every container host has alike.
func (h *Host) addresses(l *link) []string {
	if len(h.Addresses) > 0 {
		return h.Addresses
	}
	local, ok := l.local.(*net.TCPAddr)
	if !ok {
		return nil
	}
	list := []string{local.IP.String()}
	interfaces, err := net.Interfaces()
	if err != nil || local.IP.IsLoopback() {
		return list
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil || !hasIP(addrs, local.IP) {
			continue
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && !n.IP.Equal(local.IP) {
				list = append(list, n.IP.String())
			}
		}
	}
	return list
}

func hasIP(addrs []net.Addr, ip net.IP) bool {
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip) {
			return true
		}
	}
	return false
}

// Way says what the gateway is to programs of this host.
func (s State) Way() string {
	if s.Mode == "transparent" {
		return "transparent: no proxy settings"
	}
	return fmt.Sprintf("proxy %s", s.Proxy.HTTPS)
}
