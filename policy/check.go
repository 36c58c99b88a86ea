package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/exitgate/exitgate"
)

// A FieldError says which field of a grant or an exemption cannot be, and why.
type FieldError struct {
	What  string // "grant" or "exemption"
	ID    string // "" where that is what is wrong
	Field string // the name that the field has in JSON and YAML
	Err   error
}

func (e *FieldError) Error() string {
	if e.ID == "" {
		return fmt.Sprintf("%s: %s: %v", e.What, e.Field, e.Err)
	}
	return fmt.Sprintf("%s %s: %s: %v", e.What, e.ID, e.Field, e.Err)
}

// Unwrap returns the cause.
func (e *FieldError) Unwrap() error { return e.Err }

// bounds of what a grant may hold. They are far above what a person writes, and keep one grant from costing more
// than a thousand others.
const (
	maxID       = 64
	maxText     = 1000 // bytes of a reason
	maxPorts    = 100
	maxMethods  = 50
	maxPaths    = 1000
	maxPath     = 2000 // bytes of a path
	maxHeaders  = 20
	maxGlob     = 1000           // bytes of a header's glob
	maxExempt   = 2 * 366        // days from making an exemption to its end
	maxMaxBytes = int64(1) << 50 // 1 PiB
	day         = 24 * time.Hour //
	lastYear    = 9999           // RFC 3339 has four digits
	allowAnyOf  = "letters, digits, dot, dash and underscore"
)

// CheckGrant brings g into its one form (lower-case names in ASCII, methods in capitals, masked ranges, paths with
// percent-encodings in capitals) and says with a *FieldError what in it cannot be. It does not look at the clock.
func CheckGrant(g *exitgate.Grant) error {
	wrong := func(field string, err error) error {
		return &FieldError{What: "grant", ID: printable(g.ID), Field: field, Err: err}
	}
	err := firstError([]fieldCheck{
		{"id", func() error { return checkID(g.ID) }},
		{"class", func() error { return checkSubject(g.Class, g.Host) }},
		{"to", func() (err error) { g.To, err = checkTo(g.To); return }},
		{"scheme", func() (err error) { g.Scheme, err = checkScheme(g.Scheme); return }},
		{"ports", func() (err error) { g.Ports, err = checkPorts(g.Ports); return }},
		{"methods", func() (err error) { g.Methods, err = checkMethods(g.Methods); return }},
		{"paths", func() (err error) { g.Paths, err = checkPaths(g.Paths); return }},
		{"headers", func() (err error) { g.Headers, err = checkHeaders(g.Headers); return }},
		{"max_request", func() error { return checkBytes(g.MaxRequest) }},
		{"max_response", func() error { return checkBytes(g.MaxResponse) }},
		{"reason", func() error { return checkReason(g.Reason) }},
		{"by", func() error { return checkText(g.By) }},
		{"until", func() error { return checkTime(g.Until) }},
	}, wrong)
	g.At, g.Until = g.At.UTC(), g.Until.UTC()
	return err
}

// CheckExemption does for an exemption what CheckGrant does for a grant. Its end is mandatory.
func CheckExemption(x *exitgate.Exemption) error {
	wrong := func(field string, err error) error {
		return &FieldError{What: "exemption", ID: printable(x.ID), Field: field, Err: err}
	}
	err := firstError([]fieldCheck{
		{"id", func() error { return checkID(x.ID) }},
		{"class", func() error { return checkSubject(x.Class, x.Host) }},
		{"to", func() (err error) { x.To, err = checkTo(x.To); return }},
		{"ports", func() (err error) { x.Ports, err = checkPorts(x.Ports); return }},
		{"max_bytes", func() error { return checkBytes(x.MaxBytes) }},
		{"reason", func() error { return checkReason(x.Reason) }},
		{"by", func() error { return checkText(x.By) }},
		{"until", func() error {
			if x.Until.IsZero() {
				return errors.New("an exemption says when it ends: what is carried unread is looked at again")
			}
			return checkTime(x.Until)
		}},
	}, wrong)
	x.At, x.Until = x.At.UTC(), x.Until.UTC()
	return err
}

// CheckNewGrant is CheckGrant for a grant that is made at now: its end, if any, lies ahead.
func CheckNewGrant(g *exitgate.Grant, now time.Time) error {
	if err := CheckGrant(g); err != nil {
		return err
	}
	if !g.Until.IsZero() && !g.Until.After(now) {
		return &FieldError{What: "grant", ID: g.ID, Field: "until", Err: fmt.Errorf("%s has passed", g.Until.Format(time.RFC3339))}
	}
	return nil
}

// CheckNewExemption is CheckExemption for an exemption that is made at now: its end lies ahead, and not more than
// two years.
func CheckNewExemption(x *exitgate.Exemption, now time.Time) error {
	err := CheckExemption(x)
	switch {
	case err != nil:
		return err
	case !x.Until.After(now):
		err = fmt.Errorf("%s has passed", x.Until.Format(time.RFC3339))
	case x.Until.After(now.Add(maxExempt * day)):
		err = fmt.Errorf("%s is more than two years away; an exemption is looked at again before that", x.Until.Format(time.RFC3339))
	default:
		return nil
	}
	return &FieldError{What: "exemption", ID: x.ID, Field: "until", Err: err}
}

