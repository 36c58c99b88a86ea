package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smallstep/certificates/cas/softcas"
	"go.step.sm/crypto/keyutil"
)

// TestShape holds what is in the three certificates of a chain.
func TestShape(t *testing.T) {
	i := mustOpen(t, testOptions(t, "bank.example"))
	chain, err := i.Leaf(context.Background(), "www.example.com")
	if err != nil {
		t.Fatal(err)
	}
	root, issuer, leaf := i.root().cert, i.current.Load().cert, chain.Leaf
	if len(chain.Certificate) != 2 || string(chain.Certificate[1]) != string(issuer.Raw) {
		t.Error("the chain is not the leaf and its issuer")
	}
	for _, c := range []*x509.Certificate{root, issuer, leaf} {
		if k, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
			t.Errorf("%s: not a P-256 key", c.Subject)
		}
		if bits := c.SerialNumber.BitLen(); c.SerialNumber.Sign() <= 0 || bits < 64 || bits > 159 {
			t.Errorf("%s: serial of %d bits", c.Subject, bits)
		}
		if len(c.SubjectKeyId) == 0 || !c.BasicConstraintsValid {
			t.Errorf("%s: no key identifier, or no basic constraints", c.Subject)
		}
	}
	if keyutil.Equal(root.PublicKey, leaf.PublicKey) || keyutil.Equal(issuer.PublicKey, leaf.PublicKey) || keyutil.Equal(root.PublicKey, issuer.PublicKey) {
		t.Error("one key for two uses")
	}
	if !root.IsCA || root.MaxPathLen != 2 || !issuer.IsCA || !issuer.MaxPathLenZero || leaf.IsCA {
		t.Error("path lengths")
	}
	if servers := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}; !slices.Equal(issuer.ExtKeyUsage, servers) || !slices.Equal(leaf.ExtKeyUsage, servers) {
		t.Error("not for servers only")
	}
	if leaf.KeyUsage != x509.KeyUsageDigitalSignature || issuer.KeyUsage&x509.KeyUsageDigitalSignature != 0 {
		t.Error("key usage")
	}
	if !slices.Equal(issuer.ExcludedDNSDomains, []string{"bank.example"}) || !issuer.PermittedDNSDomainsCritical {
		t.Error("name constraints")
	}
	if string(leaf.AuthorityKeyId) != string(issuer.SubjectKeyId) || string(issuer.AuthorityKeyId) != string(root.SubjectKeyId) {
		t.Error("key identifiers do not chain")
	}
	if root.Subject.String() == mustOpen(t, testOptions(t)).root().cert.Subject.String() {
		t.Error("two roots with one subject")
	}
}

// TestLongName: a name that a common name cannot hold leaves the subject empty, and then the alternative name is
// critical (RFC 5280, section 4.1.2.6).
func TestLongName(t *testing.T) {
	i := mustOpen(t, testOptions(t))
	for _, n := range []int{64, 65} {
		name := strings.Repeat("a.", n/2-2) + strings.Repeat("b", n%2) + "test"
		leaf := mustLeaf(t, i, name)
		if (leaf.Subject.CommonName == name) != (n == 64) || (len(leaf.Subject.Names) == 0) != (n == 65) {
			t.Errorf("%d characters: subject %q", len(name), leaf.Subject)
		}
		for _, e := range leaf.Extensions {
			if e.Id.String() == "2.5.29.17" && e.Critical != (n == 65) {
				t.Errorf("%d characters: alternative name critical is %v", len(name), e.Critical)
			}
		}
	}
}

func TestFingerprint(t *testing.T) {
	i := mustOpen(t, testOptions(t))
	out, err := exec.Command(need(t, "openssl", "openssl"), "x509", "-in", i.RootFile(), "-noout", "-fingerprint", "-sha256").Output()
	_, want, _ := strings.Cut(strings.TrimSpace(string(out)), "=")
	if want = strings.ToLower(strings.ReplaceAll(want, ":", "")); err != nil || i.Fingerprint() != want {
		t.Errorf("%s, openssl says %s (%v)", i.Fingerprint(), want, err)
	}
}

