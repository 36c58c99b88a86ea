package web

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/exitgate/exitgate"
)

// A Use says when something was used last, and how often in all: a grant by a flow, a host by its flows and its
// enrolment, an API token by a request.
type Use struct {
	Kind  string    `json:"kind"`
	ID    string    `json:"id"`
	Last  time.Time `json:"last"`
	Count int64     `json:"count"`
}

func (u Use) key() object { return object{u.Kind, u.ID} }

// A UseStore keeps uses for all gateways together.
type UseStore interface {
	// AddUses adds counts, and keeps the later of each last use.
	AddUses(ctx context.Context, uses []Use) error
	// Uses returns all of a kind.
	Uses(ctx context.Context, kind string) ([]Use, error)
}

// Uses gathers which grants are used, and which hosts and tokens are seen. What it gathers is in memory for some
// seconds before it is in the store: a use is no record, and a gateway that dies may forget the last ones. It is not in
// the ledger, since it changes all the time: nothing is loaded again because of it. A nil Uses remembers nothing.
type Uses struct {
	Store UseStore

	exchange sync.Mutex // held while the store is asked, so that what is known is never older than it was

	mu      sync.Mutex
	pending map[object]Use // not in the store yet
	known   map[object]Use // of all gateways, as the store had it last
}

// Recorder returns a recorder that gathers from what passes through it to next.
func (u *Uses) Recorder(next Recorder) Recorder { return &used{u, next} }

type used struct {
	u    *Uses
	next Recorder
}

func (d *used) Begin(ctx context.Context, f *exitgate.Flow) error { return d.next.Begin(ctx, f) }

func (d *used) End(ctx context.Context, f *exitgate.Flow) error {
	grant := f.Verdict.Grant
	if f.Verdict.Action == exitgate.Refuse {
		grant = ""
	}
	if host := f.Question.Host.Name; host != "" || grant != "" {
		d.u.flow(host, grant, f.End)
	}
	return d.next.End(ctx, f)
}

func (u *Uses) flow(host, grant string, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.add(Use{KindHost, host, at, 1})
	u.add(Use{KindGrant, grant, at, 1})
}

// Seen notes that a host or a token was seen.
func (u *Uses) Seen(kind, id string, at time.Time) {
	if u != nil {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.add(Use{kind, id, at, 1})
	}
}

// add is called with the lock held.
func (u *Uses) add(use Use) {
	if use.ID == "" {
		return
	}
	use.Last = use.Last.UTC()
	if u.pending == nil {
		u.pending = map[object]Use{}
	}
	u.pending[use.key()] = u.pending[use.key()].and(use)
}

// and returns a and b together.
func (a Use) and(b Use) Use {
	if b.ID == "" {
		return a
	}
	b.Count += a.Count
	if a.Last.After(b.Last) {
		b.Last = a.Last
	}
	return b
}

// Flush hands what was gathered to the store. What cannot be handed over is kept for the next time.
func (u *Uses) Flush(ctx context.Context) error {
	u.exchange.Lock()
	defer u.exchange.Unlock()
	u.mu.Lock()
	give := u.pending
	u.pending = nil
	u.mu.Unlock()
	if len(give) == 0 {
		return nil
	}
	err := u.Store.AddUses(ctx, slices.Collect(maps.Values(give)))
	u.mu.Lock()
	defer u.mu.Unlock()
	into := &u.known
	if err != nil {
		into = &u.pending
	}
	if *into == nil {
		*into = map[object]Use{}
	}
	for key, use := range give {
		(*into)[key] = (*into)[key].and(use)
	}
	if err != nil {
		return fmt.Errorf("write what was used to the store: %w", err)
	}
	return nil
}

// Refresh reads what all gateways have told the store.
func (u *Uses) Refresh(ctx context.Context) error {
	for _, kind := range []string{KindGrant, KindHost, KindAPIToken} {
		if err := u.refresh(ctx, kind); err != nil {
			return err
		}
	}
	return nil
}

