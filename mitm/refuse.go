package mitm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/exitgate/exitgate"
)

// RefusalText says what refused clients are told to do.
type RefusalText struct {
	Connect ConnectRefusal
	// Command is how operators call this gateway's command, with the flags it needs; nil: exitgate.
	Command []string
	// Request is how people on a host that was refused call theirs, to ask for a grant; nil: exitgate. Empty and not
	// nil, nobody can ask.
	Request []string
}

// ConnectRefusal says where a refused CONNECT is answered.
type ConnectRefusal string

// Where a refused CONNECT is answered.
const (
	RefuseAuto    ConnectRefusal = ""        // inside for hosts that are known, outside for others
	RefuseInside  ConnectRefusal = "inside"  // in the tunnel: the client shows the whole answer, if it trusts the CA
	RefuseOutside ConnectRefusal = "outside" // as the answer to CONNECT, of which most clients show the status only
)

// A notice is one answer that the gateway gives in place of an upstream: a refusal, a fault, or its own failure.
// All of them are made and rendered in this file.
type notice struct {
	Status int    `json:"status"`
	Type   string `json:"type"`  // urn:exitgate:refused, :fault, :bug
	Title  string `json:"title"` // the same for each type
	Detail string `json:"detail"`
	Rule   string `json:"rule,omitempty"`
	Step   string `json:"step,omitempty"` // of a fault
	// Summary is one line for clients that show one line: npm prints the field error of a JSON answer, go the
	// first line of a text.
	Summary   string `json:"error"`
	ErrorType string `json:"error_type"` // of RFC 9209
	Flow      string `json:"flow"`
	Gateway   string `json:"gateway"`
	Revision  string `json:"revision,omitempty"` // of the policy
	Host      string `json:"host"`
	Class     string `json:"class"`
	Method    string `json:"method,omitempty"`
	URL       string `json:"url,omitempty"`
	Request   string `json:"request,omitempty"` // the command by which the one who was refused asks for exactly this
	Grant     string `json:"grant,omitempty"`   // the command by which an operator grants it
	Explain   string `json:"explain"`           // the command that explains this flow
}

// noticeFor says what is wrong and what to do, by the type of err.
func (p *Proxy) noticeFor(x *exchange, err error) notice {
	f := &x.flow
	q := &f.Question
	n := notice{Flow: f.ID.String(), Gateway: p.Gateway, Revision: f.Verdict.Revision,
		Host: q.Host.Name, Class: string(q.Host.Class), Explain: p.command("explain", f.ID.String())}
	if n.Host == "" {
		n.Host = q.Host.Addr.String()
	}
	if q.HTTP != nil && q.HTTP.URL != "" {
		n.Method, n.URL = q.HTTP.Method, q.HTTP.URL
	} else if q.Dest.Port != 0 {
		n.Method, n.URL = http.MethodConnect, q.Dest.String()
	}
	var r *exitgate.Refusal
	var fault *exitgate.Fault
	switch {
	case errors.As(err, &r):
		n.Type, n.Title = "urn:exitgate:refused", "exitgate refused this request"
		n.Status, n.Rule, n.Detail = or(r.Status, http.StatusForbidden), r.Verdict.Rule, r.Verdict.Reason
		n.ErrorType = refusalError(r)
		if grantable(r) && q.Host.Class != exitgate.ClassUnknown {
			n.Request, n.Grant = p.requestCommand(n.Flow), p.grantCommand(q)
		}
	case errors.As(err, &fault):
		n.Type, n.Title = "urn:exitgate:fault", "exitgate could not reach the destination"
		n.Status, n.Step, n.Detail, n.ErrorType = faultStatus(fault), fault.Step, fault.Reason, fault.Type
	default:
		n.Type, n.Title = "urn:exitgate:bug", "exitgate failed"
		n.Status, n.ErrorType = http.StatusInternalServerError, "proxy_internal_error"
		n.Detail = "an error inside the gateway ended this request; its log and the flow have the cause"
	}
	n.Summary = n.Title + ": " + n.Detail + " (flow " + n.Flow + ")"
	return n
}

func refusalError(r *exitgate.Refusal) string {
	switch r.Verdict.Rule {
	case exitgate.RuleMalformed:
		return "http_request_error"
	case exitgate.RuleAddress:
		return "destination_ip_prohibited"
	case exitgate.RuleLoop:
		return "proxy_loop_detected"
	case exitgate.RulePolicy, exitgate.RuleRecord:
		return "proxy_internal_error"
	case exitgate.RuleOverload:
		return "connection_limit_reached"
	}
	return "http_request_denied"
}

func faultStatus(f *exitgate.Fault) int {
	switch f.Type {
	case "connection_timeout", "dns_timeout", "http_response_timeout", "connection_read_timeout", "connection_write_timeout":
		if f.Step == "client" {
			return http.StatusRequestTimeout
		}
		return http.StatusGatewayTimeout
	}
	return http.StatusBadGateway
}

// grantable reports whether a grant could change the answer: the policy gave it, and not a law of the gateway.
func grantable(r *exitgate.Refusal) bool {
	return r.Status == 0 && !strings.HasPrefix(r.Verdict.Rule, "exitgate:")
}

