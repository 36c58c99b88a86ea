package web

import (
	"cmp"
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
	check  func(entry *T, now time.Time) error
	id     func(T) string
	// made completes an entry with what the gateway, not the client, says of it, and returns why it is made.
	made func(entry *T, who string, at time.Time) (reason string)
}

func (a *Admin) grantBook() book[exitgate.Grant] {
	return book[exitgate.Grant]{
		a: a, noun: "grant", ledger: a.Grants, check: a.CheckGrant,
		id: func(g exitgate.Grant) string { return g.ID },
		made: func(g *exitgate.Grant, who string, at time.Time) string {
			if g.ID == "" {
				g.ID = newName("g")
			}
			g.By, g.At, g.Source = who, at, "store"
			return g.Reason
		},
	}
}

func (a *Admin) exemptionBook() book[exitgate.Exemption] {
	return book[exitgate.Exemption]{
		a: a, noun: "exemption", ledger: a.Exemptions, check: a.CheckExemption,
		id: func(x exitgate.Exemption) string { return x.ID },
		made: func(x *exitgate.Exemption, who string, at time.Time) string {
			if x.ID == "" {
				x.ID = newName("x")
			}
			x.By, x.At, x.Source = who, at, "store"
			return x.Reason
		},
	}
}

// newName returns a name that is short enough to be typed and that no entry has: 40 random bits after the prefix.
func newName(prefix string) string { return prefix + "-" + strings.ToLower(rand.Text()[:8]) }

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
	c, err := b.change(r)
	if err != nil {
		return err
	}
	var entry T
	if err := decode(w, r, &entry); err != nil {
		return err
	}
	c.Reason = b.made(&entry, c.Who, c.At)
	if err := cmp.Or(needReason(c.Reason), b.check(&entry, c.At)); err != nil {
		return Invalid(fmt.Errorf("add the %s: %w", b.noun, err))
	}
	b.a.change.Lock()
	defer b.a.change.Unlock()
	if err := b.put(context.WithoutCancel(r.Context()), entry, c); err != nil {
		return err
	}
	b.a.log().Info(b.noun+" added", "id", b.id(entry), "by", c.Who, "reason", c.Reason)
	answer(w, http.StatusCreated, entry)
	return nil
}

// put writes the entry and loads it; when it cannot be loaded it is taken out of the store again. The caller holds
// the lock of changes.
func (b book[T]) put(ctx context.Context, entry T, c Change) error {
	id := b.id(entry)
	if _, found, err := b.find(ctx, id); err != nil {
		return err
	} else if found {
		return Conflict(fmt.Errorf("add the %s: there is one with the id %q; choose another, or remove that one first", b.noun, id))
	}
	if err := b.ledger.Put(ctx, entry, c); err != nil {
		return fmt.Errorf("store %s %s: %w", b.noun, id, err)
	}
	if err := b.a.Apply(ctx); err != nil {
		err = fmt.Errorf("load %s %s: %w; nothing was changed", b.noun, id, err)
		c.Reason = "taken back: it could not be loaded"
		return Conflict(errors.Join(err, b.ledger.Remove(ctx, id, c)))
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
	c, err := b.change(r)
	if err != nil {
		return err
	}
	c.Reason = r.URL.Query().Get("reason")
	if err := needReason(c.Reason); err != nil {
		return Invalid(fmt.Errorf("remove the %s: %w", b.noun, err))
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
	if err := b.ledger.Remove(ctx, id, c); err != nil {
		return fmt.Errorf("remove %s %s: %w", b.noun, id, err)
	}
	if err := b.a.Apply(ctx); err != nil {
		err = fmt.Errorf("unload %s %s: %w; nothing was changed", b.noun, id, err)
		c.Reason = "put back: the policy could not be loaded without it"
		return Conflict(errors.Join(err, b.ledger.Put(ctx, entry, c)))
	}
	b.a.log().Info(b.noun+" removed", "id", id, "by", c.Who, "reason", c.Reason)
	answer(w, http.StatusOK, entry)
	return nil
}

// change returns who asks for a change, and when.
func (b book[T]) change(r *http.Request) (Change, error) {
	c := Change{Who: peer(r.Context()), At: b.a.now().Truncate(time.Second)}
	if c.Who == "" {
		return c, problem(http.StatusForbidden, errors.New("a change needs somebody who answers for it, and the system did not say which user is asking"))
	}
	return c, nil
}

func needReason(s string) error {
	if strings.TrimSpace(s) == "" {
		return errors.New("it needs a reason, for whoever reads this later")
	}
	return nil
}
