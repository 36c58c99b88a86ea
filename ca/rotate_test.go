package ca

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/exitgate/exitgate/ca/internal/keydir"
)

// accepts reports whether a client that trusts these roots alone accepts a leaf as it is sent.
func accepts(t testing.TB, i *Issuer, roots ...*x509.Certificate) bool {
	t.Helper()
	c, err := i.Leaf(context.Background(), "www.example.com")
	if err != nil {
		t.Fatal(err)
	}
	pool, sent := x509.NewCertPool(), x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	for _, der := range c.Certificate[1:] {
		if x, err := x509.ParseCertificate(der); err == nil {
			sent.AddCert(x)
		}
	}
	_, err = c.Leaf.Verify(x509.VerifyOptions{DNSName: "www.example.com", Roots: pool, Intermediates: sent, CurrentTime: i.now()})
	return err == nil
}

// looks checks what an issuer, and one that is opened on its folder anew, say of themselves.
func looks(t *testing.T, o Options, i *Issuer, phase Phase, roots ...*x509.Certificate) {
	t.Helper()
	for what, i := range map[string]*Issuer{"running": i, "opened anew": mustOpen(t, o)} {
		s := i.State()
		if s.Phase != phase || !slices.EqualFunc(s.Roots(), roots, (*x509.Certificate).Equal) || !slices.EqualFunc(i.Roots(), roots, (*x509.Certificate).Equal) {
			t.Errorf("%s: phase %s with %d roots, first %s; want %s with %d, first %s", what, s.Phase, len(s.Roots()), s.Root.Subject.CommonName,
				phase, len(roots), roots[0].Subject.CommonName)
		}
		all, err := os.ReadFile(i.RootsFile())
		if err != nil || !bytes.Equal(all, encodeCerts(roots)) || !bytes.Equal(all, i.RootsPEM()) {
			t.Errorf("%s: %s does not hold the roots (%v)", what, i.RootsFile(), err)
		}
		if one, err := os.ReadFile(i.RootFile()); err != nil || !bytes.Equal(one, keydir.EncodeCert(roots[0])) {
			t.Errorf("%s: %s does not hold the root (%v)", what, i.RootFile(), err)
		}
		if !signedBy(s.Issuer, roots[0]) || !accepts(t, i, roots[0]) {
			t.Errorf("%s: leaves do not chain to the first root", what)
		}
		for _, c := range slices.Concat(roots, s.Past, []*x509.Certificate{s.Issuer}) {
			if !i.IsOwn(c) {
				t.Errorf("%s: %s is not its own", what, c.Subject.CommonName)
			}
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRotation(t *testing.T) {
	clk, o := newClock(), testOptions(t, "bank.example")
	o.Now = clk.now
	i := mustOpen(t, o)
	old, oldIssuer := i.RootCertificate(), i.State().Issuer
	looks(t, o, i, Steady, old)

	must(t, i.Rotate(Rotation{}))
	next := i.State().Other
	looks(t, o, i, Overlap, old, next)
	if accepts(t, i, next) || !i.State().Issuer.Equal(oldIssuer) {
		t.Error("the switch happened at once")
	}
	clk.forward(400 * day)
	looks(t, o, mustOpen(t, o), Overlap, old, next) // without an end that was set, it waits

	must(t, i.Switch())
	looks(t, o, i, Leaving, next, old)
	if s := i.State(); !s.Bridged || !accepts(t, i, old) || !accepts(t, i, old, next) {
		t.Error("a host that knows the old root only is left behind")
	}
	if i.IsOwn(mustOpen(t, testOptions(t)).RootCertificate()) || !i.IsOwn(i.trust().turn.bridge) {
		t.Error("what is its own")
	}

	must(t, i.Finish())
	looks(t, o, i, Steady, next)
	if accepts(t, i, old) {
		t.Error("leaves still carry the bridge")
	}
	if s := i.State(); len(s.Past) != 1 || !s.Past[0].Equal(old) || !i.IsOwn(old) || !i.IsOwn(oldIssuer) {
		t.Error("the old root was forgotten")
	}
	if got := files(t, o.Dir); len(got) != 5 || bytes.Contains(got[rootFile], keydir.EncodeCert(old)) {
		t.Errorf("%d files are left, want root, its certificates, the issuer and those of the past", len(got))
	}
	must(t, i.Rotate(Rotation{}))
	must(t, i.Switch())
	must(t, i.Finish())
	if s := mustOpen(t, o).State(); len(s.Past) != 2 || !i.IsOwn(old) || !i.IsOwn(next) {
		t.Error("a second rotation")
	}
}

func TestRotationIsCancelled(t *testing.T) {
	o := testOptions(t)
	i := mustOpen(t, o)
	root, issuer := i.RootCertificate(), i.State().Issuer
	must(t, i.Rotate(Rotation{Overlap: time.Hour}))
	next := i.State().Other
	must(t, i.Cancel())
	looks(t, o, i, Steady, root)
	if !i.State().Issuer.Equal(issuer) || i.folder.has(nextFile) || !i.IsOwn(next) {
		t.Error("it is not as before")
	}
	must(t, i.Rotate(Rotation{}))
	if i.State().Other.Equal(next) {
		t.Error("a root that was taken back is used again")
	}
}

// TestSwitchByItself: with the first leaf after the overlap, or at the first start after it.
func TestSwitchByItself(t *testing.T) {
	clk, o := newClock(), testOptions(t)
	o.Now = clk.now
	i, idle := mustOpen(t, o), mustOpen(t, o)
	old := i.RootCertificate()
	must(t, i.Rotate(Rotation{Overlap: 2 * day}))
	next := i.State().Other
	clk.forward(2*day - time.Second)
	if accepts(t, i, next) || !accepts(t, i, old) {
		t.Error("switched before its time")
	}
	clk.forward(time.Second)
	if !accepts(t, i, next) || !accepts(t, i, old) || i.State().Phase != Leaving {
		t.Error("not switched in its time")
	}
	must(t, idle.SetNeverIntercept([]string{"bank.example"})) // another process comes by
	looks(t, o, idle, Leaving, next, old)

	o = testOptions(t)
	o.Now = clk.now
	must(t, mustOpen(t, o).Rotate(Rotation{Overlap: 2 * day}))
	clk.forward(3 * day)
	if s := mustOpen(t, o).State(); s.Phase != Leaving {
		t.Errorf("a start after the overlap is in phase %s", s.Phase)
	}
}

// TestOldRootEnds: what is left of its life is all that an overlap has.
func TestOldRootEnds(t *testing.T) {
	for _, phase := range []Phase{Overlap, Leaving} {
		clk, o := newClock(), testOptions(t)
		o.Now, o.Lifetimes = clk.now, Lifetimes{Root: 100 * day}
		i := mustOpen(t, o)
		clk.forward(50 * day)
		must(t, i.Rotate(Rotation{Overlap: 300 * day}))
		next := i.State().Other
		if phase == Leaving {
			must(t, i.Switch())
		}
		clk.forward(50*day + time.Hour)
		if !accepts(t, i, next) || i.State().Phase != Leaving {
			t.Errorf("%s: leaves of a root that has ended", phase)
		}
		if s := mustOpen(t, o).State(); s.Phase != Leaving || len(s.Concerns) != 1 || !strings.Contains(s.Concerns[0], "--finish") {
			t.Errorf("%s: phase %s, concerns %q", phase, s.Phase, s.Concerns)
		}
		must(t, i.Finish())
		looks(t, o, i, Steady, next)
	}
}

func TestStepsOutOfOrder(t *testing.T) {
	o := testOptions(t)
	i := mustOpen(t, o)
	wrong := func(what string, err error, want string) {
		t.Helper()
		var s *StateError
		if !errors.As(err, &s) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s in phase %s: %v, want a StateError with %q", what, i.State().Phase, err, want)
		}
	}
	before := files(t, o.Dir)
	wrong("switch", i.Switch(), "ca rotate")
	wrong("finish", i.Finish(), "none is under way")
	wrong("cancel", i.Cancel(), "none is under way")
	wrong("rotate", i.Rotate(Rotation{Overlap: -time.Second}), "over before it begins")
	wrong("rotate", i.Rotate(Rotation{Certificate: i.RootCertificate()}), "a key of its own")
	wrong("rotate", i.Rotate(Rotation{Certificate: i.State().Issuer}), "foreign")
	if after := files(t, o.Dir); len(after) != len(before) {
		t.Error("a step that does not fit wrote files")
	}
	must(t, i.Rotate(Rotation{}))
	wrong("rotate", i.Rotate(Rotation{}), "under way since")
	wrong("finish", i.Finish(), "--switch first")
	must(t, i.Switch())
	wrong("switch", i.Switch(), "was done at")
	wrong("cancel", i.Cancel(), "--finish")
}

// TestNoBridge: a root of before, whose path length is 1, cannot sign a bridge that clients accept.
func TestNoBridge(t *testing.T) {
	o := testOptions(t)
	i := mustOpen(t, o)
	b := foreign(t, i, nil, func(c *x509.Certificate) { c.MaxPathLen = 1 })
	o = lay(t, map[string][]byte{rootFile: b})
	i = mustOpen(t, o)
	old := i.RootCertificate()
	must(t, i.Rotate(Rotation{}))
	must(t, i.Switch())
	if i.State().Bridged || accepts(t, i, old) || !accepts(t, i, i.RootCertificate()) {
		t.Error("a bridge over a root without room for one")
	}
}

// TestRenew replaces the issuer alone.
func TestRenew(t *testing.T) {
	o := testOptions(t, "bank.example")
	i := mustOpen(t, o)
	root, before := i.RootCertificate(), i.State().Issuer
	must(t, i.Renew())
	looks(t, o, i, Steady, root)
	if s := i.State(); s.Issuer.Equal(before) || s.Issuer.SerialNumber.Cmp(before.SerialNumber) == 0 || i.Stats().Renewals != 1 {
		t.Error("the same issuer")
	}
}

// TestRotationBetweenProcesses: what one does, the other finds.
func TestRotationBetweenProcesses(t *testing.T) {
	o := testOptions(t)
	a, b := mustOpen(t, o), mustOpen(t, o)
	old := a.RootCertificate()
	must(t, a.Rotate(Rotation{}))
	must(t, b.Switch())
	must(t, a.Finish())
	if accepts(t, a, old) || !a.RootCertificate().Equal(b.RootCertificate()) || a.State().Issuer.SerialNumber.Cmp(b.State().Issuer.SerialNumber) != 0 {
		t.Error("they are of two minds")
	}
	if err := b.Rotate(Rotation{}); err != nil { // b still believed in a rotation
		t.Error(err)
	}
}

// TestLeafDuringRotation asks for leaves while every step happens. At each moment a host that has all roots that
// were ever published accepts what it gets.
func TestLeafDuringRotation(t *testing.T) {
	i := mustOpen(t, testOptions(t))
	done := make(chan struct{})
	var askers sync.WaitGroup
	for n := range 4 {
		askers.Go(func() {
			for k := 0; ; k++ {
				select {
				case <-done:
					return
				default:
				}
				name := fmt.Sprintf("n%d.example", (n+k)%7)
				c, err := i.Leaf(context.Background(), name)
				if err != nil {
					t.Error(err)
					return
				}
				pool, sent := x509.NewCertPool(), x509.NewCertPool()
				for _, r := range i.trust().all() {
					pool.AddCert(r)
				}
				x, _ := x509.ParseCertificate(c.Certificate[1])
				sent.AddCert(x)
				if _, err := c.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: pool, Intermediates: sent}); err != nil {
					t.Error(err)
					return
				}
				i.IsOwn(x)
				i.State()
			}
		})
	}
	for range 3 {
		must(t, i.Rotate(Rotation{}))
		must(t, i.Cancel())
		must(t, i.Rotate(Rotation{}))
		must(t, i.Renew())
		must(t, i.SetNeverIntercept([]string{fmt.Sprintf("bank%d.example", i.Stats().Renewals)}))
		must(t, i.Switch())
		must(t, i.Finish())
	}
	close(done)
	askers.Wait()
}