// requestCommand is the command that asks for what was refused, by its flow. It has nothing of what the host sent in it.
func (p *Proxy) requestCommand(flow string) string {
	words := p.Refusals.Request
	switch {
	case words == nil:
		words = []string{"exitgate"}
	case len(words) == 0:
		return ""
	}
	return shellLine(words, "request", "--reason", "WHY", flow)
}

// grantCommand is the command that grants exactly what was asked, and no more. It is "" where nothing can be
// granted: what is not in canonical form is refused before it is judged.
func (p *Proxy) grantCommand(q *exitgate.Question) string {
	subject := []string{"--class", string(q.Host.Class)}
	if q.Host.Class == "" {
		return ""
	}
	if q.HTTP == nil || q.HTTP.Path == "" {
		if q.Dest.Port == 0 {
			return ""
		}
		return p.command(append(append([]string{"grant", "add"}, subject...), "--reason", "WHY", "https://"+q.Dest.String()+"/")...)
	}
	args := append([]string{"grant", "add"}, subject...)
	args = append(args, "--method", q.HTTP.Method, "--reason", "WHY")
	if q.HTTP.EncodedSlash {
		args = append(args, "--encoded-slash")
	}
	target, _, _ := strings.Cut(q.HTTP.URL, "?")
	if strings.HasSuffix(target, "/*") || strings.Contains(target, "/*/") {
		return "" // in a grant, such a segment stands for any
	}
	return p.command(append(args, target)...)
}

// command renders a command line of the operator's.
func (p *Proxy) command(args ...string) string {
	if p.Refusals.Command == nil {
		return shellLine([]string{"exitgate"}, args...)
	}
	return shellLine(p.Refusals.Command, args...)
}

// shellLine renders a command line for a POSIX shell. Every word that holds more than the plainest characters is
// in single quotes, as the client's bytes are in it.
func shellLine(words []string, args ...string) string {
	var b strings.Builder
	for i, a := range append(words[:len(words):len(words)], args...) {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(shellWord(a))
	}
	return b.String()
}

func shellWord(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=,@") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// refuseRequest answers a request that is not carried, and accounts for it: the record is begun first, so that
// even a refusal that is cut off is known.
func (p *Proxy) refuseRequest(w http.ResponseWriter, r *http.Request, x *exchange, err error) {
	x.settled()
	x.blame(err)
	if berr := p.begin(r.Context(), x); berr != nil {
		err = berr
		x.blame(err)
	}
	x.flow.Status = p.answer(w, r, p.noticeFor(x, err))
	if f := x.flow.Fault; f != nil && f.Type == "client_gone" || x.s.dismissed.Load() != nil {
		x.flow.Status = 0 // nobody was there to get it
	}
	var b *exitgate.Bug
	if errors.As(err, &b) {
		p.log().Error("a step failed; the request was answered with 500", "flow", x.flow.ID.String(), "err", b, "stack", string(b.Stack))
	}
	p.end(context.WithoutCancel(r.Context()), x)
}

// answer renders n in the form that the client asked for and returns the status it wrote.
func (p *Proxy) answer(w http.ResponseWriter, r *http.Request, n notice) int {
	h := w.Header()
	clear(h)
	h.Set("Proxy-Status", p.proxyStatus(n))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	switch n.Status {
	case http.StatusProxyAuthRequired:
		h.Set("Proxy-Authenticate", `Basic realm="exitgate host token"`)
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		h.Set("Retry-After", "5")
	}
	contentType, body := renderNotice(n, r.Header.Get("Accept"), r.Header.Get("Content-Type"))
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if strings.HasPrefix(contentType, "text/html") {
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	}
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(10 * time.Second))
	w.WriteHeader(n.Status)
	if r.Method != http.MethodHead {
		w.Write(body)
	}
	http.NewResponseController(w).SetWriteDeadline(time.Time{})
	return n.Status
}

// proxyStatus renders the field of RFC 9209. Details are a quoted string of printable ASCII.
func (p *Proxy) proxyStatus(n notice) string {
	details := n.Detail
	if n.Rule != "" {
		details = n.Rule + ": " + details
	}
	var b strings.Builder
	for _, c := range details {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c >= ' ' && c <= '~':
			b.WriteRune(c)
		default:
			b.WriteByte('?')
		}
		if b.Len() > 500 {
			b.WriteString("...")
			break
		}
	}
	return fmt.Sprintf(`%s; error=%s; details="%s"; flow="%s"`, p.Gateway, n.ErrorType, b.String(), n.Flow)
}

// renderNotice chooses by Accept: JSON (RFC 9457) for programs that ask for it, HTML for browsers, text for
// everything else.
func renderNotice(n notice, accept, contentType string) (string, []byte) {
	switch {
	case wants(accept, "text/html"):
		var b strings.Builder
		if err := noticePage.Execute(&b, n); err == nil {
			return "text/html; charset=utf-8", []byte(b.String())
		}
	case wants(accept, "json") || !strings.Contains(accept, "text/") && strings.Contains(contentType, "json"):
		if b, err := json.MarshalIndent(n, "", "  "); err == nil {
			return "application/problem+json", append(b, '\n')
		}
	}
	return "text/plain; charset=utf-8", []byte(n.text())
}

