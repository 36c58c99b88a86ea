package doctor

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"sync"
	"time"
)

// An Appliance is a gateway whose machine is looked at. Everything but the checks that ask the running gateway works from
// files, whether it runs or not. A field that is zero leaves its check out.
type Appliance struct {
	Config    func() (string, error) // reads the configuration, and says which it is
	Data      string                 // the data directory
	Authority []Authority            // the certificate authorities
	Store     func(ctx context.Context) (string, error)
	Journal   Journal
	Policy    func(ctx context.Context) (string, error) // loads the policy, runs its tests
	Listen    []Listener
	// Connections is limits.connections.
	Connections int
	Parent      string // the parent proxy; then the gateway looks no names up itself
	// Status asks the gateway through its admin socket; the error says that it does not run, or what is wrong with it.
	Status func(ctx context.Context) (Running, error)
	Now    func() time.Time

	Machine Machine
}

// An Authority is one certificate authority of the gateway.
type Authority struct {
	Name string // interception, identity
	Read func() (AuthorityState, error)
}

// An AuthorityState is how an authority stands. A certificate that is not there is nil.
type AuthorityState struct {
	Root, Issuer *x509.Certificate
	Phase        string // of a rotation: steady, overlap, leaving
	SwitchAt     time.Time
	Concerns     []string // what a person has to see to
}

// A Journal is where flows are spooled.
type Journal struct {
	Dir      string
	MaxBytes int64
}

// A Listener is an address that the configuration has the gateway listen on.
type Listener struct{ Key, Addr string }

// Running is what a gateway that runs says of itself.
type Running struct {
	PID     int
	Version string
	Text    string   // one line
	Wrong   []string // of its own checks
	Config  string   // file that it was started with; "" none
}

// A Check is one thing that was looked at.
type Check struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	Seen  string `json:"seen"`
	Do    string `json:"do,omitempty"`
}

// A State says how a check went.
type State string

// The states.
const (
	OK   State = "ok"
	Warn State = "warn" // works, and will not for ever, or not at full load
	Fail State = "fail" // does not work, or gives secrets away
)

// Failed reports whether one of the checks did.
func Failed(list []Check) bool {
	for _, c := range list {
		if c.State == Fail {
			return true
		}
	}
	return false
}

// policyTime bounds the policy's own tests, which a site may have many of.
const policyTime = 30 * time.Second

// Check looks at everything, several things at a time, and returns the checks in the order in which they are listed here.
func (a Appliance) Check(ctx context.Context) []Check {
	a = a.complete()
	running, err := within(ctx, stepTime, a.Status)
	up := running.PID > 0
	steps := []struct {
		name  string
		limit time.Duration
		check func(context.Context) []Check
	}{
		{"gateway", stepTime, func(context.Context) []Check { return gatewayCheck(running, err) }},
		{"configuration", stepTime, a.config},
		{"data directory", stepTime, a.data},
		{"certificates", stepTime, a.authorities},
		{"store", 2 * stepTime, a.store},
		{"journal", stepTime, a.journal},
		{"policy", policyTime, a.policy},
		{"ports", stepTime, func(ctx context.Context) []Check { return a.ports(ctx, running) }},
		{"resolver", stepTime, a.resolver},
		{"clock", stepTime, a.clock},
		{"descriptors", stepTime, func(context.Context) []Check { return a.descriptors(running, up) }},
		{"kernel", stepTime, func(context.Context) []Check { return a.kernel() }},
		{"hardening", stepTime, func(context.Context) []Check { return a.hardening(running, up) }},
	}
	found := make([][]Check, len(steps))
	var wg sync.WaitGroup
	for i, s := range steps {
		wg.Go(func() {
			list, err := within(ctx, s.limit, func(ctx context.Context) ([]Check, error) { return s.check(ctx), nil })
			if err != nil {
				list = []Check{{s.name, Fail, err.Error(), "try again; if it stays so, something on this machine hangs: dmesg, and the disks"}}
			}
			found[i] = list
		})
	}
	wg.Wait()
	var all []Check
	for _, list := range found {
		all = append(all, list...)
	}
	return all
}

func (a Appliance) complete() Appliance {
	if a.Now == nil {
		a.Now = time.Now
	}
	if a.Status == nil {
		a.Status = func(context.Context) (Running, error) { return Running{}, fmt.Errorf("it was not asked") }
	}
	a.Machine = a.Machine.complete()
	return a
}

func one(name string, s State, do, seen string, args ...any) []Check {
	return []Check{{Name: name, State: s, Seen: fmt.Sprintf(seen, args...), Do: do}}
}

func gatewayCheck(r Running, err error) []Check {
	const name = "gateway"
	switch {
	case err != nil && r.PID == 0:
		return one(name, Warn, "start it: systemctl start exitgate, or exitgate run; what follows is from files and from this machine only", "%s", err)
	case err != nil:
		return one(name, Fail, "look at its log", "%s", err)
	}
	list := one(name, OK, "", "%s", r.Text)
	for _, w := range r.Wrong {
		list = append(list, one(name, Fail, "exitgate status says more", "%s", w)...)
	}
	return list
}

