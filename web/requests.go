package web

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/exitgate/exitgate"
)

// Bounds of requests for access, so that hosts cannot fill the ledger.
const (
	maxOpen        = 10_000
	maxOpenPerHost = 50
	maxURL         = 2000
)

// An Ask is what somebody who was refused says.
type Ask struct {
	Flow   string         `json:"flow,omitempty"`   // that was refused; or:
	Host   string         `json:"host,omitempty"`   // the host that needs it
	Class  exitgate.Class `json:"class,omitempty"`  // or the class of hosts
	Method string         `json:"method,omitempty"` // GET when empty
	URL    string         `json:"url,omitempty"`    // absolute, http or https
	Reason string         `json:"reason"`
}

func (a *Admin) requests() resource[Request] {
	return resource[Request]{
		a: a, kind: KindRequest, noun: "request", shelf: &a.Mirror.Requests, prefix: "r",
		named:   func(q *Request) *string { return &q.ID },
		origin:  func(q *Request) origin { return q.Origin.pointers() },
		touches: func(q *Request) []exitgate.Class { return []exitgate.Class{q.Class} },
		matches: func(q *Request, v url.Values) bool {
			return match(v, "class", string(q.Class)) && match(v, "host", q.Host) && match(v, "state", string(q.State))
		},
		check: func(q, _ *Request, _ Change) error { return a.checkRequest(q) },
	}
}

// ask files a request for access: POST.
func (a *Admin) ask(w http.ResponseWriter, r *http.Request) error {
	var ask Ask
	if err := decode(w, r, &ask); err != nil {
		return err
	}
	q, fresh, err := a.File(r.Context(), principal(r), ask)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if fresh {
		status = http.StatusCreated
		w.Header().Set("Location", "/v1/requests/"+q.ID)
	}
	answer(w, status, q)
	return nil
}

// File files a request by p. A request that is open for the same is returned as it is, and fresh is false.
func (a *Admin) File(ctx context.Context, p Principal, ask Ask) (q Request, fresh bool, err error) {
	if q, err = a.asked(ctx, ask); err != nil {
		return q, false, err
	}
	s := a.requests()
	c := Change{At: a.now().Truncate(time.Second), Reason: ask.Reason}
	if c.Who, err = p.change(); err != nil {
		return q, false, err
	}
	q.ID, q.State, q.Reason = newName(s.prefix), StateOpen, ask.Reason
	if err := checkReason(ask.Reason); err != nil {
		return q, false, Invalid(fmt.Errorf("file a request: %w", err))
	}
	var filed Request
	err = a.changing(ctx, func(ctx context.Context) error {
		open, err := a.openLike(q)
		if err != nil {
			return err
		}
		if open != nil {
			filed = *open
			return nil
		}
		out, err := s.writeOnce(ctx, p, q, c, condition{}, true)
		filed, fresh = out.entry, err == nil
		return err
	})
	filed.Source = "store"
	return filed, fresh, err
}

// asked makes the request that an Ask is about.
func (a *Admin) asked(ctx context.Context, ask Ask) (q Request, err error) {
	if ask.Flow == "" {
		q = Request{Host: ask.Host, Class: ask.Class, Method: strings.ToUpper(cmp.Or(ask.Method, http.MethodGet)), URL: ask.URL}
		if (q.Host == "") == (q.Class == "") {
			return q, Invalid(errors.New("file a request: name the flow that was refused, or the host or the class, with a URL"))
		}
		if q.Host != "" {
			h, ok := a.HostNamed(q.Host)
			if !ok {
				return q, NotFound(fmt.Errorf("file a request: no host is named %.100q", q.Host))
			}
			q.Class = h.Class
		}
		return q, nil
	}
	if ask != (Ask{Flow: ask.Flow, Reason: ask.Reason}) {
		return q, Invalid(errors.New("file a request: give a flow, or a host or class with a URL, not both"))
	}
	id, err := exitgate.ParseID(ask.Flow)
	if err != nil {
		return q, Invalid(err)
	}
	f, err := a.Flows.Flow(ctx, id)
	if err != nil {
		return q, err
	}
	return requestOf(f)
}

// requestOf makes the request for what a flow was refused.
func requestOf(f *exitgate.Flow) (q Request, err error) {
	if f.Verdict.Action != exitgate.Refuse {
		return q, Conflict(fmt.Errorf("file a request: flow %s was not refused", f.ID))
	}
	h := f.Question.Host
	q = Request{Flow: f.ID.String(), Host: h.Name, Class: h.Class, Method: http.MethodConnect, URL: "https://" + f.Question.Dest.String() + "/"}
	if in := f.Question.HTTP; in != nil && in.Path != "" {
		q.Method = in.Method
		q.URL, _, _ = strings.Cut(in.URL, "?")
	}
	if h.Class == exitgate.ClassUnknown || h.Class == "" {
		return q, Conflict(fmt.Errorf("file a request: the gateway does not know the host %s of flow %s; it has to enrol or be registered first", h.Addr, f.ID))
	}
	return q, nil
}

