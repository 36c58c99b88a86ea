package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/ca"
	"github.com/exitgate/exitgate/ca/enroll"
	"github.com/exitgate/exitgate/ca/export"
	"github.com/exitgate/exitgate/ca/trust"
	"github.com/exitgate/exitgate/web"
	"github.com/exitgate/exitgate/web/hostapi"
)

// What hosts are served: how to enrol, the roots, the program, the settings of the proxy; and the authority.

// serveEnroll serves hosts over TLS until ctx ends.
func (g *gateway) serveEnroll(ctx context.Context) error {
	t, err := g.hostCA.TLSConfig()
	if err != nil {
		return err
	}
	s := g.hostCA.Server(g.forHosts())
	s.TLSConfig = t
	return serveUntil(ctx, s, func() error { return s.ServeTLS(g.listenEnroll, "", "") })
}

// servePlain serves what is no secret and is checked by other means, or cannot be, until ctx ends.
func (g *gateway) servePlain(ctx context.Context) error {
	m := http.NewServeMux()
	g.routePublic(m)
	if g.hostCA != nil {
		m.Handle("GET /crl", g.hostCA.Handler())
		m.Handle("GET /1.0/crl", g.hostCA.Handler())
	}
	s := &http.Server{Handler: m, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 20 * time.Second, WriteTimeout: time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 32 << 10}
	return serveUntil(ctx, s, func() error { return s.Serve(g.listenPlain) })
}

// serveUntil runs serve until ctx ends, and then gives what is under way two seconds.
func serveUntil(ctx context.Context, s *http.Server, serve func() error) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if s.Shutdown(grace) != nil {
			s.Close()
		}
	})
	err := serve()
	if !stop() {
		<-stopped
		return nil
	}
	return err
}

// forHosts is everything that the enrolment listener serves.
func (g *gateway) forHosts() http.Handler {
	m := http.NewServeMux()
	g.routePublic(m)
	m.HandleFunc("GET /enroll.sh", bytesOf("text/x-shellscript; charset=utf-8", enroll.Script()))
	m.HandleFunc("GET /enroll.ps1", bytesOf("text/plain; charset=utf-8", enroll.PowerShell()))
	m.HandleFunc("GET /bin/{platform}", g.program)
	m.Handle("/enroll/v1/", g.hostAPI())
	m.Handle("/", g.hostCA.Handler())
	return m
}

// routePublic adds what anybody may fetch.
func (g *gateway) routePublic(m *http.ServeMux) {
	m.HandleFunc("GET /trust/roots.pem", func(w http.ResponseWriter, _ *http.Request) { write(w, "application/x-pem-file", g.issuer.RootsPEM()) })
	for _, f := range export.Formats() {
		m.HandleFunc("GET /trust/root."+string(f), func(w http.ResponseWriter, r *http.Request) { g.exportRoots(w, f) })
	}
	m.HandleFunc("GET /proxy.pac", g.pac)
	m.HandleFunc("GET /wpad.dat", g.pac)
}

func write(w http.ResponseWriter, kind string, b []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Write(b)
}

func bytesOf(kind string, b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { write(w, kind, b) }
}

func (g *gateway) exportRoots(w http.ResponseWriter, f export.Format) {
	b, err := f.Encode(g.issuer.Roots(), "")
	if err != nil {
		g.log.Error("the roots cannot be exported", "format", string(f), "err", err)
		http.Error(w, "the roots cannot be exported in this format; exitgate ca export says why", http.StatusInternalServerError)
		return
	}
	write(w, f.ContentType(), b)
}

