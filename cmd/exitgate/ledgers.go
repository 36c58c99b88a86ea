package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/policy"
	"github.com/exitgate/exitgate/storage"
	"github.com/exitgate/exitgate/storage/journal"
	"github.com/exitgate/exitgate/web"
)

// What the admin API asks of the store, in the API's words.

// admin joins the admin API to the parts.
func (g *gateway) admin() *web.Admin {
	return &web.Admin{
		Grants: g.grants(), Exemptions: g.exemptions(),
		CheckGrant: policy.CheckNewGrant, CheckExemption: policy.CheckNewExemption, Apply: g.apply,
		Flows: flowFinder{g.store, g.journal},
		Explain: func(ctx context.Context, q *exitgate.Question) (web.Explanation, error) {
			return g.policy.Explain(ctx, q)
		},
		Host:   g.hostNamed,
		Status: g.status, Reload: g.reload, Audit: g.audit, CA: caAPI{g.issuer, g.log}, Logger: g.log,
	}
}

func (g *gateway) hostNamed(name string) (exitgate.Host, bool) {
	for _, h := range g.settings().Hosts {
		if string(h.Name) != name {
			continue
		}
		host := exitgate.Host{Name: name, Class: exitgate.Class(h.Class), By: exitgate.ByToken}
		if len(h.Addresses) > 0 {
			host.Addr, host.By = h.Addresses[0].value().Addr(), exitgate.ByAddress
		}
		return host, true
	}
	return exitgate.Host{}, false
}

func (g *gateway) audit(ctx context.Context, limit int) ([]web.Entry, error) {
	list, err := g.store.Audit(ctx, storage.AuditFilter{Limit: limit})
	if err != nil {
		return nil, fmt.Errorf("read the audit trail: %w", err)
	}
	out := make([]web.Entry, len(list))
	for i, e := range list {
		out[i] = web.Entry(e)
	}
	return out, nil
}

// A ledger is one kind of the store's documents, with what stands in files beside it.
type ledger[T any] struct {
	store storage.Ledger
	kind  string
	list  func() []T // all that the policy has loaded
	put   func(context.Context, storage.Ledger, T, storage.Change) error
}

func (g *gateway) grants() ledger[exitgate.Grant] {
	return ledger[exitgate.Grant]{g.store, storage.KindGrant, g.policy.Grants, storage.PutGrant}
}

func (g *gateway) exemptions() ledger[exitgate.Exemption] {
	return ledger[exitgate.Exemption]{g.store, storage.KindExemption, g.policy.Exemptions, storage.PutExemption}
}

func (l ledger[T]) List(context.Context) ([]T, error) { return l.list(), nil }

func (l ledger[T]) Put(ctx context.Context, entry T, c web.Change) error {
	return l.put(ctx, l.store, entry, change(c))
}

func (l ledger[T]) Remove(ctx context.Context, id string, c web.Change) error {
	return absent(storage.Remove(ctx, l.store, l.kind, id, change(c)))
}

func change(c web.Change) storage.Change {
	return storage.Change{At: c.At, Who: c.Who, Reason: c.Reason}
}

// absent gives the store's word for what is not there the API's.
func absent(err error) error {
	if errors.Is(err, storage.ErrNotFound) {
		return web.NotFound(err)
	}
	return err
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
