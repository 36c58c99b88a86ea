package enroll

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/exitgate/exitgate/ca/trust"
)

// A Host is the machine that enrols. Only Trust is needed, and may be zero: this machine.
type Host struct {
	Trust trust.Host
	// Program is where exitgate is, for the timer. A path below Trust.Root. Empty: /usr/local/bin/exitgate.
	Program string
	// Addresses of the host, for the gateway to know it by in transparent mode and as a plain proxy. Empty: those of
	// the interface that leads to the gateway.
	Addresses []string
	Now       func() time.Time // nil: time.Now
}

// An Invitation is what an administrator gives to a host.
type Invitation struct {
	Gateway     string // https://gate.example.com:3130
	Fingerprint string // SHA-256 of the gateway's identity root
	Token       string // of "exitgate host token"; not needed when the host is enrolled already
	Name        string // of the host; empty: its own
	DryRun      bool   // check, and say what would be done; the token stays good
}

// A State is what a host knows about its enrolment, for all to read: /etc/exitgate/host.json.
type State struct {
	Gateway     string      `json:"gateway"`
	Fingerprint string      `json:"fingerprint"`
	Name        string      `json:"name"`
	Class       string      `json:"class"`
	Mode        string      `json:"mode"` // proxy or transparent
	Proxy       trust.Proxy `json:"proxy,omitzero"`
	CA          string      `json:"ca_url"`
}

// A Report says what was done.
type Report struct {
	State
	NotAfter time.Time      `json:"not_after"` // of the identity
	Renewed  bool           `json:"renewed"`   // the identity is a new one
	Changes  []trust.Change `json:"changes"`
	Notes    []string       `json:"notes,omitempty"` // for people
}

func (h *Host) now() time.Time {
	if h.Now != nil {
		return h.Now()
	}
	return time.Now()
}

func (h *Host) user() bool { return h.Trust.Home != "" }

func (h *Host) configPath() string {
	if h.user() {
		return path.Join(h.Trust.Home, ".config/exitgate/host.json")
	}
	return "/etc/exitgate/host.json"
}

func (h *Host) statePath(name string) string {
	switch {
	case h.Trust.State != "":
		return path.Join(h.Trust.State, name)
	case h.user():
		return path.Join(h.Trust.Home, ".local/state/exitgate-host", name)
	}
	return path.Join("/var/lib/exitgate-host", name)
}

func (h *Host) program() string {
	if h.Program != "" {
		return h.Program
	}
	return "/usr/local/bin/exitgate"
}

func (h *Host) readFile(p string) ([]byte, error) {
	return os.ReadFile(filepath.Join(h.Trust.Root, filepath.FromSlash(p)))
}

// ErrNotEnrolled is returned for a host that has no state.
var ErrNotEnrolled = errors.New("this host is not enrolled: exitgate enroll does that")

// ReadState returns what the host knows about its enrolment; ErrNotEnrolled when there is none.
func (h *Host) ReadState() (State, error) {
	var s State
	b, err := h.readFile(h.configPath())
	if errors.Is(err, os.ErrNotExist) {
		return s, ErrNotEnrolled
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("%s is damaged: %w", h.configPath(), err)
	}
	return s, nil
}

// readIdentity returns the identity roots and the identity of an enrolled host.
func (h *Host) readIdentity() ([]*x509.Certificate, *tls.Certificate, error) {
	b, err := h.readFile(h.statePath("root.crt"))
	if err != nil {
		return nil, nil, needRoot(err)
	}
	parsed, err := trust.ParseRoots(b)
	if err != nil {
		return nil, nil, fmt.Errorf("%s is damaged: %w", h.statePath("root.crt"), err)
	}
	var roots []*x509.Certificate
	for _, r := range parsed {
		roots = append(roots, r.Cert)
	}
	key, err := h.readFile(h.statePath("identity.key"))
	if err != nil {
		return nil, nil, needRoot(err)
	}
	cert, err := h.readFile(h.statePath("identity.crt"))
	if err != nil {
		return nil, nil, needRoot(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, nil, fmt.Errorf("the identity in %s cannot be read: %w", h.statePath(""), err)
	}
	return roots, &pair, nil
}

func needRoot(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w: run this with sudo", err)
	}
	return err
}

