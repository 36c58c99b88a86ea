package hostapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/web"
)

// A Handler serves the paths below /enroll/v1/. All fields are required but for Logger and Now.
type Handler struct {
	Admin *web.Admin
	// Ott makes a one-time token with which the authority signs a certificate for a host of that name and class.
	Ott func(ctx context.Context, name string, class exitgate.Class, sans []string) (string, error)
	// Identity returns whom the client certificate of a request names. An error says in one line what is wrong with
	// it; it is told to the client.
	Identity func(r *http.Request) (name string, class exitgate.Class, err error)
	// Settings are what a host needs besides its certificate.
	Settings func(ctx context.Context) (Settings, error)
	// Decide asks the policy about a GET of a URL by a host.
	Decide func(ctx context.Context, h web.Host, u *url.URL) (exitgate.Verdict, error)
	// Look looks the name of a URL up and dials it as the gateway would for a request. It is called only for what
	// Decide allows or splices. What goes wrong on the way is in the View.
	Look func(ctx context.Context, h web.Host, u *url.URL, v exitgate.Verdict) View

	Logger *slog.Logger     // nil: slog.Default
	Now    func() time.Time // nil: time.Now

	asked, failed web.Limiter
}

// Settings are what a host is given when it enrols.
type Settings struct {
	CAURL string            `json:"ca_url"`    // where the authority is
	Roots string            `json:"roots_pem"` // the interception roots in force
	Proxy web.ProxySettings `json:"proxy"`
	Mode  string            `json:"mode"` // proxy, or transparent: the host sets no proxy
}

// How often an address may ask, and fail: at once, and one more each.
const (
	asks, asksEvery         = 120, time.Second / 2
	failures, failuresEvery = 20, 3 * time.Second
)

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if err := h.serve(w, r); err != nil {
		web.Fail(w, r, h.log(), err)
	}
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) error {
	from, now := web.Source(r), h.now()
	if wait := h.asked.Take(from, now, asks, asksEvery); wait > 0 {
		return web.TooMany(wait)
	}
	if r.URL.Path == "/enroll/v1/token" && r.Method == http.MethodPost {
		return h.counted(r, h.enrol(w, r))
	}
	handle := h.route(r)
	if handle == nil {
		return web.NotFound(fmt.Errorf("%.20s %.200q: there is no such path and method", r.Method, r.URL.Path))
	}
	name, class, err := h.Identity(r)
	if err != nil {
		return h.counted(r, web.Forbidden(err))
	}
	host, err := h.Admin.Standing(name, class)
	if err != nil {
		return h.counted(r, err)
	}
	return handle(w, r, host)
}

// counted counts a failure to say who one is; over the bound, nothing more is said than to wait.
func (h *Handler) counted(r *http.Request, err error) error {
	if err == nil {
		return nil
	}
	if wait := h.failed.Take(web.Source(r), h.now(), failures, failuresEvery); wait > 0 {
		return web.TooMany(wait)
	}
	h.log().Warn("a host was not let in", "path", r.URL.Path, "from", web.Source(r), "err", err)
	return err
}

type forHost func(http.ResponseWriter, *http.Request, web.Host) error

// route returns what serves a request of a host that is known.
func (h *Handler) route(r *http.Request) forHost {
	const requests = "/enroll/v1/requests"
	switch path := r.URL.Path; {
	case path == "/enroll/v1/register" && r.Method == http.MethodPost:
		return h.register
	case path == "/enroll/v1/leave" && r.Method == http.MethodPost:
		return h.leave
	case path == requests && r.Method == http.MethodPost:
		return h.ask
	case len(path) > len(requests)+1 && path[:len(requests)+1] == requests+"/" && r.Method == http.MethodGet:
		return h.answer
	case path == "/enroll/v1/view" && r.Method == http.MethodGet:
		return h.view
	}
	return nil
}

func (h *Handler) log() *slog.Logger {
	if h.Logger != nil {
		return h.Logger
	}
	return slog.Default()
}

func (h *Handler) now() time.Time {
	if h.Now != nil {
		return h.Now().UTC()
	}
	return time.Now().UTC()
}

// An Admission is the answer to a token.
type Admission struct {
	OTT   string         `json:"ott"` // one-time token of the authority
	Name  string         `json:"name"`
	Class exitgate.Class `json:"class"`
	Settings
}

func (h *Handler) enrol(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Token     string      `json:"token"`
		Name      string      `json:"name"`
		Addresses []web.Range `json:"addresses"`
	}
	if err := web.Decode(w, r, &in); err != nil {
		return err
	}
	settings, err := h.Settings(r.Context())
	if err != nil {
		return err
	}
	out := Admission{Settings: settings}
	e := web.Enrolment{Token: in.Token, Name: in.Name, Addresses: in.Addresses, From: web.Source(r)}
	host, err := h.Admin.Enrol(r.Context(), e, func(host web.Host) (err error) {
		out.OTT, err = h.Ott(r.Context(), host.Name, host.Class, []string{host.Name})
		return err
	})
	if err != nil {
		return err
	}
	out.Name, out.Class = host.Name, host.Class
	web.Answer(w, http.StatusOK, out)
	return nil
}

// A Registration is what a host says of itself, and the answer.
type Registration struct {
	Addresses []web.Range `json:"addresses"`
	Trust     []string    `json:"trust"` // fingerprints of the interception roots that it trusts
}

