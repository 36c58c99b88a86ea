package web

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/exitgate/exitgate"
)

// A book is the API over one ledger: grants and exemptions are changed alike.
type book[T any] struct {
	a      *Admin
	noun   string // grant, exemption
	ledger Ledger[T]
	check  func(T) error
	id     func(T) string
	// made completes an entry with what the gateway, not the client, says of it.
	made func(entry *T, by string, at time.Time) error
}

func (a *Admin) grantBook() book[exitgate.Grant] {
	return book[exitgate.Grant]{
		a: a, noun: "grant", ledger: a.Grants, check: a.CheckGrant,
		id: func(g exitgate.Grant) string { return g.ID },
		made: func(g *exitgate.Grant, by string, at time.Time) error {
			if g.ID == "" {
				g.ID = newName("g")
			}
			g.By, g.At, g.Source = by, at, "store"
			return untilIn(g.Until, at)
		},
	}
}

func (a *Admin) exemptionBook() book[exitgate.Exemption] {
	return book[exitgate.Exemption]{
		a: a, noun: "exemption", ledger: a.Exemptions, check: a.CheckExemption,
		id: func(x exitgate.Exemption) string { return x.ID },
		made: func(x *exitgate.Exemption, by string, at time.Time) error {
			if x.ID == "" {
				x.ID = newName("x")
			}
			x.By, x.At, x.Source = by, at, "store"
			return untilIn(x.Until, at)
		},
	}
}

// newName returns a name that is short enough to be typed and that no entry has: 40 random bits after the prefix.
func newName(prefix string) string { return prefix + "-" + strings.ToLower(rand.Text()[:8]) }

func untilIn(until, now time.Time) error {
	if !until.IsZero() && !until.After(now) {
		return fmt.Errorf("it would end at %s, which has passed", until.UTC().Format(time.RFC3339))
	}
	return nil
}

func (b book[T]) list(w http.ResponseWriter, r *http.Request) error {
	list, err := b.ledger.List(r.Context())
	if err != nil {
		return fmt.Errorf("list %ss: %w", b.noun, err)
	}
	if list == nil {
		list = []T{}
	}
	answer(w, http.StatusOK, list)
	return nil
}

func (b book[T]) add(w http.ResponseWriter, r *http.Request) error {
	by, err := b.author(r)
	if err != nil {
		return err
	}
	var entry T
	if err := decode(w, r, &entry); err != nil {
		return err
	}
	if err := b.made(&entry, by, b.a.now().Truncate(time.Second)); err != nil {
		return Invalid(fmt.Errorf("add the %s: %w", b.noun, err))
	}
	if err := b.check(entry); err != nil {
		return Invalid(fmt.Errorf("add the %s: %w", b.noun, err))
	}
	b.a.change.Lock()
	defer b.a.change.Unlock()
	if err := b.put(context.WithoutCancel(r.Context()), entry, by); err != nil {
		return err
	}
	b.a.log().Info(b.noun+" added", "id", b.id(entry), "by", by)
	answer(w, http.StatusCreated, entry)
	return nil
}

// put writes the entry and loads it; when it cannot be loaded it is taken out of the store again. The caller holds
// the lock of changes.
func (b book[T]) put(ctx context.Context, entry T, by string) error {
	id := b.id(entry)
	if _, found, err := b.find(ctx, id); err != nil {
		return err
	} else if found {
		return Conflict(fmt.Errorf("add the %s: there is one with the id %q; choose another, or remove that one first", b.noun, id))
	}
	if err := b.ledger.Put(ctx, entry, by); err != nil {
		return fmt.Errorf("store %s %s: %w", b.noun, id, err)
	}
	if err := b.a.Apply(ctx); err != nil {
		err = fmt.Errorf("load %s %s: %w; nothing was changed", b.noun, id, err)
		return Conflict(errors.Join(err, b.ledger.Remove(ctx, id, by)))
	}
	return nil
}

func (b book[T]) find(ctx context.Context, id string) (entry T, found bool, err error) {
	list, err := b.ledger.List(ctx)
	if err != nil {
		return entry, false, fmt.Errorf("list %ss: %w", b.noun, err)
	}
	for _, e := range list {
		if b.id(e) == id {
			return e, true, nil
		}
	}
	return entry, false, nil
}

func (b book[T]) remove(w http.ResponseWriter, r *http.Request) error {
	by, err := b.author(r)
	if err != nil {
		return err
	}
	id, ctx := r.PathValue("id"), context.WithoutCancel(r.Context())
	b.a.change.Lock()
	defer b.a.change.Unlock()
	entry, found, err := b.find(ctx, id)
	if err != nil {
		return err
	}
	if !found {
		return NotFound(fmt.Errorf("remove %s %.64q: there is none with this id", b.noun, id))
	}
	if err := b.ledger.Remove(ctx, id, by); err != nil {
		return fmt.Errorf("remove %s %s: %w", b.noun, id, err)
	}
	if err := b.a.Apply(ctx); err != nil {
		err = fmt.Errorf("unload %s %s: %w; nothing was changed", b.noun, id, err)
		return Conflict(errors.Join(err, b.ledger.Put(ctx, entry, by)))
	}
	b.a.log().Info(b.noun+" removed", "id", id, "by", by)
	answer(w, http.StatusOK, entry)
	return nil
}

// author returns who asks for a change.
func (b book[T]) author(r *http.Request) (string, error) {
	if by := peer(r.Context()); by != "" {
		return by, nil
	}
	return "", problem(http.StatusForbidden, errors.New("a change needs somebody who answers for it, and the system did not say which user is asking"))
}