func TestIsOwn(t *testing.T) {
	o := testOptions(t)
	i, other := mustOpen(t, o), mustOpen(t, testOptions(t))
	old, oldLeaf := i.current.Load().cert, mustLeaf(t, i, "www.example.com")
	if err := i.SetNeverIntercept([]string{"bank.example"}); err != nil {
		t.Fatal(err)
	}
	crossed, err := other.newPair("root", day, time.Now(), rootOf(other), func(*x509.Certificate) {})
	if err != nil {
		t.Fatal(err)
	}
	fake := *i.root().cert // another's key under our name
	fake.PublicKey = crossed.cert.PublicKey
	fake.RawSubject, fake.Signature = i.root().cert.RawSubject, crossed.cert.Signature
	for name, c := range map[string]struct {
		cert *x509.Certificate
		want bool
	}{
		"root": {i.root().cert, true}, "issuer": {i.current.Load().cert, true}, "issuer of before": {old, true}, "leaf": {mustLeaf(t, i, "a.example"), true},
		"another root": {other.root().cert, false}, "another issuer": {other.current.Load().cert, false}, "another leaf": {mustLeaf(t, other, "a.example"), false},
		"another below": {crossed.cert, false}, "our name, another key": {&fake, false},
		// its chain holds the issuer of before, which is found
		"leaf of the issuer of before": {oldLeaf, false},
	} {
		if i.IsOwn(c.cert) != c.want {
			t.Errorf("%s: %v", name, !c.want)
		}
	}
}

// TestConstraintsAgree draws lists and names, and holds our refusal against what a verifier says about a leaf
// that is forced.
func TestConstraintsAgree(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	labels := []string{"a", "b", "ab", "bank", "notbank", "example", "test", "x-1", "xn--bcher-kva"}
	draw := func(most int) string {
		parts := make([]string, 1+r.IntN(most))
		for n := range parts {
			parts[n] = labels[r.IntN(len(labels))]
		}
		return strings.Join(parts, ".")
	}
	i := mustOpen(t, testOptions(t))
	covered := 0
	for range 40 {
		list := make([]string, 1+r.IntN(5))
		for n := range list {
			list[n] = draw(3)
		}
		if err := i.SetNeverIntercept(list); err != nil {
			t.Fatal(err)
		}
		g := i.current.Load()
		for range 15 {
			name := draw(4)
			c, err := g.sign(name, nil, time.Now(), i.lifetimes)
			if err != nil {
				t.Fatal(err)
			}
			refused := g.bars.never.covers(name) != ""
			if verdict := verify(t, i, c.Leaf, name); (verdict != nil) != refused {
				t.Fatalf("list %v, name %s: refused %v, verifier says %v", list, name, refused, verdict)
			}
			if refused {
				covered++
			}
		}
	}
	if covered < 20 || covered > 580 {
		t.Errorf("%d of 600 names were covered: the draw is one-sided", covered)
	}
}