// Registered is the answer to a Registration: what the gateway knows of the host now, and what the host should be set to.
type Registered struct {
	Registration
	Mode  string            `json:"mode"`
	Proxy web.ProxySettings `json:"proxy"`
}

func (h *Handler) register(w http.ResponseWriter, r *http.Request, host web.Host) error {
	var in Registration
	if err := web.Decode(w, r, &in); err != nil {
		return err
	}
	host, err := h.Admin.Register(r.Context(), host, web.Enrolment{Addresses: in.Addresses, From: web.Source(r)})
	if err != nil {
		return err
	}
	if err := h.Admin.Identities.Trusts(r.Context(), host.Name, in.Trust); err != nil {
		return err
	}
	settings, err := h.Settings(r.Context())
	if err != nil {
		return err
	}
	web.Answer(w, http.StatusOK, Registered{Registration{host.Addresses, in.Trust}, settings.Mode, settings.Proxy})
	return nil
}

func (h *Handler) leave(w http.ResponseWriter, r *http.Request, host web.Host) error {
	if err := h.Admin.Leave(r.Context(), host); err != nil {
		return err
	}
	web.Answer(w, http.StatusOK, struct{}{})
	return nil
}

func (h *Handler) ask(w http.ResponseWriter, r *http.Request, host web.Host) error {
	var in struct {
		Flow   string `json:"flow"`
		Method string `json:"method"`
		URL    string `json:"url"`
		Reason string `json:"reason"`
	}
	if err := web.Decode(w, r, &in); err != nil {
		return err
	}
	q, fresh, err := h.Admin.FileFor(r.Context(), host, web.Ask{Flow: in.Flow, Method: in.Method, URL: in.URL, Reason: in.Reason})
	if err != nil {
		return err
	}
	status := http.StatusOK
	if fresh {
		status = http.StatusCreated
	}
	web.Answer(w, status, q)
	return nil
}

func (h *Handler) answer(w http.ResponseWriter, r *http.Request, host web.Host) error {
	q, err := h.Admin.RequestOf(host, r.URL.Path[len("/enroll/v1/requests/"):])
	if err != nil {
		return err
	}
	web.Answer(w, http.StatusOK, q)
	return nil
}

// A View is a URL as the gateway sees it for a host, to be compared with what the host sees.
type View struct {
	URL       string         `json:"url"`
	Host      string         `json:"host"`
	Class     exitgate.Class `json:"class"`
	Time      time.Time      `json:"time"`   // of the gateway
	Action    string         `json:"action"` // refuse, allow, splice
	Rule      string         `json:"rule"`
	Reason    string         `json:"reason"`
	Revision  string         `json:"revision"`            // of the policy
	Looked    bool           `json:"looked"`              // the policy said yes, so the fields below say what was met
	Own       bool           `json:"own,omitempty"`       // the gateway answers this name itself, and the fields below are empty
	Addresses []string       `json:"addresses,omitempty"` // that the name has
	Barred    []Barred       `json:"barred,omitempty"`    // those of them that the gateway does not dial
	Parent    string         `json:"parent,omitempty"`    // the proxy behind the gateway that looks the name up and dials
	Dialled   string         `json:"dialled,omitempty"`   // address and port that took the connection
	TLS       string         `json:"tls,omitempty"`       // version
	ALPN      string         `json:"alpn,omitempty"`
	Chain     []Certificate  `json:"chain,omitempty"` // that the upstream showed, its own first
	Step      string         `json:"step,omitempty"`  // at which it failed, as in a Fault; guard: no address may be dialled
	Type      string         `json:"type,omitempty"`  // of the fault (RFC 9209, section 2.3)
	Error     string         `json:"error,omitempty"` // what failed
}

// A Barred address is one that the gateway does not dial, and why.
type Barred struct {
	Address string `json:"address"`
	Why     string `json:"why"`
}

// A Certificate is one of a chain, in short.
type Certificate struct {
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	SHA256    string    `json:"sha256"` // of the DER, in hex
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

// viewTime bounds a view. Whoever asks waits for five seconds, and should learn the decision even if the upstream is silent.
const viewTime = 4 * time.Second

// view tells what the policy says, and only where it says yes what the gateway sees out there.
func (h *Handler) view(w http.ResponseWriter, r *http.Request, host web.Host) error {
	u, err := url.Parse(r.URL.Query().Get("url"))
	switch {
	case err != nil:
		return web.Invalid(fmt.Errorf("view: read the URL: %w", err))
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil:
		return web.Invalid(errors.New("view: give an absolute http or https URL"))
	}
	ctx, cancel := context.WithTimeout(r.Context(), viewTime)
	defer cancel()
	v, err := h.Decide(ctx, host, u)
	if err != nil {
		return fmt.Errorf("view: ask the policy: %w", err)
	}
	var out View
	if v.Action == exitgate.Allow || v.Action == exitgate.Splice {
		out = h.Look(ctx, host, u, v)
		out.Looked = true
	}
	out.URL, out.Host, out.Class, out.Time = u.String(), host.Name, host.Class, h.now()
	out.Action, out.Rule, out.Reason, out.Revision = v.Action.String(), v.Rule, v.Reason, v.Revision
	web.Answer(w, http.StatusOK, out)
	return nil
}