func (a *Admin) checkRequest(q *Request) error {
	switch u, err := url.Parse(q.URL); {
	case err != nil:
		return fmt.Errorf("read the URL: %w", err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil:
		return fmt.Errorf("%.100q is not an absolute http or https URL", q.URL)
	case len(q.URL) > maxURL:
		return fmt.Errorf("the URL is longer than %d bytes", maxURL)
	}
	q.URL, _, _ = strings.Cut(q.URL, "?")
	q.URL, _, _ = strings.Cut(q.URL, "#")
	g, err := a.grantOf(q)
	if err == nil {
		err = a.CheckGrant(&g, a.now())
	}
	if err != nil {
		return fmt.Errorf("what it asks for cannot be granted: %w", err)
	}
	return a.KnowsClass(q.Class)
}

// openLike returns the open request for the same, or an error when there are too many.
func (a *Admin) openLike(q Request) (*Request, error) {
	open, mine := 0, 0
	for _, o := range a.Mirror.Requests.List() {
		if o.State != StateOpen {
			continue
		}
		if o.Host == q.Host && o.Class == q.Class && o.Method == q.Method && o.URL == q.URL {
			return &o, nil
		}
		open++
		mine += one(q.Host != "" && o.Host == q.Host)
	}
	switch {
	case mine >= maxOpenPerHost:
		return nil, problem(http.StatusTooManyRequests, fmt.Errorf("file a request: %d of host %s are open; wait until they are decided", mine, q.Host))
	case open >= maxOpen:
		return nil, problem(http.StatusTooManyRequests, fmt.Errorf("file a request: %d are open; wait until some are decided", open))
	}
	return nil, nil
}

// An Approval says why a request is granted, and how the grant differs from what was asked.
type Approval struct {
	Reason  string    `json:"reason"`
	For     string    `json:"for,omitempty"`     // "class" (the meaning of "") or "host": whom the grant is for
	Until   time.Time `json:"until,omitzero"`    // when the grant ends
	Lease   string    `json:"lease,omitempty"`   // when it ends unless it is used
	Methods []string  `json:"methods,omitempty"` // instead of the one that was asked for
	Path    string    `json:"path,omitempty"`    // instead of the one that was asked for, as in a grant
}

// grantOf is the grant that covers what q asks for, and nothing else.
func (a *Admin) grantOf(q *Request) (exitgate.Grant, error) {
	g, err := a.GrantFor(q.URL)
	if err != nil {
		return g, err
	}
	g.ID, g.Class, g.Reason = "g-0", q.Class, q.Reason
	if q.Method == http.MethodConnect {
		g.Paths = nil // what it would have asked for inside is not known
		return g, nil
	}
	g.Methods = []string{q.Method}
	return g, nil
}

// approve grants what was asked: POST.
func (a *Admin) approve(w http.ResponseWriter, r *http.Request) error {
	var in Approval
	if err := decode(w, r, &in); err != nil {
		return err
	}
	return a.decide(w, r, in.Reason, func(q *Request, c Change) (*exitgate.Grant, error) {
		g, err := a.grantOf(q)
		if err != nil {
			return nil, Conflict(err)
		}
		if err := in.apply(&g, q); err != nil {
			return nil, Invalid(err)
		}
		g.ID, g.Until, g.Lease = newName("g"), in.Until, in.Lease
		g.Reason = fmt.Sprintf("%s (request %s by %s: %s)", c.Reason, q.ID, q.By, q.Reason)
		g.Reason = g.Reason[:min(len(g.Reason), maxReason)]
		g.Reason = strings.ToValidUTF8(g.Reason, "")
		return &g, nil
	})
}

func (in *Approval) apply(g *exitgate.Grant, q *Request) error {
	switch in.For {
	case "", "class":
	case "host":
		if q.Host == "" {
			return fmt.Errorf("request %s is not of one host", q.ID)
		}
		g.Class, g.Host = "", q.Host
	default:
		return fmt.Errorf("for %.20q: it is class or host", in.For)
	}
	if len(in.Methods) > 0 {
		g.Methods = in.Methods
	}
	if in.Path != "" {
		g.Paths = []string{in.Path}
	}
	return nil
}

// reject says no: POST.
func (a *Admin) reject(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Reason string `json:"reason"`
	}
	if err := decode(w, r, &in); err != nil {
		return err
	}
	return a.decide(w, r, in.Reason, func(*Request, Change) (*exitgate.Grant, error) { return nil, nil })
}