// pac answers with the settings of the proxy as a script that browsers run (proxy auto-configuration).
func (g *gateway) pac(w http.ResponseWriter, r *http.Request) {
	p, err := g.proxySettings(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	write(w, "application/x-ns-proxy-autoconfig", enroll.PAC(trust.Proxy{HTTP: p.HTTP, HTTPS: p.HTTPS, NoProxy: p.NoProxy}))
}

// program serves this program to hosts of the same platform, and of others from the folder "programs" of the data
// directory, where an operator puts exitgate-OS-ARCH.
func (g *gateway) program(w http.ResponseWriter, r *http.Request) {
	platform := r.PathValue("platform")
	if strings.Trim(platform, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || len(platform) > 40 {
		http.NotFound(w, r)
		return
	}
	name := filepath.Join(inData(g.settings(), "programs"), "exitgate-"+platform)
	if self, err := os.Executable(); err == nil && platform == runtime.GOOS+"-"+runtime.GOARCH {
		if _, err := os.Stat(name); err != nil {
			name = self
		}
	}
	f, err := os.Open(name)
	if err != nil {
		http.Error(w, fmt.Sprintf("this gateway has no program for %s: put one at programs/exitgate-%s in its data directory", platform, platform), http.StatusNotFound)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, f)
}

// hostAPI is what hosts ask for in JSON.
func (g *gateway) hostAPI() http.Handler {
	return &hostapi.Handler{
		Admin: g.api,
		Ott: func(ctx context.Context, name string, class exitgate.Class, sans []string) (string, error) {
			return g.hostCA.Token(ctx, name, class, sans...)
		},
		Identity: func(r *http.Request) (string, exitgate.Class, error) {
			id, err := g.hostCA.Verify(r.Context(), r.TLS.PeerCertificates)
			return id.Name, id.Class, err
		},
		Settings: g.hostSettings,
		Decide:   g.decideFor,
		Look:     g.look,
		Logger:   g.log,
	}
}

func (g *gateway) hostSettings(ctx context.Context) (s hostapi.Settings, err error) {
	s = hostapi.Settings{CAURL: g.enrollURL(), Roots: string(g.issuer.RootsPEM()), Mode: string(g.settings().Identity.Mode)}
	s.Proxy, err = g.proxySettings(ctx)
	return s, err
}

// decideFor asks the policy about a GET of u by a host that enrolled.
func (g *gateway) decideFor(ctx context.Context, h web.Host, u *url.URL) (exitgate.Verdict, error) {
	if v, own := g.proxy.Answers(u); own {
		return v, nil
	}
	q, err := g.api.Imagine(web.Hypothesis{Host: h.Name, Method: http.MethodGet, URL: u.String()})
	if err != nil {
		return exitgate.Verdict{}, err
	}
	return g.policy.Decide(ctx, q)
}

// look is what the gateway meets where a URL leads, in the API's words.
func (g *gateway) look(ctx context.Context, h web.Host, u *url.URL, verdict exitgate.Verdict) hostapi.View {
	f := exitgate.Flow{Verdict: verdict}
	if q, err := g.api.Imagine(web.Hypothesis{Host: h.Name, Method: http.MethodGet, URL: u.String()}); err == nil {
		f.Question = *q
	}
	l := g.proxy.Look(ctx, u, f)
	v := hostapi.View{Own: l.Own, Parent: l.Parent, TLS: l.TLS, ALPN: l.ALPN}
	for _, a := range l.Answers {
		v.Addresses = append(v.Addresses, a.Addr().String())
	}
	for _, b := range l.Barred {
		v.Barred = append(v.Barred, hostapi.Barred{Address: b.Addr.Addr().String(), Why: b.Why})
	}
	if l.Dialled.IsValid() {
		v.Dialled = l.Dialled.String()
	}
	for _, c := range l.Chain {
		v.Chain = append(v.Chain, hostapi.Certificate{Subject: c.Subject.String(), Issuer: c.Issuer.String(),
			SHA256: ca.Fingerprint(c), NotBefore: c.NotBefore, NotAfter: c.NotAfter})
	}
	var fault *exitgate.Fault
	var refusal *exitgate.Refusal
	switch {
	case errors.As(l.Err, &fault):
		v.Step, v.Type, v.Error = fault.Step, fault.Type, fault.Reason
	case errors.As(l.Err, &refusal) && refusal.Verdict.Rule == exitgate.RuleAddress:
		v.Step, v.Error = "guard", refusal.Verdict.Reason
	case errors.As(l.Err, &refusal):
		v.Step, v.Error = "request", refusal.Verdict.Reason
	case l.Err != nil:
		v.Step, v.Error = "look", "the gateway failed: its log says how"
		g.log.Error("a destination cannot be looked at", "url", u.Redacted(), "err", l.Err)
	}
	return v
}

// enrolCommand is what is pasted on a host to enrol it.
func enrolCommand(gateway, fingerprint string) string {
	sum := sha256.Sum256(enroll.Script())
	return enroll.Command(gateway, fingerprint, hex.EncodeToString(sum[:]))
}
