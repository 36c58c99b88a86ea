package doctor

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A bench is an appliance on which all is well, for a test to spoil.
func newBench(t *testing.T) *Appliance {
	root := newSigner(t, "root").cert
	root.NotAfter = noon().AddDate(9, 0, 0)
	data := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	answer := func(s string) func(context.Context) (string, error) {
		return func(context.Context) (string, error) { return s, nil }
	}
	return &Appliance{
		Config: func() (string, error) { return "gate.yaml can be loaded", nil }, Data: data,
		Authority: []Authority{{"interception", func() (AuthorityState, error) { return AuthorityState{Root: root, Phase: "steady"}, nil }}},
		Store:     answer("schema 2"), Policy: answer("loads"), Journal: Journal{filepath.Join(data, "journal"), 1 << 30},
		Listen: []Listener{{"listen.proxy", "127.0.0.1:3128"}}, Connections: 1000, Now: noon,
		Status: func(context.Context) (Running, error) { return Running{}, errors.New("no gateway is running") },
		Machine: Machine{
			NTP: func() (NTP, error) { return NTP{Synced: true}, nil },
			Disk: func(string) (Disk, error) {
				return Disk{Free: 1 << 40, Size: 1 << 41, FreeInodes: 1 << 20, AllInodes: 1 << 21}, nil
			},
			Sysctl: func(name string) (string, error) {
				return map[string]string{"net.ipv4.ip_local_port_range": "1024\t65535", "net.ipv4.tcp_tw_reuse": "1", "net.core.somaxconn": "4096", "net.ipv4.icmp_ratelimit": "0"}[name], nil
			},
			Process: func(int) (Process, error) {
				return Process{Unit: "exitgate.service", UID: 999, NoNewPrivs: true, Seccomp: true, Files: 131072}, nil
			},
			Bind: func(context.Context, string) error { return nil }, Holder: func(netip.AddrPort) (int, string) { return 0, "" },
			Nameservers: func() []string { return []string{"192.0.2.53"} }, Query: func(context.Context, string) error { return nil },
		},
	}
}

func (a *Appliance) runs() {
	a.Status = func(context.Context) (Running, error) { return Running{PID: 77, Text: "gate"}, nil }
	a.Listen = nil
}

