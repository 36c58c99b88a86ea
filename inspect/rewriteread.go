package inspect

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/google/martian/v3"
	"github.com/google/martian/v3/fifo"
	"github.com/google/martian/v3/header"
)

// A rewrite is one that was read: what it does, and itself as it may be kept.
type rewrite struct {
	modifier martian.RequestModifier
	shown    json.RawMessage
}

// rewriteJSON is one element of martian's JSON, of which these are taken. All concern requests.
type rewriteJSON struct {
	Set    *pairJSON  `json:"header.Modifier,omitempty"`
	Append *pairJSON  `json:"header.Append,omitempty"`
	Remove *namesJSON `json:"header.Blacklist,omitempty"`
	Query  *pairJSON  `json:"querystring.Modifier,omitempty"`
	Cookie *pairJSON  `json:"cookie.Modifier,omitempty"`
	Group  *groupJSON `json:"fifo.Group,omitempty"`
}

type pairJSON struct {
	Scope []string `json:"scope,omitempty"`
	Name  string   `json:"name"`
	Value string   `json:"value"`
}

type namesJSON struct {
	Scope []string `json:"scope,omitempty"`
	Names []string `json:"names"`
}

type groupJSON struct {
	Scope     []string      `json:"scope,omitempty"`
	Modifiers []rewriteJSON `json:"modifiers"`
}

// The bounds of a rewrite.
const (
	maxRewrite      = 16 << 10 // bytes of JSON
	maxRewriteParts = 64       // elements, groups included
	maxRewriteDepth = 4        // of groups
	maxRewriteValue = 4 << 10  // bytes of one value
)

// CheckRewrite reports what is wrong with a rewrite. It is martian's JSON: one of header.Modifier, header.Append,
// header.Blacklist, querystring.Modifier and cookie.Modifier, or a fifo.Group of such, with the scope "request" or none.
// A field that does not exist is an error, where martian's own parser reads over it. The authority, framing, the
// connection, what describes the body and Via are out of its reach.
func CheckRewrite(raw []byte) error {
	_, err := readRewrite(raw, NewRedactor(nil, Secrets{}))
	return err
}

func readRewrite(raw []byte, redact *Redactor) (*rewrite, error) {
	if len(raw) > maxRewrite {
		return nil, fmt.Errorf("it has %d bytes, and %d is the most", len(raw), maxRewrite)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	var j rewriteJSON
	if err := d.Decode(&j); err != nil {
		return nil, fmt.Errorf("it is not what it should be: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something stands behind it")
	}
	b := &rewriteBuilder{redact: redact}
	m, err := b.build(&j, 0)
	if err != nil {
		return nil, err
	}
	shown, err := json.Marshal(&j)
	if err != nil {
		return nil, err
	}
	return &rewrite{m, shown}, nil
}

// A rewriteBuilder makes modifiers, and takes secrets out of what it made them from.
type rewriteBuilder struct {
	redact *Redactor
	parts  int
}

func (b *rewriteBuilder) build(j *rewriteJSON, depth int) (martian.RequestModifier, error) {
	if b.parts++; b.parts > maxRewriteParts {
		return nil, fmt.Errorf("it has more than %d elements", maxRewriteParts)
	}
	n := 0
	for _, there := range [...]bool{j.Set != nil, j.Append != nil, j.Remove != nil, j.Query != nil, j.Cookie != nil, j.Group != nil} {
		if there {
			n++
		}
	}
	switch {
	case n != 1:
		return nil, errOne
	case j.Set != nil:
		return b.field("header.Modifier", j.Set, false)
	case j.Append != nil:
		return b.field("header.Append", j.Append, true)
	case j.Remove != nil:
		return b.remove(j.Remove)
	case j.Query != nil:
		return b.query(j.Query)
	case j.Cookie != nil:
		return b.cookie(j.Cookie)
	}
	return b.group(j.Group, depth)
}

func (b *rewriteBuilder) group(g *groupJSON, depth int) (martian.RequestModifier, error) {
	if err := checkScope("fifo.Group", g.Scope); err != nil {
		return nil, err
	}
	if depth++; depth > maxRewriteDepth {
		return nil, fmt.Errorf("groups are nested more than %d deep", maxRewriteDepth)
	}
	out := fifo.NewGroup()
	for i := range g.Modifiers {
		m, err := b.build(&g.Modifiers[i], depth)
		if err != nil {
			return nil, err
		}
		out.AddRequestModifier(m)
	}
	return out, nil
}

func (b *rewriteBuilder) field(what string, j *pairJSON, more bool) (martian.RequestModifier, error) {
	err := errors.Join(checkScope(what, j.Scope), checkField(j.Name), checkValue(j.Name, j.Value))
	name, value := http.CanonicalHeaderKey(j.Name), j.Value
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", what, err)
	case more && (single(name) || name == "Cookie"):
		return nil, fmt.Errorf("%s: %s may stand only once", what, name)
	}
	j.Value = b.redact.Header(strings.ToLower(name), value)
	if more {
		return header.NewAppendModifier(name, value), nil
	}
	return header.NewModifier(name, value), nil
}