// steps are those that TestDiesInStep kills, each with what has to have been done before, and the phases that it may
// be found in afterwards.
var steps = map[string]struct {
	before []func(*Issuer) error
	do     func(*Issuer) error
	from   Phase
	to     Phase
}{
	"rotate": {nil, begin, Steady, Overlap},
	"cancel": {[]func(*Issuer) error{begin}, (*Issuer).Cancel, Overlap, Steady},
	"switch": {[]func(*Issuer) error{begin}, (*Issuer).Switch, Overlap, Leaving},
	"finish": {[]func(*Issuer) error{begin, (*Issuer).Switch}, (*Issuer).Finish, Leaving, Steady},
	"renew":  {nil, (*Issuer).Renew, Steady, Steady},
}

func begin(i *Issuer) error { return i.Rotate(Rotation{}) }

// TestDiesInStep kills a process before each change of a file in each step, and starts again: the step was not begun,
// or it is done, and the rotation can be completed.
func TestDiesInStep(t *testing.T) {
	if name := os.Getenv("EXITGATE_TEST_STEP"); name != "" {
		stepSlowly(t, name)
		return
	}
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found := map[Phase]int{}
			for n := 0; ; n++ {
				o := testOptions(t)
				i := mustOpen(t, o)
				for _, before := range step.before {
					must(t, before(i))
				}
				known := i.Roots()
				ended := killBefore(t, name, o.Dir, n)
				again := mustOpen(t, o)
				s := again.State()
				if s.Phase != step.from && s.Phase != step.to {
					t.Fatalf("killed before change %d: phase %s", n, s.Phase)
				}
				found[s.Phase]++
				looks(t, o, again, s.Phase, s.Roots()...)
				for _, c := range known {
					if !again.IsOwn(c) {
						t.Errorf("killed before change %d: %s was forgotten", n, c.Subject.CommonName)
					}
				}
				complete(t, again)
				if left := files(t, o.Dir); len(left) != 5 {
					t.Errorf("killed before change %d: %d files at the end", n, len(left))
				}
				if ended {
					break
				}
			}
			if found[step.to] == 0 || found[step.from] == 0 {
				t.Errorf("found phases %v", found)
			}
			t.Logf("found %v", found)
		})
	}
}

