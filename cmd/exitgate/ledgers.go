package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/policy"
	"github.com/exitgate/exitgate/storage"
	"github.com/exitgate/exitgate/storage/journal"
	"github.com/exitgate/exitgate/web"
)

// What the API asks of the store, in the API's words.

// openAPI opens the API's copy of what people and machines change, from which everything else is fed.
func (g *gateway) openAPI(ctx context.Context) error {
	g.uses = &web.Uses{Store: uses{g.store}}
	g.leases = &web.Leases{Uses: g.uses}
	g.identities = &web.Identities{Notebook: notebook{g.store.KV(), "host-notes"}}
	mirror := &web.Mirror{Ledger: ledger{g.store}, Load: g.load, Logger: g.log}
	if err := errors.Join(mirror.Open(ctx), g.uses.Refresh(ctx), g.identities.Refresh(ctx)); err != nil {
		return err
	}
	g.api = &web.Admin{
		Mirror:     mirror,
		Files:      web.Files{Classes: g.fileClasses, Hosts: g.fileHosts, Grants: g.fileGrants, Exemptions: g.fileExemptions},
		CheckGrant: checkGrant, CheckExemption: policy.CheckNewExemption, GrantFor: grantFor,
		Flows: flowFinder{g.store, g.journal},
		Explain: func(ctx context.Context, q *exitgate.Question) (web.Explanation, error) {
			return g.policy.Explain(ctx, q)
		},
		Status: g.status, Reload: g.reload, Trust: g.trust, Proxy: g.proxySettings,
		Uses: g.uses, Identities: g.identities, Logger: g.log,
	}
	return nil
}

// checkGrant checks what a policy knows of a grant, and its lease, of which a policy only sees the end.
func checkGrant(g *exitgate.Grant, now time.Time) error {
	if g.Lease != "" {
		if _, err := web.ParseLease(g.Lease); err != nil {
			return err
		}
	}
	return policy.CheckNewGrant(g, now)
}

// grantFor makes the grant that covers a URL, and nothing below it.
func grantFor(target string) (g exitgate.Grant, err error) {
	if strings.Contains(target, "*") {
		return g, fmt.Errorf("%.100q: a * in it would stand for more than was asked; grant it by hand", target)
	}
	t, err := policy.ParseGrantTarget(target)
	if err != nil {
		return g, err
	}
	g.To, g.Scheme = t.To, t.Scheme
	if t.Port != 0 {
		g.Ports = []uint16{t.Port}
	}
	path := "/"
	if t.Path != "" {
		path = t.Path
	}
	g.Paths = []string{path + "$"}
	low := strings.ToLower(path)
	g.EncodedSlash = strings.Contains(low, "%2f") || strings.Contains(low, "%5c")
	return g, nil
}

// A ledger is the store as the API knows it.
type ledger struct{ store storage.Store }

// Documents implements web.Ledger.
func (l ledger) Documents(ctx context.Context, kind string) ([]web.Document, error) {
	list, err := l.store.Documents(ctx, kind)
	out := make([]web.Document, len(list))
	for i, d := range list {
		out[i] = web.Document(d)
	}
	return out, err
}

// Document implements web.Ledger.
func (l ledger) Document(ctx context.Context, kind, id string) (web.Document, error) {
	d, err := l.store.Document(ctx, kind, id)
	return web.Document(d), absent(err)
}

// Apply implements web.Ledger.
func (l ledger) Apply(ctx context.Context, c web.Change, edits ...web.Edit) (int64, error) {
	list := make([]storage.Edit, len(edits))
	for i, e := range edits {
		list[i] = storage.Edit(e)
	}
	seq, err := l.store.Apply(ctx, storage.Change(c), list...)
	if errors.Is(err, storage.ErrConflict) {
		err = fmt.Errorf("%w (%w)", web.ErrChanged, err)
	}
	return seq, absent(err)
}