func (b *rewriteBuilder) remove(j *namesJSON) (martian.RequestModifier, error) {
	err := checkScope("header.Blacklist", j.Scope)
	if len(j.Names) == 0 {
		err = errors.New("it names no field")
	}
	for _, n := range j.Names {
		err = errors.Join(err, checkField(n))
	}
	if err != nil {
		return nil, fmt.Errorf("header.Blacklist: %w", err)
	}
	return header.NewBlacklistModifier(j.Names...), nil
}

func (b *rewriteBuilder) query(j *pairJSON) (martian.RequestModifier, error) {
	err := errors.Join(checkScope("querystring.Modifier", j.Scope), checkValue(j.Name, j.Value))
	if j.Name == "" || !utf8.ValidString(j.Name) || len(j.Name) > 256 {
		err = errors.New("the name of a parameter has 1 to 256 bytes of UTF-8")
	}
	if err != nil {
		return nil, fmt.Errorf("querystring.Modifier: %w", err)
	}
	m := setQuery{j.Name, j.Value}
	if b.redact.secretKey(j.Name) {
		j.Value = b.redact.Fingerprint(j.Value)
	}
	return m, nil
}

func (b *rewriteBuilder) cookie(j *pairJSON) (martian.RequestModifier, error) {
	err := checkScope("cookie.Modifier", j.Scope)
	switch {
	case j.Name == "" || firstBad([]byte(j.Name), isToken) >= 0:
		err = fmt.Errorf("%.80q is no name of a cookie", j.Name)
	case len(j.Value) > maxRewriteValue || strings.ContainsFunc(j.Value, func(r rune) bool { // RFC 6265, section 4.1.1
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`",;\`, r)
	}):
		err = fmt.Errorf("the value of cookie %.80q has what a cookie cannot have, or more than %d bytes", j.Name, maxRewriteValue)
	}
	if err != nil {
		return nil, fmt.Errorf("cookie.Modifier: %w", err)
	}
	m := setCookie{j.Name, j.Value}
	j.Value = b.redact.Fingerprint(j.Value)
	return m, nil
}

func checkScope(what string, scope []string) error {
	if len(scope) == 0 || len(scope) == 1 && scope[0] == "request" {
		return nil
	}
	return fmt.Errorf("the scope of %s is %.80q; only requests are rewritten", what, scope)
}

// checkField refuses the names of fields that a rewrite may not touch.
func checkField(name string) error {
	switch low := http.CanonicalHeaderKey(name); {
	case name == "" || len(name) > 256 || firstBad([]byte(name), isToken) >= 0:
		return fmt.Errorf("%.80q is no name of a field", name)
	case hopByHop(low), low == "Via", low == "Expect", low == "Max-Forwards", strings.HasPrefix(low, "Content-"), strings.HasPrefix(low, "Sec-Websocket-"):
		return fmt.Errorf("%s may not be rewritten: it belongs to the connection, the framing, the body or the path of the request", low)
	}
	return nil
}

func checkValue(name, v string) error {
	switch {
	case len(v) > maxRewriteValue:
		return fmt.Errorf("the value of %.80q has %d bytes, and %d is the most", name, len(v), maxRewriteValue)
	case v != trimBlanks(v), firstBad([]byte(v), isValue) >= 0, !utf8.ValidString(v):
		return fmt.Errorf("the value of %.80q begins or ends with a blank, holds a control character, or is not UTF-8", name)
	}
	return nil
}
