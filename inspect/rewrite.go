package inspect

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/exitgate/exitgate"
)

// Rewrite changes a request as its verdict says, and writes into the flow what goes upstream instead of what was judged:
// the question stays as it was. It stands behind the verdict and behind [HopByHop], so that a host cannot have a field
// taken away that the verdict set, and before the record is begun. A rewrite that is not valid refuses: see
// [CheckRewrite] for what is.
type Rewrite struct {
	Redact *Redactor

	mu   sync.RWMutex // guards kept
	kept map[string]built
}

type built struct {
	rewrite *rewrite
	err     error
}

// maxRewrites bounds how many rewrites are kept. A policy has a few; one that makes a new one for each request pays for
// it each time.
const maxRewrites = 256

// ModifyRequest implements martian's RequestModifier.
func (m *Rewrite) ModifyRequest(req *http.Request) error {
	x, q, err := exchange("Rewrite", req)
	if err != nil || len(x.Flow.Verdict.Rewrite) == 0 {
		return err
	}
	w, err := m.build(x.Flow.Verdict.Rewrite)
	if err == nil {
		err = w.apply(req)
	}
	if err != nil {
		return exitgate.NewRefusal(http.StatusServiceUnavailable, exitgate.RulePolicy, "the policy rewrites the request, and its rewrite cannot be used: %v", err)
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header["User-Agent"] = nil // see Headers
	}
	x.Flow.Verdict.Rewrite = w.shown
	x.Flow.Forwarded = m.forwarded(q, req)
	return nil
}

// build returns the rewrite that raw describes, made once.
func (m *Rewrite) build(raw []byte) (*rewrite, error) {
	m.mu.RLock()
	b, ok := m.kept[string(raw)]
	m.mu.RUnlock()
	if ok {
		return b.rewrite, b.err
	}
	b.rewrite, b.err = readRewrite(raw, m.Redact)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.kept == nil || len(m.kept) >= maxRewrites {
		m.kept = map[string]built{}
	}
	if len(raw) <= maxRewrite {
		m.kept[string(raw)] = b
	}
	return b.rewrite, b.err
}

// forwarded is the request as it goes upstream, in the form in which q holds it as it came.
func (m *Rewrite) forwarded(q *exitgate.Request, req *http.Request) *exitgate.Request {
	f := *q
	if req.URL.RawQuery != "" { // else it was not touched, as a rewrite only adds
		f.Query = m.Redact.Query(req.URL.RawQuery)
		f.URL = canonicalURL(&f, req.URL.Host, true)
	}
	f.Headers = m.Redact.fields(req.Header)
	return &f
}

// apply changes req. Where it fails, req may be changed in part, and must not be sent.
func (w *rewrite) apply(req *http.Request) error {
	if err := w.modifier.ModifyRequest(req); err != nil {
		return err
	}
	size := 0
	for name, values := range req.Header {
		for _, v := range values {
			size += len(name) + len(v) + 4
		}
	}
	switch {
	case size > maxRewrittenHead:
		return fmt.Errorf("the header grew to %d bytes, and %d is the most", size, maxRewrittenHead)
	case len(req.URL.RawQuery) > maxRewrittenHead:
		return fmt.Errorf("the query grew to %d bytes, and %d is the most", len(req.URL.RawQuery), maxRewrittenHead)
	}
	return checkQuery(req.URL.RawQuery)
}

// maxRewrittenHead is above what a Screen lets in, so that a rewrite that adds a little can always be applied.
const maxRewrittenHead = 128 << 10

// setQuery sets one parameter of the query and leaves every other byte of it as it came: martian's own modifier decodes
// the query and writes it anew, which sorts it, and drops what it cannot decode.
type setQuery struct{ name, value string }

// ModifyRequest implements martian's RequestModifier.
func (s setQuery) ModifyRequest(req *http.Request) error {
	pair := url.QueryEscape(s.name) + "=" + url.QueryEscape(s.value)
	var out []string
	set := false
	for part := range strings.SplitSeq(req.URL.RawQuery, "&") {
		switch {
		case part == "" && req.URL.RawQuery == "":
		case !s.names(part):
			out = append(out, part)
		case !set:
			out, set = append(out, pair), true
		}
	}
	if !set {
		out = append(out, pair)
	}
	req.URL.RawQuery = strings.Join(out, "&")
	return nil
}

// names reports whether an upstream may read part as the parameter: with its key decoded, or as one of several that
// semicolons part.
func (s setQuery) names(part string) bool {
	for one := range strings.SplitSeq(part, ";") {
		key, _, _ := strings.Cut(one, "=")
		if d, err := url.QueryUnescape(key); err == nil {
			key = d
		}
		if key == s.name {
			return true
		}
	}
	return false
}

// setCookie sets one cookie, in place of any that the host sent by its name.
type setCookie struct{ name, value string }

// ModifyRequest implements martian's RequestModifier.
func (s setCookie) ModifyRequest(req *http.Request) error {
	var kept []string
	for _, line := range req.Header["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			pair = strings.Trim(pair, " \t")
			if name, _, _ := strings.Cut(pair, "="); pair != "" && strings.Trim(name, " \t") != s.name {
				kept = append(kept, pair)
			}
		}
	}
	req.Header["Cookie"] = []string{strings.Join(append(kept, s.name+"="+s.value), "; ")}
	return nil
}

var errOne = errors.New("an element has exactly one of header.Modifier, header.Append, header.Blacklist, querystring.Modifier, cookie.Modifier and fifo.Group")