// Revision implements web.Ledger.
func (l ledger) Revision(ctx context.Context) (int64, error) { return l.store.Revision(ctx) }

// Audit implements web.Ledger.
func (l ledger) Audit(ctx context.Context, f web.AuditFilter) ([]web.Entry, error) {
	list, err := l.store.Audit(ctx, storage.AuditFilter(f))
	if err != nil {
		return nil, fmt.Errorf("read the audit trail: %w", err)
	}
	out := make([]web.Entry, len(list))
	for i, e := range list {
		out[i] = web.Entry(e)
	}
	return out, nil
}

// absent gives the store's word for what is not there the API's.
func absent(err error) error {
	if errors.Is(err, storage.ErrNotFound) {
		return web.NotFound(err)
	}
	return err
}

// uses is the store's memory of what was used.
type uses struct{ store storage.Uses }

// AddUses implements web.UseStore.
func (u uses) AddUses(ctx context.Context, list []web.Use) error {
	out := make([]storage.Use, len(list))
	for i, use := range list {
		out[i] = storage.Use(use)
	}
	return u.store.Used(ctx, out)
}

// Uses implements web.UseStore.
func (u uses) Uses(ctx context.Context, kind string) ([]web.Use, error) {
	all, err := u.store.Uses(ctx, kind)
	out := make([]web.Use, 0, len(all))
	for _, use := range all {
		out = append(out, web.Use(use))
	}
	return out, err
}

// A notebook is one bucket of the store.
type notebook struct {
	kv     storage.KV
	bucket string
}

// All implements web.Notebook.
func (n notebook) All(ctx context.Context) (map[string][]byte, error) {
	out := map[string][]byte{}
	err := n.kv.List(ctx, n.bucket, func(key, value []byte) error {
		out[string(key)] = bytes.Clone(value)
		return nil
	})
	return out, err
}

// Put implements web.Notebook.
func (n notebook) Put(ctx context.Context, key string, value []byte) error {
	return n.kv.Put(ctx, n.bucket, []byte(key), value)
}

// A flowFinder finds flows in the store once the journal has handed over what ended before the question.
type flowFinder struct {
	store   storage.FlowReader
	journal *journal.Journal
}

func parseQuery(query string) (storage.Filter, error) {
	f, err := storage.ParseQuery(query)
	if err != nil {
		return f, web.Invalid(err)
	}
	return f, nil
}

// Find implements web.Flows.
func (f flowFinder) Find(ctx context.Context, query string, limit int, before exitgate.ID) ([]*exitgate.Flow, error) {
	filter, err := parseQuery(query)
	if err != nil {
		return nil, err
	}
	filter.Limit, filter.Before = limit, before
	f.settle(ctx)
	list, err := f.store.Flows(ctx, filter)
	if err != nil {
		return nil, fmt.Errorf("search the flows: %w", err)
	}
	return list, nil
}

// Flow implements web.Flows.
func (f flowFinder) Flow(ctx context.Context, id exitgate.ID) (*exitgate.Flow, error) {
	f.settle(ctx)
	flow, err := f.store.Flow(ctx, id)
	if err != nil {
		return nil, absent(fmt.Errorf("find flow %s: %w", id, err))
	}
	return flow, nil
}

// settle waits, a second at most, until the store has what ended before: a refused client is told the id of its
// flow, and asks for it at once.
func (f flowFinder) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	target := f.journal.Stats()
	for {
		s := f.journal.Stats()
		if s.Waiting == 0 || s.Stored >= target.Stored+target.Waiting || !s.FailingSince.IsZero() {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Follow implements web.Flows.
func (f flowFinder) Follow(ctx context.Context, query string, ready func(), emit func(*exitgate.Flow) error) error {
	filter, err := parseQuery(query)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tail := f.journal.Tail(ctx, filter)
	ready()
	for flow := range tail {
		if err := emit(flow); err != nil {
			return err
		}
	}
	return ctx.Err()
}