func (a Appliance) config(context.Context) []Check {
	const name = "configuration"
	if a.Config == nil {
		return nil
	}
	seen, err := a.Config()
	if err != nil {
		return one(name, Fail, "correct it; exitgate config print explains every key. What it should say (data, store, ports) was not looked at", "%s", err)
	}
	return one(name, OK, "", "%s", seen)
}

func (a Appliance) store(ctx context.Context) []Check {
	const name = "store"
	if a.Store == nil {
		return nil
	}
	seen, err := a.Store(ctx)
	if err != nil {
		return one(name, Fail, "flows wait in the journal until it answers; see that it runs and that store.url is right", "%s", err)
	}
	return one(name, OK, "", "%s", seen)
}

func (a Appliance) policy(ctx context.Context) []Check {
	const name = "policy"
	if a.Policy == nil {
		return nil
	}
	seen, err := a.Policy(ctx)
	if err != nil {
		return one(name, Fail, "exitgate policy check and exitgate policy test say more; a gateway that runs keeps the last good policy", "%s", err)
	}
	return one(name, OK, "", "%s", seen)
}

// How far ahead the end of a certificate is told.
const (
	rootAhead   = 180 * 24 * time.Hour
	issuerAhead = 7 * 24 * time.Hour // what renews issuers does it earlier
)

func (a Appliance) authorities(context.Context) (list []Check) {
	for _, ca := range a.Authority {
		s, err := ca.Read()
		if err != nil {
			list = append(list, one("CA "+ca.Name, Fail, "bring its folder back from a backup; a gateway that never ran makes it at its first start", "%s", err)...)
			continue
		}
		list = append(list, a.authority("CA "+ca.Name, s)...)
	}
	return list
}

func (a Appliance) authority(name string, s AuthorityState) (list []Check) {
	now, rotate := a.Now(), "exitgate ca rotate makes the next root, and needs weeks to reach every host"
	switch r := s.Root; {
	case r == nil:
		list = one(name, Warn, "it is made at the first start", "there is no root yet")
	case !now.Before(r.NotAfter):
		list = one(name, Fail, rotate, "the root ended at %s", stamp(r.NotAfter))
	case now.Before(r.NotBefore):
		list = one(name, Fail, "set the clock", "the root begins at %s only", stamp(r.NotBefore))
	case r.NotAfter.Sub(now) < rootAhead:
		list = one(name, Warn, rotate, "the root ends at %s", stamp(r.NotAfter))
	default:
		list = one(name, OK, "", "the root is valid until %s", stamp(r.NotAfter))
	}
	switch i := s.Issuer; {
	case i == nil:
	case !now.Before(i.NotAfter):
		list = append(list, one(name, Fail, "a start, or the next leaf, renews it where the root's key is; else: exitgate ca status", "the issuer ended at %s", stamp(i.NotAfter))...)
	case i.NotAfter.Sub(now) < issuerAhead:
		list = append(list, one(name, Warn, "it should have been renewed: exitgate ca status, and the log", "the issuer ends at %s", stamp(i.NotAfter))...)
	}
	switch {
	case s.Phase == "" || s.Phase == "steady":
	case !s.SwitchAt.IsZero():
		list = append(list, one(name, OK, "", "a rotation is under way (%s), which switches at %s", s.Phase, stamp(s.SwitchAt))...)
	default:
		list = append(list, one(name, Warn, "exitgate ca status says what is next", "a rotation is under way (%s)", s.Phase)...)
	}
	for _, c := range s.Concerns {
		list = append(list, one(name, Warn, "exitgate ca status", "%s", c)...)
	}
	return list
}

// loopbackOf is the address under which this machine reaches a listener.
func loopbackOf(ap netip.AddrPort) netip.AddrPort {
	switch {
	case !ap.Addr().IsUnspecified():
		return ap
	case ap.Addr().Is4():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), ap.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), ap.Port())
}

// ReadAuthority reads the certificates of an authority's folder (root.crt, and issuer.pem beside its key).
func ReadAuthority(dir string) (s AuthorityState, err error) {
	read := func(name string) (*x509.Certificate, error) {
		b, err := readFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		list, err := parseCertificates(b)
		if err == nil && len(list) == 0 {
			err = errors.New("there is no certificate in it")
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, name), err)
		}
		return list[0], nil
	}
	if s.Root, err = read("root.crt"); err != nil {
		return s, err
	}
	if s.Issuer, err = read("issuer.pem"); err != nil {
		return s, err
	}
	if next, err := read("next-root.crt"); err == nil && next != nil {
		s.Phase = "overlap"
	}
	return s, nil
}
