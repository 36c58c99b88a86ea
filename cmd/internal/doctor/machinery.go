package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Machine is what the gateway stands on. The zero Machine is this one; tests replace what they are about.
type Machine struct {
	NTP    func() (NTP, error)
	Disk   func(dir string) (Disk, error)
	Sysctl func(name string) (string, error) // net.core.somaxconn
	// Process says how a process is confined; pid 0 is this one.
	Process func(pid int) (Process, error)
	// Bind tries to listen on an address, and stops.
	Bind func(ctx context.Context, addr string) error
	// Holder says which process listens on an address; 0 when that cannot be seen.
	Holder func(addr netip.AddrPort) (pid int, program string)
	// Nameservers are those of the system; Query asks one of them for what every resolver knows.
	Nameservers func() []string
	Query       func(ctx context.Context, server string) error
}

// NTP is how the kernel's clock is kept.
type NTP struct {
	Synced   bool
	MaxError time.Duration
}

// A Disk is the room on a file system.
type Disk struct {
	Free, Size            int64 // bytes
	FreeInodes, AllInodes int64 // 0: the file system does not count them
}

// A Process is how one is confined.
type Process struct {
	Unit         string // of systemd; "" it is run by hand
	UID          int
	NoNewPrivs   bool
	Seccomp      bool
	Capabilities uint64 // effective
	Files        uint64 // descriptors that it may have
}

func (m Machine) complete() Machine {
	if m.NTP == nil {
		m.NTP = ntp
	}
	if m.Disk == nil {
		m.Disk = disk
	}
	if m.Sysctl == nil {
		m.Sysctl = sysctl
	}
	if m.Process == nil {
		m.Process = process
	}
	if m.Bind == nil {
		m.Bind = bind
	}
	if m.Holder == nil {
		m.Holder = holder
	}
	if m.Nameservers == nil {
		m.Nameservers = func() []string { return resolvers("/etc/resolv.conf") }
	}
	if m.Query == nil {
		m.Query = query
	}
	return m
}

func sysctl(name string) (string, error) {
	b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	return strings.TrimSpace(string(b)), err
}

func bind(ctx context.Context, addr string) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}

// query asks a name server for the name servers of the root, which every resolver knows or asks for.
func query(ctx context.Context, server string) error {
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(server, "53"))
	}}
	_, err := r.LookupNS(ctx, ".")
	return err
}

// process reads what the kernel says of a process.
func process(pid int) (p Process, err error) {
	dir := "/proc/self"
	if pid > 0 {
		dir = "/proc/" + strconv.Itoa(pid)
	}
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return p, err
	}
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "Uid:":
			p.UID, _ = strconv.Atoi(f[1])
		case "NoNewPrivs:":
			p.NoNewPrivs = f[1] == "1"
		case "Seccomp:":
			p.Seccomp = f[1] == "2"
		case "CapEff:":
			p.Capabilities, _ = strconv.ParseUint(f[1], 16, 64)
		}
	}
	if cgroup, err := os.ReadFile(filepath.Join(dir, "cgroup")); err == nil {
		p.Unit = unitOf(string(cgroup))
	}
	p.Files, err = files(dir)
	return p, err
}

// unitOf returns the service that a cgroup belongs to.
func unitOf(cgroup string) string {
	for line := range strings.Lines(cgroup) {
		_, path, _ := strings.Cut(line, "::")
		if unit := filepath.Base(strings.TrimSpace(path)); strings.HasSuffix(unit, ".service") && strings.Contains(path, "system.slice") {
			return unit
		}
	}
	return ""
}

// files reads how many descriptors a process may have.
func files(dir string) (uint64, error) {
	b, err := os.ReadFile(filepath.Join(dir, "limits"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(line, "Max open files")
		if f := strings.Fields(rest); ok && len(f) >= 2 {
			if f[0] == "unlimited" {
				return 1 << 62, nil
			}
			return strconv.ParseUint(f[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s/limits does not say how many files may be open", dir)
}

// holder finds the process whose socket listens on addr, or on all addresses with that port.
func holder(addr netip.AddrPort) (int, string) {
	inodes := map[string]bool{}
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != "0A" { // TCP_LISTEN
				continue
			}
			_, port, _ := strings.Cut(f[1], ":")
			if n, err := strconv.ParseUint(port, 16, 16); err == nil && uint16(n) == addr.Port() {
				inodes["socket:["+f[9]+"]"] = true
			}
		}
	}
	if len(inodes) == 0 {
		return 0, ""
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		fds, _ := os.ReadDir(dir + "/fd")
		for _, fd := range fds {
			if link, err := os.Readlink(dir + "/fd/" + fd.Name()); err == nil && inodes[link] {
				pid, _ := strconv.Atoi(filepath.Base(dir))
				name, _ := os.ReadFile(dir + "/comm")
				return pid, string(bytes.TrimSpace(name))
			}
		}
	}
	return 0, ""
}

// inUse reports whether err says that somebody else listens there.
func inUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }
