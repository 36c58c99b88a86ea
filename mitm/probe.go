package mitm

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/exitgate/exitgate"
)

// RuleProbe is the rule of requests for the probe name, which the engine answers itself: no policy is asked for them,
// nothing is resolved, and nothing leaves.
const RuleProbe = "exitgate:probe"

// ProbeName is the name under which the engine answers, unless Proxy.Probe says another.
const ProbeName = "probe.exitgate.internal"

// isProbe reports whether d is the engine itself, on whatever port.
func (p *Proxy) isProbe(d exitgate.Destination) bool {
	return d.Host != "" && d.Host == or(p.Probe, ProbeName)
}

// probeVerdict allows what goes no further than the engine.
func (p *Proxy) probeVerdict() exitgate.Verdict {
	return exitgate.Verdict{Action: exitgate.Allow, Rule: RuleProbe, Reason: "the gateway answers this name itself"}
}

// mayProbe drops err where all that is wrong with a host is that nobody knows it: such a host, too, may learn what the
// gateway takes it for. What it is then let near is the probe, or nothing: see askProbe.
func mayProbe(x *exchange, err error) error {
	if owed := new(noToken); errors.As(err, &owed) {
		x.owed = owed.Refusal
		return nil
	}
	return err
}

// askProbe stands in the policy's place for the probe name. Asked says that the request was for it. A request that is
// for the probe in one place and for another destination in the other is refused, whatever let it come here, as is one
// that was let in only to reach the probe.
func (p *Proxy) askProbe(x *exchange) (asked bool, err error) {
	probe := p.isProbe(x.flow.Question.Dest)
	t := x.s.tunnel
	switch {
	case t != nil && p.isProbe(t.dest) != probe:
		return true, exitgate.NewRefusal(0, exitgate.RuleAuthority, "the tunnel is for %s and the request in it for %s", t.dest, x.flow.Question.Dest)
	case !probe && x.owed != nil:
		return true, x.owed
	case !probe:
		return false, nil
	}
	x.flow.Verdict = p.probeVerdict()
	x.asked, x.probe = true, true
	return true, nil
}

// A probed answer says what the gateway takes a host for.
type probed struct {
	Gateway string         `json:"gateway"`
	Host    string         `json:"host"` // "" when unknown
	Class   exitgate.Class `json:"class"`
	By      string         `json:"by"` // how the host is known: address, token, certificate; "" it is not
	Way     exitgate.Way   `json:"way"`
	Source  string         `json:"source"` // the address that the connection comes from
	TLS     string         `json:"tls"`    // version, inside the tunnel; "" plain text
	Time    time.Time      `json:"time"`
	Flow    string         `json:"flow"`
}

func (d probed) text() string {
	var b strings.Builder
	for _, l := range [...][2]string{
		{"gateway", d.Gateway}, {"host", or(d.Host, "unknown")}, {"class", string(d.Class)}, {"known by", or(d.By, "nothing")},
		{"way in", string(d.Way)}, {"source", d.Source}, {"tls", or(d.TLS, "none")}, {"time", d.Time.Format(time.RFC3339)}, {"flow", d.Flow},
	} {
		fmt.Fprintf(&b, "%-9s %s\n", l[0], printable(l[1]))
	}
	return b.String()
}

// answerProbe answers a request for the probe name.
func (p *Proxy) answerProbe(a *answer) error {
	f := &a.x.flow
	q := &f.Question
	status, contentType, body := http.StatusOK, "text/plain; charset=utf-8", []byte(nil)
	d := probed{p.Gateway, q.Host.Name, q.Host.Class, q.Host.By, q.Way, q.Host.Addr.String(), f.Client.TLS, f.Begin.Truncate(time.Second), f.ID.String()}
	switch {
	case a.r.Method != http.MethodGet && a.r.Method != http.MethodHead:
		status, body = http.StatusMethodNotAllowed, []byte("the gateway answers GET here\n")
		a.w.Header().Set("Allow", "GET, HEAD")
	case q.HTTP.Path != "/":
		status, body = http.StatusNotFound, []byte("the gateway answers / here\n")
	case wants(a.r.Header.Get("Accept"), "json"):
		contentType = "application/json"
		b, err := json.MarshalIndent(d, "", "  ")
		if err != nil {
			return &exitgate.Bug{Step: "probe", Err: err}
		}
		body = append(b, '\n')
	default:
		body = []byte(d.text())
	}
	h := a.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	f.Status, a.started = status, true
	http.NewResponseController(a.w).SetWriteDeadline(time.Now().Add(10 * time.Second))
	defer http.NewResponseController(a.w).SetWriteDeadline(time.Time{})
	a.w.WriteHeader(status)
	if a.r.Method == http.MethodHead {
		return nil
	}
	if _, err := a.w.Write(body); err != nil {
		return &exitgate.Fault{Step: "client", Type: "client_gone", Reason: "the host stopped reading the answer: " + err.Error(), Err: err}
	}
	return nil
}
