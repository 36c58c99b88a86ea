package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/policy"
)

// differs is the exit code of policy diff --exit-code where something would change; 1 and 2 are errors.
const differs = 3

// A diffing is one command line of policy diff.
type diffing struct {
	base, against, since, query, file, output string
	exitCode, noProof                         bool
}

func policyDiffCommand() *cobra.Command {
	var d diffing
	c := &cobra.Command{
		Use:   "diff --against (DIR | REVISION)",
		Short: "Ask recorded traffic again under another policy, and say what would change",
		Long: `Asks every recorded flow again, under the policy that the gateway has loaded and under another one, and says what would
change: what would newly be refused or allowed, be carried unread or read, get other limits, be rewritten otherwise; by class,
destination, path and rule, each with flows to look at.

The other policy is a directory, to which the gateway's grants and exemptions from the store are added, or a revision (its
first digits). The replay proves itself: each flow is asked as well under the revision that it was recorded under, and has to be
answered as it was.

With --flows it needs no gateway: it reads flows as "exitgate flows -o json" prints them, and --base says what to compare
with. -o json is for machines; with --exit-code the exit code is 3 where something would change.`,
		Example: `  exitgate policy diff --against ./policy --since 7d
  exitgate policy diff --against 3f9a --query 'class:build dst:*.example.com'
  exitgate policy diff --base ./main --against ./branch --flows week.json -o json --exit-code`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case d.against == "":
				return usage(c, errors.New("say what to compare with: --against DIR, or --against REVISION"))
			case d.output != "text" && d.output != "json":
				return usage(c, fmt.Errorf("-o %q: it is text or json", d.output))
			}
			return d.run(c)
		},
	}
	c.Flags().StringVar(&d.against, "against", "", "the other policy: a directory or a revision")
	c.Flags().StringVar(&d.base, "base", "", "compare with this directory or revision instead of what the gateway has loaded")
	c.Flags().StringVar(&d.since, "since", "7d", "ask flows that began within this time: 7d, 12h")
	c.Flags().StringVar(&d.query, "query", "", "ask flows that match; see exitgate flows --help")
	c.Flags().StringVar(&d.file, "flows", "", "ask the flows in this file, one JSON a line; - is the standard input")
	c.Flags().StringVarP(&d.output, "output", "o", "text", "text or json")
	c.Flags().BoolVar(&d.exitCode, "exit-code", false, "exit with 3 where something would change")
	c.Flags().BoolVar(&d.noProof, "no-proof", false, "do not ask the revisions that flows were recorded under")
	return c
}

func (d *diffing) run(c *cobra.Command) error {
	ctx := c.Context()
	base, err := openPolicy(c, d.base, nil)
	if err != nil {
		return err
	}
	candidate, err := openPolicy(c, d.against, base)
	if err != nil {
		return err
	}
	shown := newProgress(c.ErrOrStderr())
	r := policy.Replay{Base: base, Candidate: candidate, Progress: shown.at}
	if !d.noProof {
		kept := keptRevisions(dataDir(c))
		r.Proof = func(ctx context.Context, rev string) (*policy.Engine, error) {
			if rev == base.Revision() {
				return base, nil
			}
			return kept.Load(ctx, rev, policy.Options{})
		}
	}
	flows, err := d.flows(c)
	if err != nil {
		return err
	}
	diff, err := r.Run(ctx, flows)
	shown.end()
	if err != nil {
		return fmt.Errorf("ask the recorded flows again: %w", err)
	}
	if d.output == "json" {
		e := json.NewEncoder(c.OutOrStdout())
		e.SetIndent("", "  ")
		err = e.Encode(diff)
	} else {
		err = writeDiff(c.OutOrStdout(), diff)
	}
	if err == nil && d.exitCode && diff.Changed > 0 {
		err = exitError(differs)
	}
	return err
}