// TestAppliance spoils one thing at a time.
func TestAppliance(t *testing.T) {
	key := func(t *testing.T, a *Appliance, name string, mode os.FileMode) {
		t.Helper()
		file := filepath.Join(a.Data, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte("-----BEGIN EC PRIVATE KEY-----\n"), 0o600), os.Chmod(file, mode)); err != nil {
			t.Fatal(err)
		}
	}
	ca := func(change func(*AuthorityState)) func(t *testing.T, a *Appliance) {
		return func(t *testing.T, a *Appliance) {
			s, _ := a.Authority[0].Read()
			copied := *s.Root
			s.Root = &copied
			change(&s)
			a.Authority[0].Read = func() (AuthorityState, error) { return s, nil }
		}
	}
	for name, tc := range map[string]struct {
		spoil func(t *testing.T, a *Appliance)
		check string
		state State
		seen  string
	}{
		"down": {func(t *testing.T, a *Appliance) {}, "gateway", Warn, "no gateway is running"},
		"up":   {func(t *testing.T, a *Appliance) { a.runs() }, "gateway", OK, "gate"},
		"reload failed": {func(t *testing.T, a *Appliance) {
			a.Status = func(context.Context) (Running, error) {
				return Running{PID: 7, Wrong: []string{"the last reload failed"}}, nil
			}
		}, "gateway", Fail, "the last reload failed"},
		"configuration": {func(t *testing.T, a *Appliance) {
			a.Config = func() (string, error) { return "", errors.New("gate.yaml:3:1: no such key") }
		}, "configuration", Fail, "gate.yaml:3:1"},
		"data gone":          {func(t *testing.T, a *Appliance) { os.Remove(a.Data) }, "data directory", Warn, "is not there"},
		"data open":          {func(t *testing.T, a *Appliance) { os.Chmod(a.Data, 0o755) }, "data directory", Fail, "open to other users (mode 0755)"},
		"key open":           {func(t *testing.T, a *Appliance) { key(t, a, "ca/root.pem", 0o640) }, "data directory", Fail, "ca/root.pem can be read by others (mode 0640)"},
		"keys fine":          {func(t *testing.T, a *Appliance) { key(t, a, "ca/root.pem", 0o600); key(t, a, "identity/x.pem", 0o400) }, "data directory", OK, "2 files with keys"},
		"root ended":         {ca(func(s *AuthorityState) { s.Root.NotAfter = noon() }), "CA interception", Fail, "the root ended"},
		"root ends":          {ca(func(s *AuthorityState) { s.Root.NotAfter = noon().AddDate(0, 3, 0) }), "CA interception", Warn, "the root ends"},
		"root begins":        {ca(func(s *AuthorityState) { s.Root.NotBefore = noon().Add(time.Second) }), "CA interception", Fail, "begins"},
		"issuer ended":       {ca(func(s *AuthorityState) { s.Issuer = &x509.Certificate{NotAfter: noon().Add(-time.Second)} }), "CA interception", Fail, "the issuer ended"},
		"issuer ends":        {ca(func(s *AuthorityState) { s.Issuer = &x509.Certificate{NotAfter: noon().Add(time.Hour)} }), "CA interception", Warn, "the issuer ends"},
		"rotation":           {ca(func(s *AuthorityState) { s.Phase = "overlap" }), "CA interception", Warn, "under way (overlap)"},
		"rotation by itself": {ca(func(s *AuthorityState) { s.Phase, s.SwitchAt = "overlap", noon() }), "CA interception", OK, "switches at"},
		"concern":            {ca(func(s *AuthorityState) { s.Concerns = []string{"sign an issuer"} }), "CA interception", Warn, "sign an issuer"},
		"CA damaged": {func(t *testing.T, a *Appliance) {
			a.Authority[0].Read = func() (AuthorityState, error) { return AuthorityState{}, errors.New("cut off") }
		}, "CA interception", Fail, "cut off"},
		"store": {func(t *testing.T, a *Appliance) {
			a.Store = func(context.Context) (string, error) { return "", errors.New("connection refused") }
		}, "store", Fail, "refused"},
		"store panics": {func(t *testing.T, a *Appliance) { a.Store = func(context.Context) (string, error) { panic("driver") } }, "store", Fail, "the step itself failed: driver"},
		"policy": {func(t *testing.T, a *Appliance) {
			a.Policy = func(context.Context) (string, error) { return "", errors.New("1 of 3 tests") }
		}, "policy", Fail, "1 of 3"},
		"disk full": {func(t *testing.T, a *Appliance) {
			a.Machine.Disk = func(string) (Disk, error) { return Disk{Free: 1 << 20}, nil }
		}, "journal", Fail, "1.0 MB free"},
		"disk small": {func(t *testing.T, a *Appliance) {
			a.Machine.Disk = func(string) (Disk, error) { return Disk{Free: 1 << 30}, nil }
		}, "journal", Warn, "less than the journal may take"},
		"inodes": {func(t *testing.T, a *Appliance) {
			a.Machine.Disk = func(string) (Disk, error) { return Disk{Free: 1 << 40, AllInodes: 1 << 20, FreeInodes: 3}, nil }
		}, "journal", Fail, "3 inodes"},
		"journal full": {func(t *testing.T, a *Appliance) { key(t, a, "journal/1.seg", 0o600); a.Journal.MaxBytes = 10 }, "journal", Fail, "of 10 B used"},
		"port taken": {func(t *testing.T, a *Appliance) {
			a.Machine.Bind = func(context.Context, string) error { return syscall.EADDRINUSE }
			a.Machine.Holder = func(netip.AddrPort) (int, string) { return 9, "squid" }
		}, "port listen.proxy", Fail, "taken by process 9 (squid)"},
		"port taken, unseen": {func(t *testing.T, a *Appliance) {
			a.Machine.Bind = func(context.Context, string) error { return syscall.EADDRINUSE }
		}, "port listen.proxy", Fail, "another process"},
		"port of another": {func(t *testing.T, a *Appliance) {
			a.Machine.Bind = func(context.Context, string) error { return syscall.EADDRNOTAVAIL }
		}, "port listen.proxy", Fail, "cannot assign"},
		"port silent": {func(t *testing.T, a *Appliance) { a.runs(); a.Listen = []Listener{{"listen.proxy", "127.0.0.1:1"}} }, "port listen.proxy", Fail, "does not answer"},
		"no resolver": {func(t *testing.T, a *Appliance) { a.Machine.Nameservers = func() []string { return nil } }, "resolver", Fail, "no resolver is set"},
		"resolver down": {func(t *testing.T, a *Appliance) {
			a.Machine.Query = func(context.Context, string) error { return &net.DNSError{IsTimeout: true} }
		}, "resolver", Fail, "192.0.2.53 does not answer"},
		"resolver says no": {func(t *testing.T, a *Appliance) {
			a.Machine.Query = func(context.Context, string) error { return &net.DNSError{Err: "server misbehaving"} }
		}, "resolver", Warn, "does not resolve the root"},
		"one resolver down": {func(t *testing.T, a *Appliance) {
			a.Machine.Nameservers = func() []string { return []string{"192.0.2.53", "192.0.2.54"} }
			a.Machine.Query = func(_ context.Context, s string) error {
				if s == "192.0.2.53" {
					return &net.DNSError{IsTimeout: true}
				}
				return nil
			}
		}, "resolver", Warn, "192.0.2.53 does not answer"},
		"parent":     {func(t *testing.T, a *Appliance) { a.Parent = "up.example.test:3128"; a.Machine.Nameservers = nil }, "resolver", OK, "up.example.test"},
		"1970":       {func(t *testing.T, a *Appliance) { a.Now = func() time.Time { return time.Unix(1, 0) } }, "clock", Fail, "1970"},
		"not synced": {func(t *testing.T, a *Appliance) { a.Machine.NTP = func() (NTP, error) { return NTP{}, nil } }, "clock", Warn, "nothing keeps it"},
		"clock vague": {func(t *testing.T, a *Appliance) {
			a.Machine.NTP = func() (NTP, error) { return NTP{true, 3 * time.Second}, nil }
		}, "clock", Warn, "3s off"},
		"few descriptors": {func(t *testing.T, a *Appliance) { a.runs(); a.Connections = 100000 }, "descriptors", Warn, "needs 200256"},
		"enough":          {func(t *testing.T, a *Appliance) { a.runs() }, "descriptors", OK, "131072"},
		"small port range": {func(t *testing.T, a *Appliance) {
			a.Machine.Sysctl = func(string) (string, error) { return "32768 60999", nil }
		}, "kernel", Warn, "ip_local_port_range"},
		"strange sysctl": {func(t *testing.T, a *Appliance) { a.Machine.Sysctl = func(string) (string, error) { return "x", nil } }, "kernel", Warn, "is x"},
		"confined":       {func(t *testing.T, a *Appliance) { a.runs() }, "hardening", OK, "exitgate.service confines it"},
		"root": {func(t *testing.T, a *Appliance) {
			a.runs()
			a.Machine.Process = func(int) (Process, error) { return Process{Unit: "x.service", Files: 1 << 20, Capabilities: 1}, nil }
		}, "hardening", Warn, "it runs as root"},
		"by hand": {func(t *testing.T, a *Appliance) {
			a.runs()
			a.Machine.Process = func(int) (Process, error) { return Process{UID: 5, Files: 1 << 20}, nil }
		}, "hardening", Warn, "is not run by systemd"},
		"transparent rights": {func(t *testing.T, a *Appliance) {
			a.runs()
			a.Machine.Process = func(int) (Process, error) {
				return Process{Unit: "x.service", UID: 5, NoNewPrivs: true, Seccomp: true, Files: 1 << 20, Capabilities: 1 << 13}, nil
			}
		}, "hardening", OK, "confines it"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			a := newBench(t)
			tc.spoil(t, a)
			list := a.Check(t.Context())
			for _, c := range list {
				if c.Name == tc.check && c.State == tc.state && strings.Contains(c.Seen, tc.seen) {
					if (c.State == Fail) != Failed(list) {
						t.Errorf("%+v: failed is %t", c, Failed(list))
					}
					if c.State != OK && c.Do == "" {
						t.Errorf("%+v says nothing to do", c)
					}
					return
				}
			}
			t.Errorf("no check %s %s %q in\n%+v", tc.check, tc.state, tc.seen, list)
		})
	}
}

func TestUnitOf(t *testing.T) {
	for in, want := range map[string]string{
		"0::/system.slice/exitgate.service\n": "exitgate.service", "0::/user.slice/user-1000.slice/user@1000.service\n": "", "0::/\n": "", "": "",
		"1:name=systemd:/x\n0::/system.slice/a.service\n": "a.service",
	} {
		if got := unitOf(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

// TestMachineHere: what is read of this machine can be read.
func TestMachineHere(t *testing.T) {
	m := Machine{}.complete()
	if p, err := m.Process(0); err != nil || p.Files == 0 {
		t.Errorf("%+v %v", p, err)
	}
	if d, err := m.Disk(t.TempDir()); err != nil || d.Size == 0 || d.Free > d.Size {
		t.Errorf("%+v %v", d, err)
	}
	if _, err := m.NTP(); err != nil {
		t.Error(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := m.Bind(t.Context(), l.Addr().String()); !inUse(err) {
		t.Error(err)
	}
	if pid, program := m.Holder(netip.MustParseAddrPort(l.Addr().String())); pid != os.Getpid() || program == "" {
		t.Errorf("%d %q, we are %d", pid, program, os.Getpid())
	}
}
