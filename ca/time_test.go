package ca

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
)

func TestLeafIsReplacedAtHalfLife(t *testing.T) {
	c, o := newClock(), testOptions(t)
	o.Now = c.now
	i := mustOpen(t, o)
	first := mustLeaf(t, i, "www.example.com")
	c.forward(10*time.Hour - time.Second)
	if mustLeaf(t, i, "www.example.com") != first {
		t.Error("replaced before half of its life")
	}
	c.forward(time.Second)
	second := mustLeaf(t, i, "www.example.com")
	if second == first {
		t.Error("not replaced at half of its life")
	}
	if first.SerialNumber.Cmp(second.SerialNumber) == 0 {
		t.Error("one serial twice")
	}
	if s := i.Stats(); s != (Stats{Minted: 2, Hits: 1, Entries: 1}) {
		t.Errorf("%+v", s)
	}
}

// TestClock moves the clock by each step, and asks for a leaf that hosts with that clock accept.
func TestClock(t *testing.T) {
	for _, c := range []struct {
		name string
		by   time.Duration
		new  bool // the issuer is another
	}{
		{"an hour", time.Hour, false},
		{"until the issuer is nearly due", 20*day - 2*time.Hour, false},
		{"until the issuer is due", 20 * day, true},
		{"past the issuer's end", 31 * day, true},
		{"years", 5 * 365 * day, true},
		{"until the root nearly ends", 3652*day - time.Hour, true},
		{"back by less than the backdating", -50 * time.Minute, false},
		{"back by more", -2 * time.Hour, true},
		{"back by a time zone", -14 * time.Hour, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			clk, o := newClock(), testOptions(t)
			o.Now = clk.now
			i := mustOpen(t, o)
			before, print := i.current.Load(), i.Fingerprint()
			mustLeaf(t, i, "www.example.com")
			clk.forward(c.by)
			leaf := mustLeaf(t, i, "www.example.com")
			if err := verify(t, i, leaf, "www.example.com"); err != nil {
				t.Error(err)
			}
			if (i.current.Load() != before) != c.new || i.Fingerprint() != print {
				t.Errorf("issuer changed: %v", !c.new)
			}
			issuer := i.current.Load().cert
			if leaf.NotAfter.After(issuer.NotAfter) || leaf.NotBefore.Before(issuer.NotBefore) || issuer.NotAfter.After(i.root().cert.NotAfter) {
				t.Error("a certificate is valid beyond the one that signed it")
			}
			if again := mustOpen(t, o); !again.current.Load().cert.Equal(issuer) {
				t.Error("the issuer in the folder is another")
			}
			clk.forward(-c.by)
			if err := verify(t, i, mustLeaf(t, i, "www.example.com"), "www.example.com"); err != nil {
				t.Errorf("and back: %v", err)
			}
		})
	}
}

// TestClockOutsideRoot: there is no leaf that a host would accept, and it is not the host's fault.
func TestClockOutsideRoot(t *testing.T) {
	for by, want := range map[time.Duration]string{3653 * day: "ended", -25 * time.Hour: "set the clock"} {
		clk, o := newClock(), testOptions(t)
		o.Now = clk.now
		i := mustOpen(t, o)
		clk.forward(by)
		_, err := i.Leaf(context.Background(), "www.example.com")
		var r *exitgate.Refusal
		if err == nil || errors.As(err, &r) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", by, err)
		}
		refused(t, o, want, rootFile)
	}
}

func TestFirstStartWithoutClock(t *testing.T) {
	o := testOptions(t)
	o.Now = func() time.Time { return time.Unix(0, 0) }
	if err := os.Mkdir(o.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	refused(t, o, "1970-01-01", "clock")
}

// TestRenewalFails: the issuer that is there goes on, and the next try is a minute away.
func TestRenewalFails(t *testing.T) {
	var log bytes.Buffer
	clk, o := newClock(), testOptions(t)
	o.Now, o.Logger = clk.now, slog.New(slog.NewTextHandler(&log, nil))
	i := mustOpen(t, o)
	good := files(t, o.Dir)[issuerFile]
	before := i.current.Load()
	put(t, o, issuerFile, []byte("damaged"))
	clk.forward(21 * day)
	log.Reset()
	for _, name := range []string{"a.example", "b.example", "c.example"} {
		mustLeaf(t, i, name)
	}
	if i.current.Load() != before || strings.Count(log.String(), "could not be renewed") != 1 {
		t.Errorf("want the old issuer and one line:\n%s", &log)
	}
	put(t, o, issuerFile, good)
	clk.forward(retryRenewal)
	mustLeaf(t, i, "d.example")
	if i.current.Load() == before {
		t.Error("not renewed once it could be")
	}
	put(t, o, issuerFile, []byte("damaged"))
	clk.forward(31 * day)
	if _, err := i.Leaf(context.Background(), "www.example.com"); err == nil || !strings.Contains(err.Error(), issuerFile) {
		t.Errorf("a leaf of an issuer that ended: %v", err)
	}
}

// TestRenewalIsShared: two gateways on one folder end up with one issuer.
func TestRenewalIsShared(t *testing.T) {
	clk, o := newClock(), testOptions(t)
	o.Now = clk.now
	a, b := mustOpen(t, o), mustOpen(t, o)
	clk.forward(21 * day)
	mustLeaf(t, a, "www.example.com")
	mustLeaf(t, b, "www.example.com")
	if a.current.Load().id != b.current.Load().id {
		t.Error("each made its own issuer")
	}
}

// TestRenewalKeepsList: what was excluded while the gateway ran is excluded by the next issuer too.
func TestRenewalKeepsList(t *testing.T) {
	clk, o := newClock(), testOptions(t)
	o.Now = clk.now
	i := mustOpen(t, o)
	if err := i.SetNeverIntercept([]string{"bank.example"}); err != nil {
		t.Fatal(err)
	}
	before := i.current.Load()
	clk.forward(21 * day)
	mustLeaf(t, i, "www.example.com")
	if i.current.Load() == before || !slices.Equal(i.NeverIntercept(), []string{"bank.example"}) {
		t.Errorf("the next issuer excludes %v", i.NeverIntercept())
	}
}

func TestSetNeverIntercept(t *testing.T) {
	o := testOptions(t, "bank.example")
	i := mustOpen(t, o)
	first := i.current.Load()
	mustLeaf(t, i, "www.example.com")
	for _, same := range [][]string{{"bank.example"}, {"BANK.example", "bank.example"}, {"bank.example", "login.bank.example"}} {
		if err := i.SetNeverIntercept(same); err != nil || i.current.Load() != first {
			t.Errorf("%v: a new issuer for the same domains (%v)", same, err)
		}
	}
	if err := i.SetNeverIntercept([]string{"*.example"}); err == nil || i.current.Load() != first {
		t.Errorf("a bad list was taken: %v", err)
	}
	if err := i.SetNeverIntercept([]string{"example.com"}); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Leaf(context.Background(), "www.example.com"); err == nil {
		t.Error("a leaf from memory for a name that is now never intercepted")
	}
	if err := verify(t, i, mustLeaf(t, i, "bank.example"), "bank.example"); err != nil {
		t.Error(err)
	}
	o.NeverIntercept = []string{"example.com"}
	if again := mustOpen(t, o); again.current.Load().id != i.current.Load().id {
		t.Error("the start made another issuer for the same list")
	}
	o.NeverIntercept = nil
	if c := mustOpen(t, o).current.Load().cert; len(c.ExcludedDNSDomains) != 0 || c.PermittedDNSDomainsCritical {
		t.Error("an issuer without a list has name constraints")
	}
}
