package mitm

import (
	"crypto/x509"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
)

var here = netip.MustParseAddr("192.0.2.1")

// fickle is an Identifier whose answers tests choose.
type fickle struct {
	Hosts
	host  exitgate.Host
	err   error
	asked int
}

func (f *fickle) ByAddress(netip.Addr) (exitgate.Host, error) {
	f.asked++
	return f.host, f.err
}

// An identity is asked for once in each epoch, unless the answer was no answer; a host without a class is nobody.
func TestStanding(t *testing.T) {
	f := &fickle{host: exitgate.Host{Name: "one", Class: "app"}}
	p, id, now := &Proxy{Identify: f}, &identity{addr: here}, time.Now()
	for i, step := range []struct {
		host  exitgate.Host
		err   error
		moved bool
		asked int
		want  string
	}{
		{f.host, nil, false, 1, "one"},
		{exitgate.Host{Name: "two", Class: "app"}, nil, false, 1, "one"},
		{exitgate.Host{Name: "two", Class: "app"}, nil, true, 2, "two"},
		{exitgate.Host{Name: "two", Class: "app"}, exitgate.NewRefusal(0, exitgate.RuleHost, "no"), true, 3, "two"},
		{exitgate.Host{Name: "two", Class: "app"}, exitgate.NewRefusal(0, exitgate.RuleHost, "no"), false, 3, "two"},
		{exitgate.Host{}, errors.New("the list cannot be read"), true, 4, ""},
		{exitgate.Host{}, errors.New("the list cannot be read"), false, 5, ""},
		{exitgate.Host{Name: "two", Class: "app"}, nil, false, 6, "two"},
	} {
		f.host, f.err = step.host, step.err
		if step.moved {
			f.Changed()
		}
		st := p.standing(id, now)
		if f.asked != step.asked || st.host.Name != step.want || (st.err == nil) != (step.err == nil) && step.moved {
			t.Errorf("step %d: asked %d times, %+v %v", i, f.asked, st.host, st.err)
		}
		if st.host.Class == "" || step.want == "" && st.host != nobody(here) {
			t.Errorf("step %d: %+v", i, st.host)
		}
	}
}

// A host of the list is found by its certificate as long as list and certificate agree.
func TestHostsByCertificate(t *testing.T) {
	h := &Hosts{}
	serial := byte(0)
	chain := []*x509.Certificate{{NotAfter: time.Now().Add(time.Hour)}}
	if _, err := h.ByCertificate(here, chain); err == nil {
		t.Error("a certificate is taken that nothing verifies")
	}
	bad := exitgate.NewRefusal(0, exitgate.RuleHost, "expired")
	var name string
	var class exitgate.Class
	var err error
	h.Certificate = func([]*x509.Certificate) (string, exitgate.Class, error) { return name, class, err }
	before := h.Epoch()
	if err := h.Set([]RegisteredHost{{Name: "one", Class: "app"}, {Name: "off", Class: "app", Refused: "it was disabled"}}); err != nil || h.Epoch() == before {
		t.Fatalf("set: %v, epoch %d", err, h.Epoch())
	}
	for _, c := range []struct {
		name  string
		class exitgate.Class
		err   error
		ok    bool
	}{{"one", "app", nil, true}, {"one", "app", bad, false}, {"one", "db", nil, false}, {"one", "", nil, false}, {"off", "app", nil, false}, {"", "", nil, false}, {"two", "app", nil, false}} {
		name, class, err = c.name, c.class, c.err
		serial++
		chain[0].Raw = []byte{serial}
		got, gerr := h.ByCertificate(here, chain)
		if (gerr == nil) != c.ok || c.ok && got != (exitgate.Host{Name: "one", Class: "app", Addr: here, By: exitgate.ByCertificate}) {
			t.Errorf("%+v: %+v %v", c, got, gerr)
		}
		if r := new(exitgate.Refusal); gerr != nil && (!errors.As(gerr, &r) || r.Status != 0 || r.Verdict.Rule != exitgate.RuleHost) {
			t.Errorf("%+v: %v", c, gerr)
		}
	}
}

// A certificate that was verified is not verified again for each change of the list, but when it may have ended or been
// revoked; one that was found bad is looked at anew.
func TestProven(t *testing.T) {
	now, verified, bad := time.Now(), 0, error(nil)
	h := &Hosts{Now: func() time.Time { return now }}
	h.Certificate = func([]*x509.Certificate) (string, exitgate.Class, error) {
		verified++
		return "one", "app", bad
	}
	set := func() {
		if err := h.Set([]RegisteredHost{{Name: "one", Class: "app"}}); err != nil {
			t.Fatal(err)
		}
	}
	set()
	chain := []*x509.Certificate{{Raw: []byte("leaf"), NotAfter: now.Add(2 * time.Hour)}, {Raw: []byte("issuer"), NotAfter: now.Add(time.Hour)}}
	for i, step := range []struct {
		do   func()
		want int
		good bool
	}{
		{func() {}, 1, true}, {set, 1, true}, {h.Changed, 2, true}, {func() { now = now.Add(59 * time.Minute) }, 2, true},
		{func() { now = now.Add(2 * time.Minute) }, 3, true},
		{func() { bad = exitgate.NewRefusal(0, exitgate.RuleHost, "revoked"); h.Changed() }, 4, false}, {func() {}, 5, false}, {func() { bad = nil }, 6, true},
	} {
		step.do()
		if _, err := h.ByCertificate(here, chain); verified != step.want || (err == nil) != step.good {
			t.Errorf("step %d: verified %d times, want %d; %v", i, verified, step.want, err)
		}
	}
}

// BenchmarkStanding is what each request pays for the promise that a host which was disabled is refused.
func BenchmarkStanding(b *testing.B) {
	h := &Hosts{}
	if err := h.Set([]RegisteredHost{{Name: "one", Class: "app", Addresses: []netip.Prefix{netip.PrefixFrom(here, 32)}}}); err != nil {
		b.Fatal(err)
	}
	p, id, s, now := &Proxy{Identify: h}, &identity{addr: here}, &session{}, time.Now()
	b.ReportAllocs()
	for b.Loop() {
		st := p.standing(id, now)
		s.enter(st)
		s.leave()
	}
}
