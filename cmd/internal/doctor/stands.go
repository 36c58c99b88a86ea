package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxKeys bounds how many files are looked at for keys.
const maxKeys = 2000

// data looks at the data directory and at who may read the keys in it.
func (a Appliance) data(ctx context.Context) []Check {
	const name = "data directory"
	if a.Data == "" {
		return nil
	}
	st, err := os.Stat(a.Data)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return one(name, Warn, "the first start makes it; or name the right one with --data or -c", "%s is not there", a.Data)
	case err != nil:
		return one(name, Fail, "run this as the user that the gateway runs as, or with sudo", "%s", err)
	case !st.IsDir():
		return one(name, Fail, "name another data directory", "%s is no directory", a.Data)
	case st.Mode().Perm()&0o077 != 0:
		return one(name, Fail, "chmod 700 "+shellQuote(a.Data), "%s is open to other users (mode %04o), and it holds keys", a.Data, st.Mode().Perm())
	}
	keys, list := 0, []Check(nil)
	err = filepath.WalkDir(a.Data, func(p string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil || keys >= maxKeys {
			return fs.SkipAll
		}
		if err != nil {
			list = append(list, one(name, Fail, "run this as the user that the gateway runs as, or with sudo", "%s", err)...)
			return nil
		}
		if d.IsDir() && (p == a.Journal.Dir || filepath.Base(p) == "policy") {
			return fs.SkipDir // large, and without keys
		}
		if d.Type().IsRegular() {
			keys += a.key(p, d, st, &list)
		}
		return nil
	})
	if err != nil {
		list = append(list, one(name, Fail, "", "%s", err)...)
	}
	return append(one(name, OK, "", "%s, mode %04o, %d files with keys", a.Data, st.Mode().Perm(), keys), list...)
}

// key says what is wrong with who may read the file p, if a key is in it.
func (a Appliance) key(p string, d fs.DirEntry, dir fs.FileInfo, list *[]Check) int {
	st, err := d.Info()
	if err != nil || st.Size() > 1<<20 {
		return 0
	}
	b, err := os.ReadFile(p)
	if errors.Is(err, fs.ErrPermission) {
		*list = append(*list, one("data directory", Warn, "run this as the user that the gateway runs as, or with sudo", "%s cannot be read", p)...)
		return 0
	}
	if err != nil || !bytes.Contains(b, []byte("PRIVATE KEY-----")) && filepath.Base(p) != "fingerprint.key" {
		return 0
	}
	if st.Mode().Perm()&0o077 != 0 {
		*list = append(*list, one("data directory", Fail, "chmod 600 "+shellQuote(p), "the key %s can be read by others (mode %04o)", p, st.Mode().Perm())...)
	}
	if other := otherOwner(st, dir); other != "" {
		*list = append(*list, one("data directory", Fail, "chown it to the user that the gateway runs as", "the key %s belongs to %s, and the directory to another", p, other)...)
	}
	return 1
}

// How much room is asked for beside the journal: the store grows, and what cannot be written is refused.
const leastFree = 256 << 20

func (a Appliance) journal(ctx context.Context) []Check {
	const name = "journal"
	if a.Journal.Dir == "" {
		return nil
	}
	dir := a.Journal.Dir
	used, files := int64(0), 0
	filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return nil // what cannot be seen is not counted
		}
		if st, err := d.Info(); err == nil && d.Type().IsRegular() {
			used, files = used+st.Size(), files+1
		}
		return nil
	})
	for _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir; _, err = os.Stat(dir) {
		dir = filepath.Dir(dir)
	}
	d, err := a.Machine.Disk(dir)
	if err != nil {
		return one(name, Warn, "", "the room on the disk cannot be seen: %s", err)
	}
	room := max(a.Journal.MaxBytes-used, 0)
	const grow = "make room, move the data directory, or lower journal.max_bytes"
	seen := fmt.Sprintf("%s of %s used, %s free on the disk", size(used), size(a.Journal.MaxBytes), size(d.Free))
	switch {
	case used >= a.Journal.MaxBytes:
		return one(name, Fail, "nothing is carried until the store takes what is there: see the store", "%s", seen)
	case d.Free < leastFree/4:
		return one(name, Fail, grow+"; nothing is carried when a flow cannot be recorded", "%s", seen)
	case d.AllInodes > 0 && d.FreeInodes < 1000:
		return one(name, Fail, "remove files that are not needed", "%d inodes are free on the disk", d.FreeInodes)
	case d.Free < room+leastFree:
		return one(name, Warn, grow, "%s: less than the journal may take", seen)
	case used > a.Journal.MaxBytes/2:
		return one(name, Warn, "the store is behind: see whether it answers", "%s", seen)
	}
	return one(name, OK, "", "%s", seen)
}