// answer is the gateway's to a token.
type answer struct {
	OTT   string      `json:"ott"`
	Name  string      `json:"name"`
	Class string      `json:"class"`
	CA    string      `json:"ca_url"`
	Proxy trust.Proxy `json:"proxy"`
	Mode  string      `json:"mode"`
}

// Enroll enrols the host. See the package comment for what it promises. A host that is enrolled with this gateway already
// is refreshed; one whose identity ended is enrolled again with a new token.
func (h *Host) Enroll(ctx context.Context, inv Invitation) (*Report, error) {
	base, err := gatewayURL(inv.Gateway)
	if err != nil {
		return nil, err
	}
	fingerprint, err := ParseFingerprint(inv.Fingerprint)
	if err != nil {
		return nil, err
	}
	state, err := h.ReadState()
	if err == nil {
		if again, err := h.again(ctx, state, base, fingerprint, inv); again != nil || err != nil {
			return again, err
		}
	} else if !errors.Is(err, ErrNotEnrolled) {
		return nil, err
	}
	if inv.Token == "" && !inv.DryRun {
		return nil, errors.New("a token is needed: make one on the gateway with \"exitgate host token\", and give it by --token-file, --token - or " + TokenVariable)
	}
	if err := h.Trust.Preflight(); err != nil {
		return nil, err
	}
	root, err := h.fetchRoot(ctx, base, fingerprint)
	if err != nil {
		return nil, err
	}
	l := h.connect(base, []*x509.Certificate{root}, nil)
	if err := l.learn(ctx); err != nil {
		return nil, err
	}
	roots, err := l.interception(ctx)
	if err != nil {
		return nil, err
	}
	state = State{Gateway: base.String(), Fingerprint: fingerprint}
	if inv.DryRun {
		return h.dryRun(ctx, state, l.roots, roots)
	}
	return h.redeem(ctx, l, state, roots, inv)
}

// again handles a host that is enrolled. It returns nothing when the host has to be enrolled once more.
func (h *Host) again(ctx context.Context, s State, base *url.URL, fingerprint string, inv Invitation) (*Report, error) {
	roots, identity, err := h.readIdentity()
	if err != nil {
		return nil, err
	}
	known := slices.ContainsFunc(roots, func(c *x509.Certificate) bool { return fingerprint == fingerprintOf(c) })
	if s.Gateway != base.String() || s.Fingerprint != fingerprint && !known { // the root may have been replaced since
		return nil, fmt.Errorf("this host is enrolled with %s already: run exitgate unenroll first", s.Gateway)
	}
	if inv.Name != "" && inv.Name != s.Name {
		return nil, fmt.Errorf("this host is enrolled as %s already: run exitgate unenroll first", s.Name)
	}
	if inv.Token != "" && !h.now().Before(identity.Leaf.NotAfter) {
		return nil, nil
	}
	return h.refresh(ctx, s, inv.DryRun)
}

// interception fetches the interception roots that are in force.
func (l *link) interception(ctx context.Context) ([]trust.Root, error) {
	b, err := l.fetch(ctx, http.MethodGet, "/trust/roots.pem", nil)
	if err != nil {
		return nil, fmt.Errorf("the gateway's interception roots cannot be fetched: %w", err)
	}
	return trust.ParseRoots(b)
}

func (h *Host) dryRun(ctx context.Context, s State, identity []*x509.Certificate, roots []trust.Root) (*Report, error) {
	changes, err := h.Trust.Install(ctx, trust.Want{Roots: roots, Files: h.files(s, identity, nil, nil), Units: h.units()}, true)
	return &Report{State: s, Changes: changes, Notes: []string{"the token was not used: name, class and proxy settings are known when it is"}}, err
}

