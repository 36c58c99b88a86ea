package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate"
)

func flowsShowCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "show FLOW",
		Short: "Show all that is known of one flow",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			f := new(exitgate.Flow)
			if err := dial(c).call(c.Context(), http.MethodGet, "flows/"+url.PathEscape(args[0]), nil, f); err != nil {
				return err
			}
			w := c.OutOrStdout()
			switch output {
			case "json":
				e := json.NewEncoder(w)
				e.SetIndent("", "  ")
				return e.Encode(f)
			case "text":
				page{w, styleFor(w), "exitgate" + dataFlag(dataDir(c))}.flow(f)
				return nil
			}
			return usage(c, fmt.Errorf("-o %q: it is text or json", output))
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return c
}

// A page prints one flow for reading: what is absent is left out.
type page struct {
	w       io.Writer
	style   style
	command string // how exitgate is called for this gateway
}

func (p page) head(title string) { fmt.Fprintf(p.w, "\n%s\n", p.style.bold(title)) }

func (p page) line(name, format string, args ...any) {
	if text := fmt.Sprintf(format, args...); text != "" {
		fmt.Fprintf(p.w, "  %-14s %s\n", name, text)
	}
}

func (p page) flow(f *exitgate.Flow) {
	fmt.Fprintf(p.w, "%s  %s  %s\n", f.ID, p.style.outcome(outcomeWord(f)), plain(strings.TrimSpace(methodIf(f)+" "+whatText(f))))
	p.verdict(f)
	p.when(f)
	p.who(f)
	p.where(f)
	p.http(f)
	p.carried(f)
	for _, x := range f.Findings {
		p.line("finding", "%s in %s: %s", plain(x.Inspector), plain(x.Where), plain(x.What))
	}
	fmt.Fprintf(p.w, "\n%s\n", p.style.dim(p.command+" explain "+f.ID.String()+"   says how policy answers this now"))
}

func methodIf(f *exitgate.Flow) string {
	if f.Question.HTTP == nil {
		return ""
	}
	return f.Question.HTTP.Method
}

func (p page) verdict(f *exitgate.Flow) {
	p.head("Verdict")
	p.line("action", "%s", f.Verdict.Action)
	p.line("rule", "%s", plain(f.Verdict.Rule))
	p.line("reason", "%s", plain(f.Verdict.Reason))
	if f.Verdict.Audit {
		p.line("audit", "policy would refuse this; it was carried because the class or grant is in audit mode")
	}
	p.line("revision", "%s", plain(f.Verdict.Revision))
	if f.Fault != nil {
		p.line("fault", "%s failed: %s (%s)", plain(f.Fault.Step), plain(f.Fault.Reason), plain(f.Fault.Type))
	}
	if f.Interrupted {
		p.line("interrupted", "the gateway ended before the flow did")
	}
}

func (p page) when(f *exitgate.Flow) {
	p.head("Time")
	p.line("begin", "%s", f.Begin.Local().Format("2006-01-02 15:04:05.000 -0700"))
	if f.End.IsZero() {
		p.line("end", "still open")
		return
	}
	p.line("took", "%s", tookText(f.End.Sub(f.Begin)))
	var parts []string
	for _, ph := range []struct {
		name string
		took time.Duration
	}{{"resolve", f.Phases.Resolve}, {"connect", f.Phases.Connect}, {"TLS", f.Phases.TLS}, {"wait", f.Phases.Wait}} {
		if ph.took > 0 {
			parts = append(parts, ph.name+" "+tookText(ph.took))
		}
	}
	p.line("of which", "%s", strings.Join(parts, ", "))
}

func (p page) who(f *exitgate.Flow) {
	h := f.Question.Host
	p.head("Host")
	p.line("name", "%s", plain(h.Name))
	p.line("class", "%s", plain(string(h.Class)))
	p.line("address", "%s", h.Addr)
	by := h.By
	if by == "" {
		by = "nothing: it is not known"
	}
	p.line("known by", "%s", plain(by))
	p.line("way in", "%s", plain(string(f.Question.Way)))
	p.line("protocol", "%s", sideText(f.Client))
	if t := f.Question.TLS; t != nil {
		p.line("JA4", "%s", plain(t.JA4))
		if t.ECH {
			p.line("ECH", "the hello holds an encrypted one")
		}
	}
}

func sideText(s exitgate.Side) string {
	parts := []string{s.Proto}
	if s.TLS != "" {
		parts = append(parts, "TLS "+s.TLS)
	}
	if s.ALPN != "" {
		parts = append(parts, "ALPN "+s.ALPN)
	}
	return plain(strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", "))
}

func (p page) where(f *exitgate.Flow) {
	p.head("Destination")
	p.line("asked for", "%s", plain(f.Question.Dest.String()))
	p.line("CONNECT", "%s", plain(f.Authority.Connect))
	p.line("SNI", "%s", plain(f.Authority.SNI))
	p.line("Host", "%s", plain(f.Authority.Host))
	if f.Authority.Dialled.IsValid() {
		p.line("dialled", "%s", f.Authority.Dialled)
	}
	p.line("protocol", "%s", sideText(f.Upstream))
	p.line("certificate", "%s", plain(prefixed("SHA-256 ", f.UpstreamCert)))
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func (p page) http(f *exitgate.Flow) {
	if r := f.Question.HTTP; r != nil {
		p.head("Request")
		fmt.Fprintf(p.w, "  %s\n", plain(r.Method+" "+r.URL+" "+r.Proto))
		p.headers(r.Headers)
	}
	if f.Status == 0 {
		return
	}
	p.head("Response")
	fmt.Fprintf(p.w, "  %s\n", strings.TrimSpace(fmt.Sprintf("%d %s", f.Status, http.StatusText(f.Status))))
	if r := f.Question.Response; r != nil {
		if r.Status != f.Status {
			p.line("upstream said", "%d", r.Status)
		}
		p.headers(r.Headers)
	}
}

func (p page) headers(h map[string][]string) {
	for _, name := range slices.Sorted(mapKeys(h)) {
		for _, v := range h[name] {
			fmt.Fprintf(p.w, "  %s %s\n", p.style.dim(plain(name)+":"), plain(v))
		}
	}
}

func (p page) carried(f *exitgate.Flow) {
	p.head("Carried")
	p.line("sent", "%s", amount(f.Sent, f.RequestBody))
	p.line("received", "%s", amount(f.Received, f.ResponseBody))
	p.line("request body", "%s", plain(prefixed("SHA-256 ", f.RequestSHA256)))
	if l := f.Verdict.Limits; l != (exitgate.Limits{}) {
		p.line("limits", "%s", limitsText(l))
	}
}

func amount(b exitgate.Bytes, state exitgate.BodyState) string {
	s := fmt.Sprintf("%s header, %s body", bytesText(b.Header), bytesText(b.Body))
	if state != exitgate.BodyNone && state != exitgate.BodyComplete {
		s += " (" + plain(string(state)) + ")"
	}
	return s
}

func limitsText(l exitgate.Limits) string {
	var parts []string
	for _, x := range []struct {
		name string
		n    int64
	}{{"request body", l.RequestBody}, {"response body", l.ResponseBody}, {"both directions", l.Bytes}} {
		if x.n > 0 {
			parts = append(parts, x.name+" "+bytesText(x.n))
		}
	}
	if l.Duration > 0 {
		parts = append(parts, "duration "+l.Duration.String())
	}
	return strings.Join(parts, ", ")
}