// ports tries each address that the gateway listens on: by a connection where it runs, and else by listening there.
func (a Appliance) ports(ctx context.Context, r Running) (list []Check) {
	for _, l := range a.Listen {
		name := "port " + l.Key
		ap, err := resolvePort(ctx, l.Addr)
		if err != nil {
			list = append(list, one(name, Fail, "correct "+l.Key, "%s: %s", l.Addr, err)...)
			continue
		}
		if r.PID > 0 {
			list = append(list, a.held(ctx, name, l, ap, r.PID)...)
			continue
		}
		err = a.Machine.Bind(ctx, l.Addr)
		pid, program := 0, ""
		if err != nil {
			pid, program = a.Machine.Holder(ap)
		}
		switch {
		case err == nil:
			list = append(list, one(name, OK, "", "%s is free", l.Addr)...)
		case inUse(err) && pid > 0:
			list = append(list, one(name, Fail, "stop it, or choose another address", "%s is taken by process %d (%s)", l.Addr, pid, program)...)
		case inUse(err):
			list = append(list, one(name, Fail, "find it as root (ss -ltnp), or choose another address", "%s is taken by another process", l.Addr)...)
		default:
			list = append(list, one(name, Fail, "see that the address is one of this machine, and above 1024 for a user that is not root", "%s", err)...)
		}
	}
	return list
}

// held looks whether the gateway that runs is the one who answers.
func (a Appliance) held(ctx context.Context, name string, l Listener, ap netip.AddrPort, pid int) []Check {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", loopbackOf(ap).String())
	if err != nil {
		return one(name, Fail, "a change of "+l.Key+" needs a restart; else look at the log, and for a firewall", "the gateway runs, and %s does not answer: %s", l.Addr, err)
	}
	c.Close()
	if other, program := a.Machine.Holder(ap); other > 0 && other != pid {
		return one(name, Fail, "stop it, or choose another address, and restart", "%s is answered by process %d (%s), which is not the gateway (%d)", l.Addr, other, program, pid)
	}
	return one(name, OK, "", "%s answers", l.Addr)
}

func resolvePort(ctx context.Context, addr string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return netip.AddrPort{}, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if host == "" {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(n)), nil
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(a.Unmap(), uint16(n)), nil
	}
	list, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(list) == 0 {
		return netip.AddrPort{}, fmt.Errorf("look %s up: %w", host, err)
	}
	return netip.AddrPortFrom(list[0].Unmap(), uint16(n)), nil
}

func (a Appliance) resolver(ctx context.Context) (list []Check) {
	const name = "resolver"
	if a.Parent != "" {
		return one(name, OK, "", "the parent proxy %s looks names up", a.Parent)
	}
	servers := a.Machine.Nameservers()
	if len(servers) == 0 {
		return one(name, Fail, "name a resolver in /etc/resolv.conf", "no resolver is set")
	}
	answered, silent := 0, []string(nil)
	for _, s := range servers {
		ctx, cancel := context.WithTimeout(ctx, stepTime/time.Duration(len(servers)+1))
		err := a.Machine.Query(ctx, s)
		cancel()
		var dns *net.DNSError
		switch {
		case err == nil || errors.As(err, &dns) && dns.IsNotFound:
			answered++
		case errors.As(err, &dns) && !dns.IsTimeout && strings.Contains(dns.Err, "misbehaving"): // REFUSED or SERVFAIL
			answered++
			list = append(list, one(name, Warn, "see that it knows the way to the Internet's DNS, if the gateway needs that", "%s answers, and does not resolve the root", s)...)
		default:
			silent = append(silent, s)
		}
	}
	if answered == 0 {
		return one(name, Fail, "see that it runs and that nothing stands before port 53; no name can be looked up", "%s does not answer", strings.Join(silent, ", "))
	}
	if len(silent) > 0 {
		list = append(list, one(name, Warn, "take it out of /etc/resolv.conf, or repair it: each look-up waits for it", "%s does not answer", strings.Join(silent, ", "))...)
	}
	return append(list, one(name, OK, "", "%d of %d resolvers answer", answered, len(servers))...)
}

// The years in which this program can honestly run.
const firstYear, lastYear = 2025, 2100

func (a Appliance) clock(context.Context) []Check {
	const name = "clock"
	now := a.Now().UTC()
	if now.Year() < firstYear || now.Year() > lastYear {
		return one(name, Fail, "set the clock before anything else: certificates that are made now are of no use", "it is %s", stamp(now))
	}
	n, err := a.Machine.NTP()
	switch {
	case err != nil:
		return one(name, Warn, "", "%s; whether it is kept cannot be seen: %s", stamp(now), err)
	case !n.Synced:
		return one(name, Warn, "let NTP keep it (timedatectl set-ntp true); in a container the host has to", "%s, and nothing keeps it", stamp(now))
	case n.MaxError > time.Second:
		return one(name, Warn, "see that the NTP servers can be reached", "%s, kept by NTP, and perhaps %v off", stamp(now), n.MaxError.Round(time.Millisecond))
	}
	return one(name, OK, "", "%s, kept by NTP", stamp(now))
}