func (u *Uses) refresh(ctx context.Context, kind string) error {
	u.exchange.Lock()
	defer u.exchange.Unlock()
	list, err := u.Store.Uses(ctx, kind)
	if err != nil {
		return fmt.Errorf("read the uses of %ss from the store: %w", kind, err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.known == nil {
		u.known = map[object]Use{}
	}
	maps.DeleteFunc(u.known, func(key object, _ Use) bool { return key.kind == kind })
	for _, use := range list {
		u.known[use.key()] = use
	}
	return nil
}

// of returns the uses of one thing, as far as they are known.
func (u *Uses) of(kind, id string) Use {
	if u == nil {
		return Use{}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	key := object{kind, id}
	return u.known[key].and(u.pending[key])
}

// all returns the uses of a kind that are known, by id.
func (u *Uses) all(kind string) (out []Use) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for key, use := range u.known {
		if key.kind == kind {
			out = append(out, use.and(u.pending[key]))
		}
	}
	for key, use := range u.pending {
		if _, ok := u.known[key]; !ok && key.kind == kind {
			out = append(out, use)
		}
	}
	slices.SortFunc(out, func(a, b Use) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// uses answers what was used when: grants, unless ?kind= names another kind.
func (a *Admin) uses(w http.ResponseWriter, r *http.Request) error {
	limit, err := limitOf(r, defaultPage)
	if err != nil {
		return err
	}
	q, out := r.URL.Query(), []Use{}
	kind := cmp.Or(q.Get("kind"), KindGrant)
	if a.Uses == nil {
		answer(w, http.StatusOK, out)
		return nil
	}
	if err := a.Uses.refresh(r.Context(), kind); err != nil {
		return err
	}
	for _, use := range a.Uses.all(kind) {
		if use.ID <= q.Get("after") || !match(q, "id", use.ID) {
			continue
		}
		if len(out) == limit {
			q.Set("after", out[limit-1].ID)
			w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, r.URL.EscapedPath(), q.Encode()))
			break
		}
		out = append(out, use)
	}
	answer(w, http.StatusOK, out)
	return nil
}

// Bounds of a lease: a use is known everywhere well within the shortest one.
const (
	minLease = 5 * time.Minute
	maxLease = 2 * 366 * 24 * time.Hour
)

// ParseLease reads the lease of a grant: "30d", "8h".
func ParseLease(s string) (time.Duration, error) {
	d, err := ParseDuration(s)
	if err == nil && (d < minLease || d > maxLease) {
		err = errors.New("it is a time span from 5m to two years")
	}
	if err != nil {
		return 0, fmt.Errorf("lease %.40q: %w", s, err)
	}
	return d, nil
}

// ParseDuration reads a time span: "30s", "1h30m", "2d", "1d12h".
func ParseDuration(s string) (time.Duration, error) {
	wrong := errors.New(`it is not a time span such as 30s, 5m, 1h30m or 2d`)
	days, rest, ok := strings.Cut(s, "d")
	var total time.Duration
	if ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil || n > 36500 {
			return 0, wrong
		}
		total = time.Duration(n) * 24 * time.Hour
		if rest == "" {
			return total, nil
		}
		s = rest
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, wrong
	}
	return total + d, nil
}

// Leases works out when leased grants end. It is told which grants the policy is given, and tells when the policy has
// to be given them again because one that it takes for ended was used.
type Leases struct {
	Uses *Uses

	mu   sync.Mutex
	ends map[string]loadedLease
}

type loadedLease struct {
	grant exitgate.Grant
	lease time.Duration
	end   time.Time // as the policy was told
}

// Effective returns grants with the ends that they have now: when a leased grant was neither used nor renewed for as
// long as its lease, it has ended. The grants themselves are not changed.
func (l *Leases) Effective(grants []exitgate.Grant) []exitgate.Grant {
	ends, out, copied := map[string]loadedLease{}, grants, false
	for i := range grants {
		g := &grants[i]
		if g.Lease == "" {
			continue
		}
		lease, err := ParseLease(g.Lease)
		if err != nil {
			lease = 0 // of a newer gateway: it has ended
		}
		if !copied {
			out, copied = slices.Clone(grants), true
		}
		out[i].Until = leaseEnd(g, lease, l.Uses.of(KindGrant, g.ID))
		ends[g.ID] = loadedLease{*g, lease, out[i].Until}
	}
	l.mu.Lock()
	l.ends = ends
	l.mu.Unlock()
	return out
}

func leaseEnd(g *exitgate.Grant, lease time.Duration, use Use) time.Time {
	begin := g.At
	if use.Last.After(begin) {
		begin = use.Last
	}
	end := begin.Add(lease).UTC()
	if !g.Until.IsZero() && g.Until.Before(end) {
		end = g.Until
	}
	return end
}

// Near reports whether a leased grant ends soon, or has a moment ago, as the policy was told: then it is worth to ask
// what the other gateways know of its use.
func (l *Leases) Near(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.ends {
		if e.near(now) {
			return true
		}
	}
	return false
}

func (e *loadedLease) near(now time.Time) bool {
	return now.After(e.end.Add(-max(e.lease/4, time.Minute))) && now.Before(e.end.Add(10*time.Minute))
}

// Moved reports whether a grant that ends soon, as the policy was told, ends later by what is known now.
func (l *Leases) Moved(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, e := range l.ends {
		if e.near(now) && leaseEnd(&e.grant, e.lease, l.Uses.of(KindGrant, id)).After(e.end) {
			return true
		}
	}
	return false
}

// Run hands uses to the store and follows leases until ctx ends, and once more then. Load is called when the policy
// has to be given the grants again.
func (l *Leases) Run(ctx context.Context, load func(context.Context) error, log *slog.Logger) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		rest, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		if err := l.step(rest, time.Now(), load); err != nil {
			log.Warn("the uses of grants cannot be kept now; they are kept in memory", "err", err)
		}
		cancel()
	}
}

const flushEvery = 10 * time.Second

func (l *Leases) step(ctx context.Context, now time.Time, load func(context.Context) error) error {
	if err := l.Uses.Flush(ctx); err != nil {
		return err
	}
	if !l.Near(now) {
		return nil
	}
	if err := l.Uses.refresh(ctx, KindGrant); err != nil {
		return err
	}
	if l.Moved(now) {
		return load(ctx)
	}
	return nil
}