func wants(accept, what string) bool { return strings.Contains(strings.ToLower(accept), what) }

// text is the notice for a terminal.
func (n notice) text() string {
	var b strings.Builder
	line := func(k, v string) {
		if v != "" {
			fmt.Fprintf(&b, "  %-8s %s\n", k, printable(v))
		}
	}
	b.WriteString(n.Title + ": " + printable(n.Detail) + "\n\n")
	if n.URL != "" {
		line("request", n.Method+" "+n.URL)
	}
	line("host", n.Host+" (class "+n.Class+")")
	line("rule", n.Rule)
	if n.Step != "" {
		line("step", n.Step+" ("+n.ErrorType+")")
	}
	line("flow", n.Flow)
	if n.Type == "urn:exitgate:fault" {
		b.WriteString("\nThis is not a refusal: the policy allows the request.\n")
	}
	for _, c := range [...][2]string{{"To ask for exactly this", n.Request}, {"To grant exactly this, as an operator", n.Grant}, {"To see why", n.Explain}} {
		if c[1] != "" {
			b.WriteString("\n" + c[0] + ":\n\n  " + c[1] + "\n")
		}
	}
	return b.String()
}

// printable replaces what could steer a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == utf8.RuneError || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '?'
		}
		return r
	}, s)
}

var noticePage = template.Must(template.New("notice").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Title}}</title>
<style>
:root { color-scheme: light dark; --ink: #1c2024; --dim: #60646c; --line: #d9d9e0; --paper: #fcfcfd; --box: #f0f0f3; --mark: #b42318 }
@media (prefers-color-scheme: dark) { :root { --ink: #edeef0; --dim: #b0b4ba; --line: #363a3f; --paper: #111113; --box: #1d1f22; --mark: #ff8b7b } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 44rem; margin: 12vh auto 4rem; padding: 0 1.5rem }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .5rem; letter-spacing: -.01em }
h1::before { content: ""; display: inline-block; width: .7em; height: .7em; margin-right: .5em; border-radius: 2px; background: var(--mark) }
.fault h1::before { border-radius: 50%; background: none; box-shadow: inset 0 0 0 .18em var(--mark) }
p { margin: 0 0 1.5rem; overflow-wrap: anywhere }
dl { display: grid; grid-template-columns: 6rem 1fr; gap: .25rem 1rem; margin: 0 0 1.5rem; padding: 1rem 0; border: solid var(--line); border-width: 1px 0 }
dt { color: var(--dim) } dd { margin: 0; overflow-wrap: anywhere }
h2 { font-size: 1rem; margin: 0 0 .5rem }
pre { margin: 0 0 1.5rem; padding: .75rem 1rem; background: var(--box); border-radius: 6px; white-space: pre-wrap; overflow-wrap: anywhere; font: .875rem/1.5 ui-monospace, monospace; user-select: all }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr } dt { margin-top: .5rem } }
</style>
<main{{if .Step}} class="fault"{{end}}>
<h1>{{.Title}}</h1>
<p>{{.Detail}}</p>
<dl>
{{with .URL}}<dt>Request<dd>{{$.Method}} {{.}}{{end}}
<dt>Host<dd>{{.Host}} (class {{.Class}})
{{with .Rule}}<dt>Rule<dd>{{.}}{{end}}
{{with .Step}}<dt>Step<dd>{{.}} ({{$.ErrorType}}){{end}}
<dt>Flow<dd>{{.Flow}}
<dt>Gateway<dd>{{.Gateway}}
</dl>
{{if .Step}}<p>This is not a refusal: the policy allows the request.</p>{{end}}
{{with .Request}}<h2>To ask for exactly this</h2><pre>{{.}}</pre>{{end}}
{{with .Grant}}<h2>To grant exactly this, as an operator</h2><pre>{{.}}</pre>{{end}}
<h2>To see why</h2><pre>{{.Explain}}</pre>
</main>
</html>
`))

// refuseScreened answers, on the wire itself, a request that is too broken to reach a handler, and accounts for
// it.
func (p *Proxy) refuseScreened(c *screened, r *exitgate.Refusal) {
	x := p.newFlow(c.l.s, exitgate.KindRequest)
	q := &x.flow.Question
	q.Stage = exitgate.StageRequest
	x.blame(r)
	ctx := context.WithoutCancel(p.base)
	if err := p.begin(ctx, x); err != nil {
		x.blame(err)
	}
	n := p.noticeFor(x, r)
	x.flow.Status = n.Status
	body := n.text()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	fmt.Fprintf(c.Conn, "HTTP/1.1 %d %s\r\nProxy-Status: %s\r\nContent-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
		n.Status, http.StatusText(n.Status), p.proxyStatus(n), len(body), body)
	c.CloseWrite()
	p.end(ctx, x) // before the client is waited for, which may take its time
	discard(c.Conn, 1<<20)
}