// spareFiles are the descriptors beside connections: listeners, store, journal, logs.
const spareFiles = 256

func (a Appliance) descriptors(r Running, up bool) []Check {
	const name = "descriptors"
	if a.Connections == 0 {
		return nil
	}
	p, err := a.Machine.Process(r.PID)
	if err != nil {
		return one(name, Warn, "run this as root", "they cannot be seen: %s", err)
	}
	who := "the gateway"
	if !up {
		who = "this session"
	}
	need := uint64(2*a.Connections + spareFiles)
	seen := fmt.Sprintf("%s may have %d open; limits.connections %d needs %d, and twice that if all are spliced", who, p.Files, a.Connections, need)
	switch {
	case p.Files >= need:
		return one(name, OK, "", "%s", seen)
	case !up:
		return one(name, Warn, "the unit sets LimitNOFILE itself; by hand: ulimit -n "+strconv.FormatUint(need, 10), "%s", seen)
	}
	return one(name, Warn, fmt.Sprintf("set LimitNOFILE=%d in the unit, or lower limits.connections", 2*need), "%s", seen)
}

// kernel looks at settings that matter under load. None of them is wrong for a small gateway.
func (a Appliance) kernel() (list []Check) {
	const name = "kernel"
	fine := []string{}
	for _, s := range []struct {
		key  string
		good func([]int) bool
		set  string
		why  string
		hint bool // it only matters in some places
	}{
		{"net.ipv4.ip_local_port_range", func(n []int) bool { return len(n) == 2 && n[1]-n[0] >= 50000 }, "1024 65535",
			"connections to one destination end at the size of this range", false},
		{"net.ipv4.tcp_tw_reuse", func(n []int) bool { return n[0] == 1 }, "1", "ports of closed connections are kept for a minute", true},
		{"net.core.somaxconn", func(n []int) bool { return n[0] >= 4096 }, "4096", "bursts of new connections are dropped beyond it", false},
		{"net.ipv4.icmp_ratelimit", func(n []int) bool { return n[0] == 0 }, "0", "refusals by ICMP (transparent mode) look like silence when there are many", true},
	} {
		v, err := a.Machine.Sysctl(s.key)
		if err != nil {
			continue // in a container, or hidden by the unit
		}
		var nums []int
		for _, f := range strings.Fields(v) {
			n, err := strconv.Atoi(f)
			if err != nil {
				break
			}
			nums = append(nums, n)
		}
		if len(nums) > 0 && s.good(nums) {
			fine = append(fine, s.key)
			continue
		}
		state := Warn
		if s.hint {
			state = OK
		}
		list = append(list, one(name, state, fmt.Sprintf("under load: sysctl -w %s=%q", s.key, s.set), "%s is %s: %s", s.key, strings.Join(strings.Fields(v), " "), s.why)...)
	}
	if len(fine) > 0 {
		list = append(list, one(name, OK, "", "%s", strings.Join(fine, ", "))...)
	}
	return list
}

// capNetRaw and capNetAdmin, either of which transparent interception needs.
const transparentCaps = 1<<13 | 1<<12

func (a Appliance) hardening(r Running, up bool) []Check {
	const name = "hardening"
	if !up {
		return nil
	}
	p, err := a.Machine.Process(r.PID)
	if err != nil {
		return one(name, Warn, "run this as root", "it cannot be seen: %s", err)
	}
	var lacks []string
	if p.UID == 0 {
		lacks = append(lacks, "it runs as root")
	}
	if !p.NoNewPrivs {
		lacks = append(lacks, "NoNewPrivileges is off")
	}
	if !p.Seccomp {
		lacks = append(lacks, "no SystemCallFilter")
	}
	if p.Capabilities&^transparentCaps != 0 {
		lacks = append(lacks, fmt.Sprintf("it has capabilities (%x)", p.Capabilities))
	}
	slices.Sort(lacks)
	switch {
	case p.Unit == "" && len(lacks) == 0:
		return one(name, OK, "", "process %d is confined, and not by a unit of systemd", r.PID)
	case p.Unit == "":
		return one(name, Warn, "for more than a try, run it by deploy/systemd/exitgate.service", "process %d is not run by systemd: %s", r.PID, strings.Join(lacks, ", "))
	case len(lacks) > 0:
		return one(name, Warn, "compare the unit with deploy/systemd/exitgate.service: systemctl cat "+p.Unit, "%s: %s", p.Unit, strings.Join(lacks, ", "))
	}
	return one(name, OK, "", "%s confines it", p.Unit)
}

func size(n int64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/1000, 0
	for ; v >= 999.95 && i < len(units)-1; i++ {
		v /= 1000
	}
	return fmt.Sprintf("%.1f %cB", v, units[i])
}
