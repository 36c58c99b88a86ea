package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/exitgate/exitgate"
)

func (a *Admin) flows(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if follow, _ := strconv.ParseBool(q.Get("follow")); follow {
		return a.follow(w, r)
	}
	limit, err := limitOf(r, 50)
	if err != nil {
		return err
	}
	var before exitgate.ID
	if s := q.Get("before"); s != "" {
		if before, err = exitgate.ParseID(s); err != nil {
			return Invalid(err)
		}
	}
	list, err := a.Flows.Find(r.Context(), q.Get("query"), limit, before)
	if err != nil {
		return err
	}
	if list == nil {
		list = []*exitgate.Flow{}
	}
	answer(w, http.StatusOK, list)
	return nil
}

// follow streams one JSON value a line. The header is sent when nothing is missed any more.
func (a *Admin) follow(w http.ResponseWriter, r *http.Request) error {
	control, started := http.NewResponseController(w), false
	ready := func() {
		started = true
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.WriteHeader(http.StatusOK)
		control.Flush()
	}
	lines := json.NewEncoder(w)
	err := a.Flows.Follow(r.Context(), r.URL.Query().Get("query"), ready, func(f *exitgate.Flow) error {
		if err := lines.Encode(f); err != nil {
			return err
		}
		return control.Flush()
	})
	if started {
		return nil // the client left, or the gateway stops: the end of the stream says it
	}
	return err
}

func (a *Admin) flow(w http.ResponseWriter, r *http.Request) error {
	id, err := exitgate.ParseID(r.PathValue("id"))
	if err != nil {
		return Invalid(err)
	}
	f, err := a.Flows.Flow(r.Context(), id)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, f)
	return nil
}

// A Hypothesis names a request that has not happened, or a flow that has.
type Hypothesis struct {
	Flow   string         `json:"flow,omitempty"`   // ask the question of this flow again; nothing else is set then
	Host   string         `json:"host,omitempty"`   // a host's name
	Class  exitgate.Class `json:"class,omitempty"`  // any host of this class
	Method string         `json:"method,omitempty"` // GET when empty
	URL    string         `json:"url,omitempty"`    // absolute, http or https
}

func (a *Admin) explain(w http.ResponseWriter, r *http.Request) error {
	var h Hypothesis
	if err := decode(w, r, &h); err != nil {
		return err
	}
	q, err := a.question(r, h)
	if err != nil {
		return err
	}
	x, err := a.Explain(r.Context(), q)
	if err != nil {
		return fmt.Errorf("explain: %w", err)
	}
	if accept := r.Header.Get("Accept"); strings.HasPrefix(accept, "text/plain") {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		return x.WriteText(w)
	}
	answer(w, http.StatusOK, x)
	return nil
}

func (a *Admin) question(r *http.Request, h Hypothesis) (*exitgate.Question, error) {
	if h.Flow == "" {
		return a.Imagine(h)
	}
	if err := principal(r).may(mayTrail); err != nil {
		return nil, err // what a flow asked for is in the answer
	}
	if h != (Hypothesis{Flow: h.Flow}) {
		return nil, Invalid(errors.New("explain: give a flow, or a host or class with a URL, not both"))
	}
	id, err := exitgate.ParseID(h.Flow)
	if err != nil {
		return nil, Invalid(err)
	}
	f, err := a.Flows.Flow(r.Context(), id)
	if err != nil {
		return nil, err
	}
	return &f.Question, nil
}

// Imagine makes the question that a request would have put through the explicit proxy.
func (a *Admin) Imagine(h Hypothesis) (*exitgate.Question, error) {
	host, err := a.asker(h)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(h.URL)
	if err != nil {
		return nil, Invalid(fmt.Errorf("explain: read the URL: %w", err))
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, Invalid(fmt.Errorf("explain: %.100q is not an absolute http or https URL", h.URL))
	}
	port := map[string]uint64{"http": 80, "https": 443}[u.Scheme]
	if p := u.Port(); p != "" {
		if port, err = strconv.ParseUint(p, 10, 16); err != nil || port == 0 {
			return nil, Invalid(fmt.Errorf("explain: the port of %.100q is not a number from 1 to 65535", h.URL))
		}
	}
	if h.Method == "" {
		h.Method = http.MethodGet
	}
	dest := exitgate.Destination{Host: strings.TrimSuffix(strings.ToLower(u.Hostname()), "."), Port: uint16(port)}
	return &exitgate.Question{
		Stage: exitgate.StageRequest, At: a.now(), Way: exitgate.WayProxy, Host: host, Dest: dest,
		HTTP: request(u, dest, h.Method),
	}, nil
}

func (a *Admin) asker(h Hypothesis) (exitgate.Host, error) {
	switch {
	case (h.Host == "") == (h.Class == ""):
		return exitgate.Host{}, Invalid(errors.New("explain: name either the host or the class that would ask"))
	case h.Class != "":
		return exitgate.Host{Class: h.Class}, nil
	}
	known, ok := a.HostNamed(h.Host)
	if !ok {
		return exitgate.Host{}, NotFound(fmt.Errorf("explain: no host is named %.100q; exitgate host list names them", h.Host))
	}
	host := exitgate.Host{Name: known.Name, Class: known.Class, By: exitgate.ByToken}
	if len(known.Addresses) > 0 {
		host.Addr, host.By = known.Addresses[0].Addr(), exitgate.ByAddress
	}
	return host, nil
}

func request(u *url.URL, dest exitgate.Destination, method string) *exitgate.Request {
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	authority := dest.String()
	if u.Port() == "" || u.Scheme == "https" && dest.Port == 443 || u.Scheme == "http" && dest.Port == 80 {
		authority = authority[:strings.LastIndexByte(authority, ':')]
	}
	full := u.Scheme + "://" + authority + path
	if u.RawQuery != "" {
		full += "?" + u.RawQuery
	}
	lower := strings.ToLower(path)
	return &exitgate.Request{
		Method: method, Scheme: u.Scheme, URL: full, Path: path, Query: u.RawQuery,
		Headers: map[string][]string{}, Proto: "HTTP/1.1",
		EncodedSlash: strings.Contains(lower, "%2f") || strings.Contains(lower, "%5c"),
	}
}
