package web

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/exitgate/exitgate"
)

// A Mirror is the ledger in memory: what this gateway decides from. Sync brings it up to date and loads what has
// changed; Run does so several times a second, so that a change that was made through one gateway holds on all of
// them within a second. Reading it costs no query, so that a database that is away takes nothing away that holds.
//
// Only the documents that an entry of the audit trail names are read again. What changes often and decides nothing
// (when a host was seen, when a grant was used) is not in the ledger for that reason.
type Mirror struct {
	Ledger Ledger
	// Load puts in force what the mirror holds now of the kinds named. After an error what was in force before
	// still is, and Load is called again with the same kinds.
	Load   func(ctx context.Context, kinds []string) error
	Logger *slog.Logger // nil: slog.Default

	Classes    Shelf[Class]
	Hosts      Shelf[Host]
	HostTokens Shelf[StoredHostToken]
	APITokens  Shelf[StoredAPIToken]
	Grants     Shelf[exitgate.Grant]
	Exemptions Shelf[exitgate.Exemption]
	Requests   Shelf[Request]

	sync  sync.Mutex      // held for a whole Sync
	seq   int64           // up to which the trail was followed; -1 before the first Sync
	dirty map[string]bool // kinds that Load has not taken yet
	begun bool
}

// kinds is every shelf by the kind of its documents.
func (m *Mirror) kinds() map[string]shelf {
	return map[string]shelf{
		KindClass: &m.Classes, KindHost: &m.Hosts, KindHostToken: &m.HostTokens, KindAPIToken: &m.APITokens,
		KindGrant: &m.Grants, KindExemption: &m.Exemptions, KindRequest: &m.Requests,
	}
}

// interval is how often Run asks whether something has changed: well under the second that is promised.
const interval = 250 * time.Millisecond

// Run keeps the mirror up to date until ctx ends. What goes wrong is logged once, until it has gone right again.
func (m *Mirror) Run(ctx context.Context) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	failed := ""
	for wait := 0; ; wait-- {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if wait > 0 {
			continue
		}
		err := m.Sync(ctx)
		switch {
		case err == nil && failed != "":
			m.log().Info("changes are followed again")
			failed = ""
		case err != nil && ctx.Err() == nil && err.Error() != failed:
			failed = err.Error()
			m.log().Error("changes cannot be followed; what was loaded before stays in force", "err", err)
		}
		if err != nil {
			wait = 8 // two seconds: what fails costs more than what goes right
		}
	}
}

func (m *Mirror) log() *slog.Logger {
	if m.Logger != nil {
		return m.Logger
	}
	return slog.Default()
}

// Sync reads what has changed in the ledger and loads it. When it returns nil, what any gateway had changed before
// the call is in force here.
func (m *Mirror) Sync(ctx context.Context) error {
	m.sync.Lock()
	defer m.sync.Unlock()
	if err := m.follow(ctx); err != nil {
		return err
	}
	for _, kind := range []string{KindHostToken, KindAPIToken, KindRequest} {
		delete(m.dirty, kind) // the shelf is all there is to it
	}
	if len(m.dirty) == 0 {
		return nil
	}
	if err := m.Load(ctx, slices.Sorted(maps.Keys(m.dirty))); err != nil {
		return err
	}
	clear(m.dirty)
	return nil
}

// Open reads the whole ledger, once, before anything else; it loads nothing.
func (m *Mirror) Open(ctx context.Context) error {
	m.sync.Lock()
	defer m.sync.Unlock()
	if err := m.follow(ctx); err != nil {
		return err
	}
	clear(m.dirty)
	return nil
}

// catchUp reads what has changed and leaves it to the next Sync to load it.
func (m *Mirror) catchUp(ctx context.Context) error {
	m.sync.Lock()
	defer m.sync.Unlock()
	return m.follow(ctx)
}

// settle puts a change of that kind in force. A kind that nothing is decided from has nothing to be loaded.
func (m *Mirror) settle(ctx context.Context, kind string) error {
	switch kind {
	case KindClass, KindHost, KindGrant, KindExemption:
		return m.Sync(ctx)
	}
	return m.catchUp(ctx)
}

// follow reads what has changed since the last time.
func (m *Mirror) follow(ctx context.Context) error {
	seq, err := m.Ledger.Revision(ctx)
	if err != nil {
		return fmt.Errorf("ask the store what has changed: %w", err)
	}
	if m.dirty == nil {
		m.dirty = map[string]bool{}
	}
	if m.begun && seq == m.seq {
		return nil
	}
	names, all, err := m.changed(ctx)
	if err == nil && all {
		err = m.readAll(ctx)
	} else if err == nil {
		err = m.readEach(ctx, names)
	}
	if err != nil {
		return fmt.Errorf("read what has changed from the store: %w", err)
	}
	m.seq, m.begun = seq, true
	return nil
}

// object names one document.
type object struct{ kind, id string }