// decide decides a request, once. Who asked may not decide, unless through the admin socket.
func (a *Admin) decide(w http.ResponseWriter, r *http.Request, reason string, grant func(*Request, Change) (*exitgate.Grant, error)) (err error) {
	p, id := principal(r), r.PathValue("id")
	c := Change{At: a.now().Truncate(time.Second), Reason: reason}
	if c.Who, err = p.change(); err != nil {
		return err
	}
	if err := checkReason(reason); err != nil {
		return Invalid(fmt.Errorf("decide request %s: %w", id, err))
	}
	var decided Request
	err = a.changing(r.Context(), func(ctx context.Context) error {
		k, ok := a.Mirror.Requests.Get(id)
		if !ok {
			return a.requests().none("decide", id)
		}
		q := k.Value
		switch {
		case q.State != StateOpen:
			return Conflict(fmt.Errorf("request %s was %s already by %s: %s", id, q.State, q.DecidedBy, q.Decision))
		case q.By == p.Who && !p.Local:
			return Forbidden(fmt.Errorf("request %s was filed by %s: somebody else has to decide it", id, p.Who))
		}
		if err := p.bound(q.Class); err != nil {
			return err
		}
		g, err := grant(&q, c)
		if err != nil {
			return err
		}
		decided, err = a.settleRequest(ctx, q, k.Version, g, c)
		return err
	})
	if err != nil {
		return err
	}
	a.log().Info("request "+string(decided.State), "id", id, "by", c.Who, "reason", c.Reason, "grant", decided.Grant)
	decided.Source = "store"
	answer(w, http.StatusOK, decided)
	return nil
}

// settleRequest writes the decision and the grant, both or neither.
func (a *Admin) settleRequest(ctx context.Context, q Request, version int64, g *exitgate.Grant, c Change) (Request, error) {
	before := q
	q.State, q.DecidedBy, q.DecidedAt, q.Decision = StateRejected, c.Who, c.At, c.Reason
	var edits []Edit
	if g != nil {
		q.State, q.Grant = StateGranted, g.ID
		if _, err := a.grants().prepare(g, nil, c); err != nil {
			return q, err
		}
		value, err := json.Marshal(g)
		if err != nil {
			return q, err
		}
		edits = append(edits, Edit{Kind: KindGrant, ID: g.ID, Value: value, If: MustNotExist})
	}
	value, err := json.Marshal(q)
	if err != nil {
		return q, err
	}
	edits = append(edits, Edit{Kind: KindRequest, ID: q.ID, Value: value, If: version})
	if _, err := a.Mirror.Ledger.Apply(ctx, c, edits...); err != nil {
		return q, err
	}
	if err := a.Mirror.Sync(ctx); err != nil && g != nil {
		err = fmt.Errorf("load grant %s: %w; nothing was changed", g.ID, err)
		return q, Conflict(errors.Join(err, a.grants().undo(ctx, c, edits[0], nil), a.requests().undo(ctx, c, edits[1], &before)))
	}
	return q, nil
}

// renew lets a leased grant's lease begin anew: POST.
func (a *Admin) renew(w http.ResponseWriter, r *http.Request) (err error) {
	var in struct {
		Reason string `json:"reason"`
	}
	if err := decode(w, r, &in); err != nil {
		return err
	}
	p, id, s := principal(r), r.PathValue("id"), a.grants()
	c := Change{At: a.now().Truncate(time.Second), Reason: in.Reason}
	if c.Who, err = p.change(); err != nil {
		return err
	}
	if err := checkReason(in.Reason); err != nil {
		return Invalid(fmt.Errorf("renew grant %s: %w", id, err))
	}
	var out exitgate.Grant
	err = a.changing(r.Context(), func(ctx context.Context) error {
		old, version, err := s.before(id, condition{})
		switch {
		case err != nil:
			return err
		case old == nil:
			return s.none("renew", id)
		case old.Lease == "":
			return Conflict(fmt.Errorf("renew grant %s: it has no lease; put it again with another until", id))
		}
		if err := p.bound(a.classOf(old.Class, old.Host)); err != nil {
			return err
		}
		out = *old
		out.By, out.At = c.Who, c.At // who answers for it from now on
		value, err := json.Marshal(out)
		if err != nil {
			return err
		}
		return s.commit(ctx, c, Edit{Kind: KindGrant, ID: id, Value: value, If: version}, old)
	})
	if err != nil {
		return err
	}
	out.Source = "store"
	answer(w, http.StatusOK, out)
	return nil
}