// complete goes from whatever phase to a finished rotation.
func complete(t *testing.T, i *Issuer) {
	t.Helper()
	switch i.State().Phase {
	case Steady:
		must(t, begin(i))
		fallthrough
	case Overlap:
		must(t, i.Switch())
		fallthrough
	case Leaving:
		must(t, i.Finish())
	}
}

// killBefore starts a process that does the step, and kills it before the change of a file of that number. It reports
// whether the process ended before.
func killBefore(t *testing.T, name, dir string, n int) bool {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestDiesInStep$")
	cmd.Env = append(os.Environ(), "EXITGATE_TEST_STEP="+name, "EXITGATE_TEST_DIR="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewReader(out)
	for range n {
		if line, err := lines.ReadString('\n'); err != nil || !strings.HasPrefix(line, "change ") {
			must(t, cmd.Wait())
			return true
		}
		io.WriteString(in, "\n")
	}
	line, err := lines.ReadString('\n')
	ended := err != nil || !strings.HasPrefix(line, "change ")
	if !ended {
		cmd.Process.Kill()
	}
	cmd.Wait()
	return ended
}

// stepSlowly does a step, and asks before each change of a file.
func stepSlowly(t *testing.T, name string) {
	i := mustOpen(t, Options{Dir: os.Getenv("EXITGATE_TEST_DIR")})
	answers := bufio.NewReader(os.Stdin)
	i.folder.step = func(file string) {
		fmt.Println("change", file)
		answers.ReadString('\n')
	}
	must(t, steps[name].do(i))
}

// TestClientsDuringRotation asks real clients that have only one of the roots, or both, in each phase.
func TestClientsDuringRotation(t *testing.T) {
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			i := s.issuer
			old := i.RootCertificate()
			must(t, i.Rotate(Rotation{}))
			next := i.State().Other
			has := map[string]string{
				"old": write(t, "old.crt", string(keydir.EncodeCert(old))), "new": write(t, "new.crt", string(keydir.EncodeCert(next))),
			}
			check := func(phase Phase, trusts string, want bool) {
				t.Helper()
				s.trusted = has[trusts]
				if out, err := c.open(t, s)("www.example.com"); (err == nil) != want {
					t.Errorf("%s, trusts %s: accepted %v\n%s", phase, trusts, err == nil, out)
				}
			}
			check(Overlap, "old", true)
			check(Overlap, "new", false)
			must(t, i.Switch())
			check(Leaving, "old", true)
			check(Leaving, "new", true)
			must(t, i.Finish())
			check(Steady, "new", true)
			check(Steady, "old", false)
		})
	}
}
