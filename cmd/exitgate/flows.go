package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate"
)

func flowsCommand() *cobra.Command {
	var output string
	var limit int
	var follow bool
	c := &cobra.Command{
		Use:   "flows [QUERY...]",
		Short: "Search the flows: every crossing, carried or refused",
		Long: `Lists flows, the newest last. A query is words and field:value terms that must all hold; "-" before a term means
that it must not. A bare word is looked for in the URL.

  host:web-1            the name of a host             class:build     a class
  dst:example.com       a destination                  dst:*.example.com   every name below it
  outcome:refused       allowed, refused, fault, open, interrupted
  method:POST           a method                       status:403      also status:5xx
  rule:no-grant         what decided                   url:/simple     part of the URL
  kind:request          request, tunnel, connection    since:-2h       also until:, or with a date or time
  id:, conn:            one flow, one connection       rev:2cf0c8      the policy's revision

Columns are aligned for reading; -o json prints one flow a line with every field, -o csv is for a spreadsheet.`,
		Example: `  exitgate flows outcome:refused class:build since:-1h
  exitgate flows --follow -- -outcome:allowed
  exitgate flows -o json dst:*.example.com | jq .question.http.url`,
		RunE: func(c *cobra.Command, args []string) error {
			p, err := newPrinter(c, output)
			if err != nil {
				return usage(c, err)
			}
			if follow {
				return followFlows(c, strings.Join(args, " "), p)
			}
			return listFlows(c, strings.Join(args, " "), limit, p)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "table", "table, json (one flow a line) or csv")
	c.Flags().IntVarP(&limit, "number", "n", 50, "at most this many, the newest (up to 10000)")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "print flows as they end, until interrupted")
	c.AddCommand(flowsShowCommand())
	return c
}

// listFlows prints the newest flows, oldest first, so that the newest stand above the prompt.
func listFlows(c *cobra.Command, query string, limit int, p printer) error {
	var list []*exitgate.Flow
	path := "flows?query=" + url.QueryEscape(query) + "&limit=" + strconv.Itoa(limit)
	if err := dial(c).call(c.Context(), http.MethodGet, path, nil, &list); err != nil {
		return err
	}
	slices.Reverse(list)
	for _, f := range list {
		if err := p.flow(f); err != nil {
			return err
		}
	}
	if len(list) == 0 {
		fmt.Fprintln(c.ErrOrStderr(), "no flow matches")
	}
	return p.end()
}

func followFlows(c *cobra.Command, query string, p printer) error {
	ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	body, err := dial(c).open(ctx, http.MethodGet, "flows?follow=true&query="+url.QueryEscape(query), nil, "application/x-ndjson")
	if err != nil {
		return err
	}
	defer body.Close()
	fmt.Fprintln(c.ErrOrStderr(), "following; interrupt to stop")
	for d := json.NewDecoder(body); ; {
		f := new(exitgate.Flow)
		err := d.Decode(f)
		switch {
		case ctx.Err() != nil || errors.Is(err, context.Canceled):
			return p.end()
		case errors.Is(err, io.EOF):
			return errors.Join(p.end(), errors.New("the gateway ended the stream: it is stopping"))
		case err != nil:
			return fmt.Errorf("follow: %w", err)
		}
		if err := errors.Join(p.flow(f), p.end()); err != nil {
			return err
		}
	}
}

// A printer prints flows one after the other.
type printer interface {
	flow(*exitgate.Flow) error
	end() error // flushes; more flows may follow
}

func newPrinter(c *cobra.Command, output string) (printer, error) {
	w := c.OutOrStdout()
	switch output {
	case "table":
		return &tablePrinter{w: w, style: styleFor(w)}, nil
	case "json":
		return jsonPrinter{json.NewEncoder(w)}, nil
	case "csv":
		return &csvPrinter{w: csv.NewWriter(w)}, nil
	}
	return nil, fmt.Errorf("-o %q: it is table, json or csv", output)
}

type jsonPrinter struct{ *json.Encoder }

func (p jsonPrinter) flow(f *exitgate.Flow) error { return p.Encode(f) }
func (p jsonPrinter) end() error                  { return nil }

// A tablePrinter prints rows as they come, so its widths are fixed and a long cell pushes the others aside.
type tablePrinter struct {
	w      io.Writer
	style  style
	headed bool
}

const tableRow = "%-26s  %-8s  %-8s  %-20s  %-7s  %-6s  %9s  %9s  %8s  %-26s  %s\n"

