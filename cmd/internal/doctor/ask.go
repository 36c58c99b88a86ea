package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// ask gets the gateway's view, as the host that is enrolled.
func (m machine) ask(ctx context.Context, e Enrolment, target string) (g GatewayView, err error) {
	if e.pair == nil || e.root == nil {
		if e.Identity.Problem != nil {
			return g, &problemError{*e.Identity.Problem}
		}
		return g, failed(KindMissing, "the host has no identity")
	}
	base, err := url.Parse(e.Gateway)
	if err != nil || base.Scheme != "https" || base.Host == "" {
		return g, failed(KindDamaged, "%s is not the address of a gateway", clip(e.Gateway))
	}
	l := &link{base: "https://" + base.Host, now: m.Now}
	l.client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{TLSClientConfig: l.config(e, base.Hostname()), MaxResponseHeaderBytes: maxHead}}
	defer l.client.CloseIdleConnections()
	b, err := l.get(ctx, "/enroll/v1/view?url="+url.QueryEscape(target), &g)
	if err != nil {
		return g, err
	}
	if err := json.Unmarshal(b, &g.View); err != nil {
		return g, fmt.Errorf("the gateway's view cannot be read: %w", err)
	}
	if !g.Time.IsZero() { // it tells more than whole seconds
		g.Clock = &Clock{At: l.at, Offset: g.Time.Sub(l.at).Round(time.Millisecond), Skewed: l.skewed}
	}
	if b, err := l.get(ctx, "/trust/roots.pem", nil); err == nil {
		g.Roots, _ = parseCertificates(b)
	}
	return g, nil
}

// A link talks to the enrolment listener.
type link struct {
	base   string
	client *http.Client
	now    func() time.Time
	at     time.Time // the middle of the last exchange
	skewed bool
}

// config checks the gateway by the identity root. Where time alone is against it, it is checked at its own time.
func (l *link) config(e Enrolment, name string) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(e.root)
	return &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*e.pair},
		InsecureSkipVerify: true, // VerifyConnection does it
		VerifyConnection: func(cs tls.ConnectionState) error {
			leaf := cs.PeerCertificates[0]
			between := x509.NewCertPool()
			for _, c := range cs.PeerCertificates[1:] {
				between.AddCert(c)
			}
			o := x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: name, CurrentTime: l.now()}
			_, err := leaf.Verify(o)
			var invalid x509.CertificateInvalidError
			if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
				o.CurrentTime = leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)
				if _, err = leaf.Verify(o); err == nil {
					l.skewed = true
				}
			}
			return impostor(err)
		}}
}

func impostor(err error) error {
	var name x509.HostnameError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &name):
		return failed(KindImpostor, "the gateway's certificate is for another name: %v", err)
	}
	return failed(KindImpostor, "who answers at the gateway's address is not under the identity root that this host was given: %v", err)
}

// get returns the body of a good answer. Any other is an error with what the gateway says.
func (l *link) get(ctx context.Context, path string, g *GatewayView) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, l.base+path, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "exitgate-doctor")
	start := l.now()
	res, err := l.client.Do(r)
	if err != nil {
		return nil, linkError(err)
	}
	defer res.Body.Close()
	end := l.now()
	l.at = start.Add(end.Sub(start) / 2)
	b, err := io.ReadAll(io.LimitReader(res.Body, maxFile))
	if err != nil {
		return nil, linkError(err)
	}
	if at, err := http.ParseTime(res.Header.Get("Date")); err == nil && g != nil {
		g.Clock = &Clock{At: l.at, Offset: at.Add(time.Second / 2).Sub(l.at).Round(time.Second), Skewed: l.skewed}
	}
	if res.StatusCode == http.StatusOK {
		return b, nil
	}
	return nil, failed(KindAnswered, "%s", reasonOf(res, b))
}

func linkError(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var p *problemError
	if errors.As(err, &p) {
		return p
	}
	if strings.Contains(err.Error(), "server gave HTTP response") {
		return failed(KindNotTLS, "what answers at the gateway's address does not speak TLS")
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return failed(KindTimeout, "the gateway did not answer in time")
	}
	return err
}