// openPolicy loads what a command line names: a directory, a revision, or ("") what the gateway has loaded. To a directory
// what base has from the store is added.
func openPolicy(c *cobra.Command, name string, base *policy.Engine) (*policy.Engine, error) {
	kept := keptRevisions(dataDir(c))
	o := policy.Options{Kept: 1 << 18, Timeout: time.Second}
	if st, err := os.Stat(name); err == nil && st.IsDir() {
		if base != nil {
			return base.Candidate(c.Context(), name, o)
		}
		o.Dir = name
		return policy.New(c.Context(), o, policy.Data{})
	}
	if name == "" {
		rev, err := loadedRevision(c)
		if err != nil {
			return nil, err
		}
		return kept.Load(c.Context(), rev, o)
	}
	if strings.ContainsAny(name, "/\\.") {
		return nil, fmt.Errorf("open the policy %s: there is no such directory", name)
	}
	rev, err := kept.Find(name)
	if err != nil {
		return nil, fmt.Errorf("open the policy %s: it is no directory, and as a revision: %w; exitgate policy revisions lists those that are", name, err)
	}
	return kept.Load(c.Context(), rev, o)
}

// loadedRevision asks the gateway, or where none runs takes the newest that one had.
func loadedRevision(c *cobra.Command) (string, error) {
	var s struct {
		Revision string `json:"revision"`
	}
	err := dial(c).call(c.Context(), http.MethodGet, "status", nil, &s)
	if err == nil {
		return s.Revision, nil
	}
	list, lerr := keptRevisions(dataDir(c)).List()
	if lerr != nil || len(list) == 0 {
		return "", err
	}
	return list[0].Revision, nil
}

func (d *diffing) flows(c *cobra.Command) (iter.Seq2[policy.Batch, error], error) {
	if d.file == "" {
		query := d.query
		if d.since != "" {
			span, err := parseDuration(d.since)
			if err != nil {
				return nil, usage(c, fmt.Errorf("--since %q: %w", d.since, err))
			}
			query = "since:-" + span.String() + " " + query
		}
		return pagesOfFlows(c.Context(), dial(c), query), nil
	}
	if d.file == "-" {
		return linesOfFlows(c.InOrStdin()), nil
	}
	f, err := os.Open(d.file)
	if err != nil {
		return nil, fmt.Errorf("open the flows: %w", err)
	}
	return linesOfFlows(f), nil
}

// atOnce is how many flows are asked of the gateway at once.
const atOnce = 1000

// pagesOfFlows reads flows page by page, newest first. Each page is decoded by whoever asks it.
func pagesOfFlows(ctx context.Context, gateway *client, query string) iter.Seq2[policy.Batch, error] {
	return func(yield func(policy.Batch, error) bool) {
		before := ""
		for {
			path := "flows?query=" + url.QueryEscape(query) + "&limit=" + strconv.Itoa(atOnce) + before
			body, err := gateway.open(ctx, http.MethodGet, path, nil, "application/json")
			if err != nil {
				yield(nil, err)
				return
			}
			text, err := io.ReadAll(body)
			if err = errors.Join(err, body.Close()); err != nil {
				yield(nil, fmt.Errorf("read the gateway's flows: %w", err))
				return
			}
			last := lastFlow(text)
			if last == "" || !yield(func() (list []*exitgate.Flow, err error) { return list, json.Unmarshal(text, &list) }, nil) {
				return
			}
			before = "&before=" + last
		}
	}
}

// lastFlow finds the id of the last flow in a page without reading it. A quotation mark within a text is escaped, so that
// what looks like the start of a flow is one.
func lastFlow(text []byte) string {
	start := []byte(`{"id":"`)
	i := bytes.LastIndex(text, start)
	if i < 0 || len(text) < i+len(start)+26 {
		return ""
	}
	return string(text[i+len(start):][:26])
}

func linesOfFlows(r io.Reader) iter.Seq2[policy.Batch, error] {
	return func(yield func(policy.Batch, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, 16<<20)
		var some [][]byte
		n := 0
		give := func() bool {
			batch, first := some, n-len(some)
			some = nil
			return len(batch) == 0 || yield(func() ([]*exitgate.Flow, error) { return decodeFlows(batch, first) }, nil)
		}
		for lines.Scan() {
			if n++; len(bytes.TrimSpace(lines.Bytes())) > 0 {
				some = append(some, bytes.Clone(lines.Bytes()))
			}
			if len(some) == atOnce && !give() {
				return
			}
		}
		if give() && lines.Err() != nil {
			yield(nil, fmt.Errorf("read the flows: line %d: %w", n+1, lines.Err()))
		}
	}
}

