package enroll

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/exitgate/exitgate/ca/trust"
)

// The bounds of what a gateway may answer, and of how long it may take.
const (
	maxAnswer = 1 << 20
	linkTime  = 30 * time.Second // of one request
)

// A link talks to one gateway, whose certificate is checked against its identity roots: one, or two while it is being
// replaced.
type link struct {
	base   *url.URL
	roots  []*x509.Certificate
	client *http.Client
	local  net.Addr // of the last connection: the address by which the gateway sees this host
}

// gatewayURL reads the address that a person gave: https, a host, perhaps a port, nothing else.
func gatewayURL(s string) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "":
		return nil, fmt.Errorf("gateway %.80q: it is not a URL such as https://gate.example.com:3130", s)
	case u.Scheme != "https":
		return nil, fmt.Errorf("gateway %.80q: the URL begins with https://", s)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/":
		return nil, fmt.Errorf("gateway %.80q: give a host and a port only", s)
	}
	return &url.URL{Scheme: "https", Host: u.Host}, nil
}

// ParseFingerprint reads the SHA-256 of a certificate: 64 hexadecimal digits, in either case, with colons or without.
// It returns them in lower case without colons.
func ParseFingerprint(s string) (string, error) {
	f := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(strings.TrimSpace(s), "sha256:"), ":", ""))
	if b, err := hex.DecodeString(f); err != nil || len(b) != sha256.Size {
		return "", errors.New("the fingerprint is not 64 hexadecimal digits; the gateway prints it with: exitgate ca fingerprint")
	}
	return f, nil
}

// A Skew error says that the clocks of host and gateway differ too much for certificates to be valid.
type Skew struct{ Host, Gateway time.Time }

// Error implements error.
func (s *Skew) Error() string {
	d, word := s.Gateway.Sub(s.Host), "behind"
	if d < 0 {
		d, word = -d, "ahead"
	}
	return fmt.Sprintf("this host's clock is %s %s: it says %s, and the gateway's says %s; set the clock", d.Round(time.Minute), word,
		s.Host.UTC().Format(time.RFC3339), s.Gateway.UTC().Format(time.RFC3339))
}

// maxSkew is how much the clocks may differ: certificates are backdated, tokens are not by much.
const maxSkew = 5 * time.Minute

// fetchRoot asks the gateway for the root with that fingerprint. Whoever answers is not known yet, and needs not be: what
// is not the root is refused.
func (h *Host) fetchRoot(ctx context.Context, base *url.URL, fingerprint string) (*x509.Certificate, error) {
	t := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true}
	l := link{base: base, client: &http.Client{Transport: t, CheckRedirect: noRedirect, Timeout: linkTime}}
	res, err := l.do(ctx, http.MethodGet, "/root/"+fingerprint, nil)
	if err != nil {
		return nil, fmt.Errorf("the gateway %s cannot be reached: %w", base.Host, plainly(err))
	}
	defer res.Body.Close()
	b, err := readAll(res.Body)
	if err != nil {
		return nil, fmt.Errorf("read the root: %w", err)
	}
	root, err := parseRoot(res.StatusCode, b, fingerprint)
	if err != nil {
		return nil, err
	}
	return root, h.checkClock(res.Header.Get("Date"))
}

// parseRoot reads {"ca": PEM}, and accepts one certificate only.
func parseRoot(status int, body []byte, fingerprint string) (*x509.Certificate, error) {
	var answer struct {
		CA string `json:"ca"`
	}
	err := json.Unmarshal(body, &answer)
	block, _ := pem.Decode([]byte(answer.CA))
	if status != http.StatusOK || err != nil || block == nil {
		return nil, fmt.Errorf("wrong fingerprint, or not the gateway: it has no root with the SHA-256 %s (it answered %d)", fingerprint, status)
	}
	if sum := sha256.Sum256(block.Bytes); hex.EncodeToString(sum[:]) != fingerprint {
		return nil, fmt.Errorf("wrong fingerprint: the root that was answered has the SHA-256 %x; somebody may stand in between", sum)
	}
	return x509.ParseCertificate(block.Bytes)
}

func (h *Host) checkClock(date string) error {
	at, err := http.ParseTime(date)
	if err != nil {
		return nil // it did not say
	}
	now := h.now()
	if d := at.Sub(now); d > maxSkew || d < -maxSkew {
		return &Skew{Host: now, Gateway: at}
	}
	return nil
}

// connect returns a link under roots, with the identity when there is one.
func (h *Host) connect(base *url.URL, roots []*x509.Certificate, identity *tls.Certificate) *link {
	l := &link{base: base, roots: roots}
	config := &tls.Config{RootCAs: pool(roots), MinVersion: tls.VersionTLS12, Time: h.now}
	if identity != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return identity, nil }
	}
	t := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil {
			l.local = c.LocalAddr()
		}
		return c, err
	}}
	l.client = &http.Client{Transport: t, CheckRedirect: noRedirect, Timeout: linkTime}
	return l
}

func pool(certs []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

// learn replaces the identity roots by those that the gateway trusts now. It said so under one of them.
func (l *link) learn(ctx context.Context) error {
	b, err := l.fetch(ctx, http.MethodGet, "/roots.pem", nil)
	if err != nil {
		return fmt.Errorf("the gateway's identity roots cannot be fetched: %w", err)
	}
	roots, err := trust.ParseRoots(b)
	if err != nil {
		return fmt.Errorf("the gateway's identity roots: %w", err)
	}
	l.roots = nil
	for _, r := range roots {
		l.roots = append(l.roots, r.Cert)
	}
	return nil
}

// at returns the same link to another place of the gateway.
func (l *link) at(base *url.URL) *link {
	c := *l
	c.base = base
	return &c
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func readAll(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
	if len(b) > maxAnswer {
		return nil, fmt.Errorf("the answer is larger than %d bytes", maxAnswer)
	}
	return b, err
}

func (l *link) do(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, l.base.String()+path, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "exitgate-enroll")
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return l.client.Do(r)
}

// An Answered error is what a gateway said no with.
type Answered struct {
	Status int
	Detail string
}

// Error implements error.
func (a *Answered) Error() string {
	return cmp.Or(a.Detail, "the gateway answered "+http.StatusText(a.Status))
}

// call sends in, and reads the JSON of a good answer into out. Any other answer is an *Answered.
func (l *link) call(ctx context.Context, method, path string, in, out any) error {
	b, err := l.fetch(ctx, method, path, in)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("the gateway's answer to %s is not what it should be: %w", path, err)
	}
	return nil
}

func (l *link) fetch(ctx context.Context, method, path string, in any) ([]byte, error) {
	res, err := l.do(ctx, method, path, in)
	if err != nil {
		return nil, plainly(err)
	}
	defer res.Body.Close()
	b, err := readAll(res.Body)
	if err != nil {
		return nil, fmt.Errorf("read the gateway's answer: %w", plainly(err))
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return nil, &Answered{res.StatusCode, detail(b)}
	}
	return b, nil
}

// detail finds the sentence in an error of ours (problem+json) or of smallstep.
func detail(b []byte) string {
	var p struct{ Detail, Message, Title string }
	if json.Unmarshal(b, &p) != nil {
		return ""
	}
	s := cmp.Or(p.Detail, p.Message, p.Title)
	return s[:min(len(s), 400)]
}

// plainly takes the URL off an error of net/http, and says what errors of TLS mean here.
func plainly(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return errors.New("its certificate is not under the root with that fingerprint: somebody stands in between, or it is not the gateway")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("its certificate is not valid at this host's time: %w", err)
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("it did not answer in time")
	}
	return err
}