// redeem does what needs the token, and all that comes after.
func (h *Host) redeem(ctx context.Context, l *link, s State, roots []trust.Root, inv Invitation) (*Report, error) {
	name := inv.Name
	if name == "" {
		var err error
		if name, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("find the host's name: %w: give one with --name", err)
		}
	}
	addresses := h.addresses(l)
	var a answer
	if err := l.call(ctx, http.MethodPost, "/enroll/v1/token", map[string]any{"token": inv.Token, "name": name, "addresses": addresses}, &a); err != nil {
		var no *Answered
		if errors.As(err, &no) {
			return nil, fmt.Errorf("the token was not accepted: %w", err)
		}
		return nil, fmt.Errorf("the token could not be given to the gateway: %w", err)
	}
	report, err := h.become(ctx, l, s, roots, a)
	if err != nil {
		return nil, fmt.Errorf("%w\nthe host is as it was; the token may be used up: \"exitgate host token\" makes another", err)
	}
	return report, nil
}

// become takes the identity that a token was good for, and makes the host what it shall be.
func (h *Host) become(ctx context.Context, l *link, s State, roots []trust.Root, a answer) (*Report, error) {
	s.Name, s.Class, s.CA = a.Name, a.Class, a.CA
	if err := s.take(a.Mode, a.Proxy); err != nil {
		return nil, err
	}
	base, err := url.Parse(s.Gateway)
	if err != nil {
		return nil, err
	}
	at, err := caURL(base, s.CA)
	if err != nil {
		return nil, err
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	identity, err := l.at(at).sign(ctx, key, s.Name, a.OTT, h.now())
	if err != nil {
		return nil, err
	}
	keyFile, err := keyPEM(key)
	if err != nil {
		return nil, err
	}
	known := h.connect(base, l.roots, identity)
	w := trust.Want{Roots: roots, Proxy: s.Proxy, Files: h.files(s, l.roots, keyFile, identity), Units: h.units(),
		Confirm: func(ctx context.Context, stores []string) error {
			return known.register(ctx, h.addresses(l), stores, nil)
		}}
	changes, err := h.Trust.Install(ctx, w, false)
	if err != nil {
		known.leave(ctx)
		return nil, err
	}
	return h.report(s, identity, true, changes), nil
}

// take puts the proxy that the gateway names into s, with those that no proxy may stand before.
func (s *State) take(mode string, p trust.Proxy) error {
	switch s.Mode = mode; mode {
	case "transparent":
		s.Proxy = trust.Proxy{}
		return nil
	case "proxy":
	default:
		return fmt.Errorf("the gateway named a mode %.40q that is not known: this exitgate may be too old for it", mode)
	}
	u, err := url.Parse(s.Gateway)
	if err != nil {
		return err
	}
	for _, own := range []string{"localhost", "127.0.0.1", "::1", u.Hostname()} {
		if !slices.Contains(p.NoProxy, own) {
			p.NoProxy = append(p.NoProxy, own)
		}
	}
	if p.HTTPS == "" {
		return errors.New("the gateway named no proxy")
	}
	s.Proxy = p
	return p.Check()
}

// caURL is where certificates are signed: the gateway itself, or a place that it named.
func caURL(base *url.URL, s string) (*url.URL, error) {
	if s == "" {
		return base, nil
	}
	return gatewayURL(s)
}

// register tells the gateway where the host is and what it trusts. What the gateway wants changed comes back.
func (l *link) register(ctx context.Context, addresses, stores []string, out any) error {
	if err := l.call(ctx, http.MethodPost, "/enroll/v1/register", map[string][]string{"addresses": addresses, "trust": stores}, out); err != nil {
		return fmt.Errorf("the gateway did not register this host: %w", err)
	}
	return nil
}

// leaveTime bounds how long a gateway that is away can hold up what is undone anyway.
const leaveTime = 5 * time.Second

// leave tells the gateway that the host goes.
func (l *link) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	return l.call(ctx, http.MethodPost, "/enroll/v1/leave", map[string]string{}, nil)
}

func (h *Host) report(s State, identity *tls.Certificate, renewed bool, changes []trust.Change) *Report {
	r := &Report{State: s, NotAfter: identity.Leaf.NotAfter, Renewed: renewed, Changes: changes}
	if h.timer() == timerNone {
		r.Notes = append(r.Notes, "nothing here starts programs by time: let \"exitgate enroll --renew\" run every quarter of an hour, or the identity ends at "+
			identity.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return r
}