func TestLeafConcurrently(t *testing.T) {
	i := mustOpen(t, testOptions(t))
	const workers, names = 32, 20
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for n := range names {
				name := fmt.Sprintf("n%d.example", (w+n)%names)
				if c, err := i.Leaf(context.Background(), name); err != nil || c.Leaf.DNSNames[0] != name {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	wg.Go(func() {
		for n := range 5 {
			if err := i.SetNeverIntercept([]string{fmt.Sprintf("bank%d.example", n)}); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	if s := i.Stats(); s.Entries != names || s.Minted < names || s.Minted > 6*names || s.Renewals != 5 {
		t.Errorf("%+v", s)
	}
}

// A slowKey signs once it is told to.
type slowKey struct {
	crypto.Signer
	asked, sign chan struct{}
}

func (k slowKey) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	k.asked <- struct{}{}
	<-k.sign
	return k.Signer.Sign(r, digest, o)
}

// TestLeafSignedOnce: many wait for one signature, and the one who began it goes away.
func TestLeafSignedOnce(t *testing.T) {
	o := testOptions(t)
	synctest.Test(t, func(t *testing.T) {
		o.Now = newClock().now
		i := mustOpen(t, o)
		g := *i.current.Load()
		key := slowKey{g.key, make(chan struct{}, 99), make(chan struct{})}
		g.cas = &softcas.SoftCAS{CertificateChain: []*x509.Certificate{g.cert}, Signer: key}
		i.current.Store(&g)
		ctx, cancel := context.WithCancel(context.Background())
		got := make(chan error, 11)
		ask := func(ctx context.Context) { _, err := i.Leaf(ctx, "www.example.com"); got <- err }
		go ask(ctx)
		<-key.asked
		for range 10 {
			go ask(context.Background())
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(key.sign)
		for range 11 {
			if err := <-got; err != nil {
				t.Error(err)
			}
		}
		if n := i.Stats().Minted; n != 1 || len(key.asked) != 0 {
			t.Errorf("signed %d times", n)
		}
		if _, err := i.Leaf(ctx, "www.example.com"); err != nil {
			t.Errorf("from memory, for one who is gone: %v", err)
		}
		if _, err := i.Leaf(ctx, "other.example.com"); err == nil || i.Stats().Minted != 1 {
			t.Errorf("signed for one who is gone: %v", err)
		}
	})
}

func TestCacheIsBounded(t *testing.T) {
	i := mustOpen(t, testOptions(t))
	i.leaves = newCache(3)
	for _, name := range []string{"a.test", "b.test", "c.test", "a.test", "d.test", "a.test", "b.test"} { // b was dropped for d
		mustLeaf(t, i, name)
	}
	if s := i.Stats(); s != (Stats{Minted: 5, Hits: 2, Entries: 3}) || len(i.leaves.byName) != 3 {
		t.Errorf("%+v", s)
	}
}

func TestAddressIsOne(t *testing.T) {
	i := mustOpen(t, testOptions(t))
	mustLeaf(t, i, "192.0.2.7")
	for _, name := range []string{"2001:DB8::0001", "2001:db8::1", "2001:db8:0:0::1"} {
		if ip := mustLeaf(t, i, name).IPAddresses; len(ip) != 1 || !ip[0].Equal(net.ParseIP("2001:db8::1")) {
			t.Errorf("%s: %v", name, ip)
		}
	}
	if ip := mustLeaf(t, i, "::ffff:192.0.2.7").IPAddresses[0]; len(ip) != net.IPv4len {
		t.Errorf("a mapped address has %d bytes", len(ip))
	}
	if n := i.Stats().Minted; n != 2 {
		t.Errorf("%d leaves for two addresses", n)
	}
}

// FuzzLeafName: a name is refused, or it has a leaf that is valid for it.
func FuzzLeafName(f *testing.F) {
	for _, s := range []string{"www.example.com", "192.0.2.7", "2001:db8::1", "a..b", "*.example", "bank.example", "a\x00b", "1.2.3", "::ffff:1.2.3.4", "fe80::1%eth0"} {
		f.Add(s)
	}
	i, err := Open(Options{Dir: f.TempDir() + "/ca", NeverIntercept: []string{"bank.example"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name string) {
		c, err := i.Leaf(context.Background(), name)
		if err != nil {
			return
		}
		if strings.HasSuffix(strings.ToLower("."+name), ".bank.example") {
			t.Errorf("%q has a leaf", name)
		}
		if err := verify(t, i, c.Leaf, name); err != nil {
			t.Error(err)
		}
	})
}

// FuzzParsePair: bytes are refused, or they hold a key and its certificate.
func FuzzParsePair(f *testing.F) {
	i, err := Open(Options{Dir: f.TempDir() + "/ca"})
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range []string{rootFile, rootCertFile} {
		b, err := i.folder.read(name, false)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parsePair(b, nil); err == nil && keyutil.VerifyPair(p.cert.PublicKey, p.key) != nil {
			t.Error("a key that is not its certificate's")
		}
	})
}

func BenchmarkLeafCold(b *testing.B) {
	i := mustOpen(b, Options{Dir: b.TempDir() + "/ca", NeverIntercept: []string{"bank.example"}})
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if _, err := i.Leaf(context.Background(), fmt.Sprintf("n%d.example", n)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLeafCached(b *testing.B) {
	i := mustOpen(b, Options{Dir: b.TempDir() + "/ca", NeverIntercept: []string{"bank.example"}})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := i.Leaf(context.Background(), "www.example.com"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLeafKept reports the memory that a leaf takes which is kept.
func BenchmarkLeafKept(b *testing.B) {
	i := mustOpen(b, Options{Dir: b.TempDir() + "/ca"})
	for b.Loop() {
		before := heap()
		for n := range 2000 {
			mustLeaf(b, i, fmt.Sprintf("n%d-%d.example", b.N, n))
		}
		b.ReportMetric(float64(heap()-before)/2000, "B/leaf")
		i.leaves = newCache(maxLeaves)
	}
}