type fieldCheck struct {
	field string
	check func() error
}

func firstError(checks []fieldCheck, wrong func(string, error) error) error {
	for _, c := range checks {
		if err := c.check(); err != nil {
			return wrong(c.field, err)
		}
	}
	return nil
}

func checkID(id string) error {
	if id == "" || len(id) > maxID || !onlyWord(id) {
		return fmt.Errorf("%.80q: an id has 1 to %d %s", id, maxID, allowAnyOf)
	}
	return nil
}

func checkSubject(class exitgate.Class, host string) error {
	switch {
	case class == "" && host == "":
		return errors.New("name a class of hosts, or under host: one host")
	case class != "" && host != "":
		return errors.New("class and host are both set; it is for one or the other")
	case class == exitgate.ClassUnknown:
		return errors.New("hosts that the gateway does not know are refused whatever is granted; register them under hosts: in the configuration file")
	case class != "" && (len(class) > maxID || !onlyWord(string(class))):
		return fmt.Errorf("%.80q: a class has at most %d %s", class, maxID, allowAnyOf)
	case len(host) > 253 || !onlyWord(host):
		return fmt.Errorf("host %.80q: a host's name has %s", host, allowAnyOf)
	}
	return nil
}

// onlyWord reports whether s holds nothing but letters, digits, dot, dash and underscore.
func onlyWord(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isLetterOrDigit(c) && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

func isLetterOrDigit(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func checkScheme(s string) (string, error) {
	switch s = strings.ToLower(s); s {
	case "", "https", "http", "any":
		return s, nil
	}
	return s, fmt.Errorf("%.40q: it is one of https, http, any", s)
}

func checkPorts(ports []uint16) ([]uint16, error) {
	if len(ports) > maxPorts {
		return ports, fmt.Errorf("%d ports; at most %d", len(ports), maxPorts)
	}
	if slices.Contains(ports, 0) {
		return ports, errors.New("0: a port is 1 to 65535")
	}
	ports = slices.Clone(ports)
	slices.Sort(ports)
	return slices.Compact(ports), nil
}

func checkMethods(methods []string) ([]string, error) {
	if len(methods) > maxMethods {
		return methods, fmt.Errorf("%d methods; at most %d", len(methods), maxMethods)
	}
	out := make([]string, 0, len(methods))
	for _, m := range methods {
		m = strings.ToUpper(m)
		switch {
		case m == "*" && len(methods) > 1:
			return methods, errors.New(`"*" means any method and stands alone`)
		case m == "*":
		case !isToken(m) || len(m) > 40:
			return methods, fmt.Errorf("%.40q is no HTTP method", m)
		case m == "CONNECT":
			return methods, errors.New("CONNECT is granted with every grant that reaches the destination, and not by itself")
		}
		out = append(out, m)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// isToken reports whether s is a token of RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		if !isLetterOrDigit(s[i]) && strings.IndexByte("!#$%&'*+-.^_`|~", s[i]) < 0 {
			return false
		}
	}
	return s != ""
}

func checkHeaders(headers map[string]string) (map[string]string, error) {
	if len(headers) > maxHeaders {
		return headers, fmt.Errorf("%d conditions; at most %d", len(headers), maxHeaders)
	}
	out := make(map[string]string, len(headers))
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		glob, low := headers[name], strings.ToLower(name)
		switch {
		case !isToken(name):
			return headers, fmt.Errorf("%.80q is no header's name", name)
		case low == "host":
			return headers, errors.New(`"host" is the destination, which to: says`)
		case glob == "":
			return headers, fmt.Errorf(`%s: a pattern is not empty; "*" matches any value`, low)
		case len(glob) > maxGlob || !isText(glob):
			return headers, fmt.Errorf("%s: a pattern has at most %d bytes and no control characters", low, maxGlob)
		}
		if _, twice := out[low]; twice {
			return headers, fmt.Errorf("%s is there twice", low)
		}
		out[low] = glob
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, nil
}

func checkBytes(n int64) error {
	if n < 0 || n > maxMaxBytes {
		return fmt.Errorf("%d: it is a number of bytes, 0 for the gateway's default", n)
	}
	return nil
}

func checkReason(s string) error {
	if strings.TrimSpace(s) == "" {
		return errors.New("say why: whoever reviews it later was not there")
	}
	return checkText(s)
}

func checkText(s string) error {
	if len(s) > maxText || !isText(s) {
		return fmt.Errorf("it has at most %d bytes of text on one line", maxText)
	}
	return nil
}

func checkTime(t time.Time) error {
	if t.UTC().Year() > lastYear {
		return fmt.Errorf("the year %d has more than four digits", t.Year())
	}
	return nil
}

// isText reports whether s is UTF-8 without control characters, C1 and the marks that turn the direction of writing
// included: reasons are printed on terminals.
func isText(s string) bool {
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return false
		}
	}
	return utf8.ValidString(s)
}

// printable returns an id as an error may show it.
func printable(id string) string {
	if checkID(id) != nil {
		return ""
	}
	return id
}