func (p *tablePrinter) flow(f *exitgate.Flow) error {
	if !p.headed {
		p.headed = true
		head := fmt.Sprintf(tableRow, "FLOW", "TIME", "OUTCOME", "HOST (CLASS)", "METHOD", "STATUS", "SENT", "RECEIVED", "TOOK", "RULE", "WHAT")
		if _, err := fmt.Fprint(p.w, p.style.dim(head)); err != nil {
			return err
		}
	}
	word := outcomeWord(f)
	padded := p.style.outcome(fmt.Sprintf("%-8s", word))
	_, err := fmt.Fprintf(p.w, strings.Replace(tableRow, "%-8s  %-8s  %-20s", "%-8s  %s  %-20s", 1),
		f.ID, f.Begin.Local().Format(time.TimeOnly), padded, hostText(f.Question.Host), methodText(f), statusText(f),
		bytesText(f.Sent.Header+f.Sent.Body), bytesText(f.Received.Header+f.Received.Body), tookText(flowTime(f)), ruleText(f), whatText(f))
	return err
}

func (p *tablePrinter) end() error { return nil }

// outcomeWord is the outcome as people read it: what was carried unread is said to be.
func outcomeWord(f *exitgate.Flow) string {
	o := f.Outcome()
	if o == exitgate.OutcomeAllowed && f.Verdict.Action == exitgate.Splice {
		return "spliced"
	}
	return string(o)
}

func flowTime(f *exitgate.Flow) time.Duration {
	if f.End.IsZero() {
		return 0
	}
	return f.End.Sub(f.Begin)
}

func hostText(h exitgate.Host) string {
	name := h.Name
	if name == "" {
		name = h.Addr.String()
	}
	return plain(name) + " (" + plain(string(h.Class)) + ")"
}

func methodText(f *exitgate.Flow) string {
	if f.Question.HTTP == nil {
		return "-"
	}
	return plain(f.Question.HTTP.Method)
}

func statusText(f *exitgate.Flow) string {
	if f.Status == 0 {
		return "-"
	}
	return strconv.Itoa(f.Status)
}

// ruleText says what decided, or at which step the flow failed.
func ruleText(f *exitgate.Flow) string {
	if f.Fault != nil {
		return plain(f.Fault.Step + ":" + f.Fault.Type)
	}
	return plain(f.Verdict.Rule)
}

// whatText is the URL, or the destination of what carried none.
func whatText(f *exitgate.Flow) string {
	if h := f.Question.HTTP; h != nil && h.URL != "" {
		return plain(h.URL)
	}
	if f.Question.Dest.Host == "" {
		return "-"
	}
	return plain(f.Question.Dest.String())
}

// A csvPrinter prints one row a flow under a row of names. A cell that a spreadsheet would take for a formula gets a
// quote before it.
type csvPrinter struct {
	w      *csv.Writer
	headed bool
}

func (p *csvPrinter) flow(f *exitgate.Flow) error {
	if !p.headed {
		p.headed = true
		p.w.Write([]string{"id", "begin", "end", "outcome", "kind", "way", "host", "class", "source", "dest", "dialled", "method", "url",
			"status", "sent", "received", "rule", "reason", "revision", "fault_step", "fault_type", "fault_reason"})
	}
	step, typ, why := "", "", ""
	if f.Fault != nil {
		step, typ, why = f.Fault.Step, f.Fault.Type, f.Fault.Reason
	}
	end, dialled, q := "", "", f.Question
	if !f.End.IsZero() {
		end = f.End.Format(time.RFC3339Nano)
	}
	if f.Authority.Dialled.IsValid() {
		dialled = f.Authority.Dialled.String()
	}
	method, u := "", ""
	if q.HTTP != nil {
		method, u = q.HTTP.Method, q.HTTP.URL
	}
	row := []string{f.ID.String(), f.Begin.Format(time.RFC3339Nano), end, string(f.Outcome()), string(f.Kind), string(q.Way), q.Host.Name,
		string(q.Host.Class), q.Host.Addr.String(), q.Dest.String(), dialled, method, u, strconv.Itoa(f.Status),
		strconv.FormatInt(f.Sent.Header+f.Sent.Body, 10), strconv.FormatInt(f.Received.Header+f.Received.Body, 10),
		f.Verdict.Rule, f.Verdict.Reason, f.Verdict.Revision, step, typ, why}
	for i := range row {
		row[i] = csvCell(row[i])
	}
	return p.w.Write(row)
}

func (p *csvPrinter) end() error {
	p.w.Flush()
	return p.w.Error()
}

// csvCell neutralises what a spreadsheet would run (OWASP, CSV injection) and what a terminal would obey.
func csvCell(s string) string {
	s = plain(s)
	if s != "" && strings.ContainsRune("=+-@\t\r'", rune(s[0])) {
		return "'" + s
	}
	return s
}