func decodeFlows(lines [][]byte, first int) ([]*exitgate.Flow, error) {
	out := make([]*exitgate.Flow, len(lines))
	for i, l := range lines {
		if err := json.Unmarshal(l, &out[i]); err != nil || out[i] == nil {
			return nil, fmt.Errorf("read the flows: near line %d: it is no flow as \"exitgate flows -o json\" prints them: %w", first+i+1, err)
		}
	}
	return out, nil
}

// progress counts on a terminal, and is silent elsewhere.
type progress struct {
	w     io.Writer
	on    bool
	begin time.Time
	last  atomic.Int64 // nanoseconds since begin
}

func newProgress(w io.Writer) *progress { return &progress{w: w, on: isTerminal(w), begin: time.Now()} }

func (p *progress) at(n int64) {
	since := time.Since(p.begin)
	last := p.last.Load()
	if !p.on || since-time.Duration(last) < 200*time.Millisecond || !p.last.CompareAndSwap(last, int64(since)) {
		return
	}
	fmt.Fprintf(p.w, "\r%d flows, %.0f a second ", n, float64(n)/since.Seconds())
}

func (p *progress) end() {
	if p.on {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

var kindWords = map[policy.Kind]string{
	policy.NewlyRefused: "newly refused", policy.NewlyAllowed: "newly allowed", policy.NewlyUnread: "newly carried unread", policy.NewlyRead: "newly read",
	policy.NewLimits: "other limits", policy.NewRewrite: "rewritten otherwise", policy.NewAudit: "audit mode", policy.NewRule: "the same by another rule",
}

// writeDiff writes a difference for a person: the largest groups of each kind.
func writeDiff(w io.Writer, d *policy.Difference) error {
	st := styleFor(w)
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "revision %s against %s: %d of %d flows would change (%s)\n", d.Base, d.Candidate, d.Changed, d.Asked, tookText(d.Took))
	writeProof(b, d)
	const most = 20
	kind, shown := policy.Kind(""), 0
	for _, g := range d.Groups {
		if g.Kind != kind {
			kind, shown = g.Kind, 0
			fmt.Fprintf(b, "\n%s: %d\n", st.bold(kindWords[kind]), d.Counts[kind])
		}
		if shown++; shown <= most {
			writeGroup(b, g)
		} else if shown == most+1 {
			fmt.Fprintln(b, "  and more; -o json has all")
		}
	}
	return b.Flush()
}

func writeGroup(b io.Writer, g policy.Group) {
	methods := strings.Join(g.Methods, ",")
	if methods != "" {
		methods += " "
	}
	fmt.Fprintf(b, "  %6d  class %s  %s%s%s\n", g.Count, plain(string(g.Class)), methods, plain(g.Dest), plain(g.Path))
	fmt.Fprintf(b, "          %s, was %s%s\n", plain(g.After.Rule), plain(g.Before.Rule), limitChange(g))
	var ids []string
	for _, id := range g.Samples {
		ids = append(ids, id.String())
	}
	fmt.Fprintf(b, "          %s\n", strings.Join(ids, " "))
}

func limitChange(g policy.Group) string {
	if g.Kind != policy.NewLimits {
		return ""
	}
	text := func(n int64) string {
		if n == 0 {
			return "default"
		}
		return bytesText(n)
	}
	was, is := g.Before.Limits, g.After.Limits
	return fmt.Sprintf("; out %s, was %s; in %s, was %s", text(is.RequestBody), text(was.RequestBody), text(is.ResponseBody), text(was.ResponseBody))
}

func writeProof(b io.Writer, d *policy.Difference) {
	for _, why := range d.Reasons() {
		fmt.Fprintf(b, "  not asked: %d: %s\n", d.NotAsked[why], plain(why))
	}
	p := &d.Proof
	if p.Agree+p.Differ > 0 || len(p.Missing) > 0 {
		fmt.Fprintf(b, "  proof: %d flows are answered as they were recorded, %d are not\n", p.Agree, p.Differ)
	}
	for _, why := range slices.Sorted(maps.Keys(p.Missing)) {
		fmt.Fprintf(b, "  not proved: %d: %s\n", p.Missing[why], plain(why))
	}
	for _, c := range p.Cases {
		fmt.Fprintf(b, "  not as recorded: %s: %s\n", c.Flow, plain(c.Why))
	}
}