// most is how many entries of the trail are followed one by one; with more, everything is read again.
const most = 500

// changed returns the documents that the trail names since m.seq, or that there are too many of them. What is added
// to the trail meanwhile may be among them, and is then read twice.
func (m *Mirror) changed(ctx context.Context) (names map[object]bool, all bool, err error) {
	if !m.begun {
		return nil, true, nil
	}
	list, err := m.Ledger.Audit(ctx, AuditFilter{After: m.seq, Limit: most})
	if err != nil {
		return nil, false, err
	}
	names = map[object]bool{}
	for _, e := range list {
		kind, _, _ := strings.Cut(e.Action, ".")
		names[object{kind, e.Object}] = true
	}
	return names, len(list) == most, nil
}

func (m *Mirror) readAll(ctx context.Context) error {
	for kind, s := range m.kinds() {
		docs, err := m.Ledger.Documents(ctx, kind)
		if err != nil {
			return err
		}
		if s.replace(docs, m.unreadable) {
			m.dirty[kind] = true
		}
	}
	return nil
}

func (m *Mirror) readEach(ctx context.Context, names map[object]bool) error {
	docs := map[string][]Document{}
	for name := range names {
		doc, err := m.Ledger.Document(ctx, name.kind, name.id)
		if IsNotFound(err) {
			doc, err = Document{Kind: name.kind, ID: name.id}, nil
		}
		if err != nil {
			return err
		}
		docs[name.kind] = append(docs[name.kind], doc)
	}
	for kind, s := range m.kinds() {
		if s.update(docs[kind], m.unreadable) {
			m.dirty[kind] = true
		}
	}
	return nil
}

// unreadable tells of a document that is left out: whatever it would have allowed is refused.
func (m *Mirror) unreadable(doc Document, err error) {
	m.log().Error("left out: a document of the store cannot be read", "kind", doc.Kind, "id", doc.ID, "err", err)
}

// A Kept is one entry of a shelf.
type Kept[T any] struct {
	Value   T
	Version int64 // of its document
}

// A Shelf is every document of one kind, by id. The zero value is empty. What it returns is never changed.
type Shelf[T any] struct {
	now atomic.Pointer[shelved[T]]
}

type shelved[T any] struct {
	byID   map[string]*Kept[T]
	sorted func() []T
}

type shelf interface {
	update(docs []Document, unreadable func(Document, error)) (changed bool)
	replace(docs []Document, unreadable func(Document, error)) (changed bool)
}

// Get returns the entry of that id.
func (s *Shelf[T]) Get(id string) (entry *Kept[T], ok bool) {
	entry, ok = s.All()[id]
	return entry, ok
}

// All returns every entry by its id; it must not be changed.
func (s *Shelf[T]) All() map[string]*Kept[T] {
	if now := s.now.Load(); now != nil {
		return now.byID
	}
	return nil
}

// List returns every entry in the order of their ids; it must not be changed.
func (s *Shelf[T]) List() []T {
	if now := s.now.Load(); now != nil {
		return now.sorted()
	}
	return nil
}

func (s *Shelf[T]) store(byID map[string]*Kept[T]) {
	s.now.Store(&shelved[T]{byID, sync.OnceValue(func() []T {
		out := make([]T, 0, len(byID))
		for _, id := range slices.Sorted(maps.Keys(byID)) {
			out = append(out, byID[id].Value)
		}
		return out
	})})
}

// update takes in some documents; one of version 0 is there no more.
func (s *Shelf[T]) update(docs []Document, unreadable func(Document, error)) bool {
	var next map[string]*Kept[T]
	for _, doc := range docs {
		old, had := s.All()[doc.ID]
		if had && old.Version == doc.Version || !had && doc.Version == 0 {
			continue
		}
		if next == nil {
			next = make(map[string]*Kept[T], len(s.All())+len(docs))
			maps.Copy(next, s.All())
		}
		delete(next, doc.ID)
		if doc.Version == 0 {
			continue
		}
		if k, err := kept[T](doc); err != nil {
			unreadable(doc, err)
		} else {
			next[doc.ID] = k
		}
	}
	if next != nil {
		s.store(next)
	}
	return next != nil
}

// replace takes in all documents that there are.
func (s *Shelf[T]) replace(docs []Document, unreadable func(Document, error)) bool {
	old, changed := s.All(), false
	next := make(map[string]*Kept[T], len(docs))
	for _, doc := range docs {
		if o, ok := old[doc.ID]; ok && o.Version == doc.Version {
			next[doc.ID] = o
			continue
		}
		k, err := kept[T](doc)
		if err != nil {
			unreadable(doc, err)
			continue
		}
		next[doc.ID], changed = k, true
	}
	if changed = changed || len(next) != len(old); changed {
		s.store(next)
	}
	return changed
}

func kept[T any](doc Document) (*Kept[T], error) {
	k := &Kept[T]{Version: doc.Version}
	return k, json.Unmarshal(doc.Value, &k.Value)
}
