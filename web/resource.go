package web

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/exitgate/exitgate"
)

// A resource is the API over one kind of entry: all kinds are listed, read, put and removed alike.
type resource[T any] struct {
	a     *Admin
	kind  string // of its documents
	noun  string // what people call one
	shelf *Shelf[T]
	files func() []T // in the order of their ids; nil: none stand in files
	// named returns where an entry has its id; origin where it has the rest of what the gateway sets.
	named  func(*T) *string
	origin func(*T) origin
	// wire returns what of an entry is read from clients and shown to them; nil: all.
	wire func(*T) any
	// complete sets what the gateway, not the client, says of an entry; old is nil for a new one. It returns a
	// secret that is shown once.
	complete func(entry, old *T, c Change) (secret string)
	check    func(entry, old *T, c Change) error
	// touches returns the classes that an entry is about, so that who is bound to some may not change others.
	touches func(*T) []exitgate.Class
	matches func(*T, url.Values) bool // filters of lists; nil: none
	removal func(*T) error            // says why an entry cannot be removed; nil: nothing
	// won says why an entry that was written does not hold, because another gateway wrote first; nil: nothing.
	won    func(*T) error
	prefix string // of ids that are made; "": the client names it
}

type origin struct {
	reason, by, source *string
	at                 *time.Time
}

// tries bounds how often a change is made anew because another gateway was quicker.
const tries = 8

func (s resource[T]) id(e *T) string { return *s.named(e) }

func (s resource[T]) view(e T) any {
	if s.wire == nil {
		return e
	}
	return s.wire(&e)
}

func (s resource[T]) target(e *T) any {
	if s.wire == nil {
		return e
	}
	return s.wire(e)
}

// fromFile returns the entry of that id that stands in a file.
func (s resource[T]) fromFile(id string) (e T, ok bool) {
	if s.files == nil {
		return e, false
	}
	for _, e := range s.files() {
		if s.id(&e) == id {
			return e, true
		}
	}
	return e, false
}

// all returns every entry in the order of ids: those of files and, where no file has the id, of the ledger.
func (s resource[T]) all() []T {
	kept := s.shelf.List()
	if s.files == nil {
		return kept
	}
	filed := s.files()
	if len(filed) == 0 {
		return kept
	}
	out := make([]T, 0, len(filed)+len(kept))
	for i := range kept {
		for len(filed) > 0 && s.id(&filed[0]) < s.id(&kept[i]) {
			out, filed = append(out, filed[0]), filed[1:]
		}
		if len(filed) == 0 || s.id(&filed[0]) != s.id(&kept[i]) {
			out = append(out, kept[i])
		}
	}
	return append(out, filed...)
}

// defaultPage is how many entries a list has at most when the client does not say.
const defaultPage = 1000

// list answers one page, and names the next one in Link (RFC 8288).
func (s resource[T]) list(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	limit, err := limitOf(r, defaultPage)
	if err != nil {
		return err
	}
	all, after := s.all(), q.Get("after")
	at, _ := slices.BinarySearchFunc(all, after, func(e T, id string) int { return strings.Compare(s.id(&e), id) })
	out, next := []any{}, ""
	for _, e := range all[at:] {
		id := s.id(&e)
		if id == after || s.matches != nil && !s.matches(&e, q) {
			continue
		}
		if len(out) == limit {
			q.Set("after", next)
			w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, r.URL.EscapedPath(), q.Encode()))
			break
		}
		*s.origin(&e).source = cmp.Or(*s.origin(&e).source, "store")
		out, next = append(out, s.view(e)), id
	}
	answer(w, http.StatusOK, out)
	return nil
}

func (s resource[T]) get(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	if e, ok := s.fromFile(id); ok {
		answer(w, http.StatusOK, s.view(e))
		return nil
	}
	k, ok := s.shelf.Get(id)
	if !ok {
		return s.none("read", id)
	}
	s.answer(w, http.StatusOK, k.Value, k.Version, "")
	return nil
}

func (s resource[T]) none(verb, id string) error {
	return NotFound(fmt.Errorf("%s %s %.64q: there is none with this id", verb, s.noun, id))
}

// answer shows one entry of the ledger with its version as the entity tag.
func (s resource[T]) answer(w http.ResponseWriter, status int, e T, version int64, secret string) {
	w.Header().Set("ETag", etag(version))
	*s.origin(&e).source = "store"
	if secret == "" {
		answer(w, status, s.view(e))
		return
	}
	v := s.view(e)
	switch t := v.(type) {
	case *HostToken:
		t.Secret = secret
	case *APIToken:
		t.Secret = secret
	}
	answer(w, status, v)
}

func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// A condition is what a client expects to find.
type condition struct {
	version int64 // If-Match; 0: not said
	none    bool  // If-None-Match: *, or the method makes a new entry
	some    bool  // If-Match: *
}

func conditionOf(r *http.Request) (c condition, err error) {
	match, none := r.Header.Get("If-Match"), r.Header.Get("If-None-Match")
	switch none {
	case "":
	case "*":
		c.none = true
	default:
		return c, Invalid(fmt.Errorf("If-None-Match %.40q: only * has a meaning here", none))
	}
	switch {
	case match == "":
	case match == "*":
		c.some = true
	default:
		n, perr := strconv.ParseInt(strings.Trim(match, `"`), 10, 64)
		if perr != nil || n < 1 || etag(n) != match {
			return c, Invalid(fmt.Errorf("If-Match %.40q: it is * or the ETag of an answer", match))
		}
		c.version = n
	}
	return c, nil
}

func (c condition) check(noun, id string, version int64) error {
	switch {
	case version == 0 && (c.some || c.version != 0):
		return Changed(fmt.Errorf("%s %s: there is none with this id any more", noun, id))
	case version != 0 && c.none:
		return Changed(fmt.Errorf("%s %s: there is one with this id already", noun, id))
	case c.version != 0 && c.version != version:
		return Changed(fmt.Errorf("%s %s: it was changed since it was read (it is at %s, and If-Match says %s); read it again", noun, id, etag(version), etag(c.version)))
	}
	return nil
}

// add makes an entry: POST.
func (s resource[T]) add(w http.ResponseWriter, r *http.Request) error {
	var e T
	if err := decode(w, r, s.target(&e)); err != nil {
		return err
	}
	if id := s.named(&e); *id == "" && s.prefix != "" {
		*id = newName(s.prefix)
	}
	if err := checkName(s.id(&e)); err != nil {
		return Invalid(fmt.Errorf("add the %s: %w", s.noun, err))
	}
	made, err := s.write(r, e, condition{}, true)
	if err != nil {
		return err
	}
	w.Header().Set("Location", r.URL.EscapedPath()+"/"+url.PathEscape(s.id(&made.entry)))
	s.answer(w, http.StatusCreated, made.entry, made.version, made.secret)
	return nil
}

// put makes an entry or replaces it: PUT. What is there already is answered and not changed.
func (s resource[T]) put(w http.ResponseWriter, r *http.Request) error {
	cond, err := conditionOf(r)
	if err != nil {
		return err
	}
	var e T
	if err := decode(w, r, s.target(&e)); err != nil {
		return err
	}
	id := r.PathValue("id")
	if err := checkName(id); err != nil {
		return Invalid(fmt.Errorf("put the %s: %w", s.noun, err))
	}
	if at := s.named(&e); *at != "" && *at != id {
		return Invalid(fmt.Errorf("put the %s %s: the body names another, %.64q", s.noun, id, *at))
	}
	*s.named(&e) = id
	made, err := s.write(r, e, cond, false)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if made.fresh {
		status = http.StatusCreated
	}
	s.answer(w, status, made.entry, made.version, made.secret)
	return nil
}

// A written is what came of a write.
type written[T any] struct {
	entry   T
	version int64
	secret  string
	fresh   bool // there was none before
}

// write checks an entry, writes it and loads it. When it cannot be loaded it is taken out of the ledger again. An
// entry that is there already, in all that clients say of it, is not written.
func (s resource[T]) write(r *http.Request, e T, cond condition, add bool) (out written[T], err error) {
	p := principal(r)
	c := Change{At: s.a.now().Truncate(time.Second), Reason: *s.origin(&e).reason}
	if c.Who, err = p.change(); err != nil {
		return out, err
	}
	if err := checkReason(c.Reason); err != nil {
		return out, Invalid(fmt.Errorf("%s %s: %w", s.noun, s.id(&e), err))
	}
	err = s.a.changing(r.Context(), func(ctx context.Context) error {
		out, err = s.writeOnce(ctx, p, e, c, cond, add)
		return err
	})
	return out, err
}

func (s resource[T]) writeOnce(ctx context.Context, p Principal, e T, c Change, cond condition, add bool) (out written[T], err error) {
	id := s.id(&e)
	old, version, err := s.before(id, cond)
	if err != nil {
		return out, err
	}
	if add && old != nil {
		return out, Conflict(fmt.Errorf("add the %s: there is one with the id %q; choose another, or remove that one first", s.noun, id))
	}
	for _, class := range s.touched(&e, old) {
		if err := p.bound(class); err != nil {
			return out, err
		}
	}
	if out.secret, err = s.prepare(&e, old, c); err != nil {
		return out, err
	}
	if old != nil && s.same(e, *old) {
		return written[T]{entry: *old, version: version}, nil
	}
	value, err := json.Marshal(e)
	if err != nil {
		return out, fmt.Errorf("write %s %s: %w", s.noun, id, err)
	}
	edit := Edit{Kind: s.kind, ID: id, Value: value, If: version}
	if old == nil {
		edit.If = MustNotExist
	}
	if err := s.commit(ctx, c, edit, old); err != nil {
		return out, err
	}
	s.a.log().Info(s.noun+" changed", "id", id, "by", c.Who, "reason", c.Reason)
	out.entry, out.fresh = e, old == nil
	if k, ok := s.shelf.Get(id); ok {
		out.version = k.Version
	}
	return out, nil
}

// before returns the entry that a change is about to replace or remove; nil when there is none.
func (s resource[T]) before(id string, cond condition) (old *T, version int64, err error) {
	if e, ok := s.fromFile(id); ok {
		return nil, 0, Conflict(fmt.Errorf("%s %s stands in %s; change it there", s.noun, id, *s.origin(&e).source))
	}
	if k, ok := s.shelf.Get(id); ok {
		e := k.Value
		old, version = &e, k.Version
	}
	return old, version, cond.check(s.noun, id, version)
}

func (s resource[T]) touched(entries ...*T) (out []exitgate.Class) {
	for _, e := range entries {
		if e != nil && s.touches != nil {
			out = append(out, s.touches(e)...)
		}
	}
	return out
}

// prepare brings e into its one form.
func (s resource[T]) prepare(e, old *T, c Change) (secret string, err error) {
	o := s.origin(e)
	*o.by, *o.at, *o.source = c.Who, c.At, ""
	if s.complete != nil {
		secret = s.complete(e, old, c)
	}
	if err := s.check(e, old, c); err != nil {
		if p := new(Problem); errors.As(err, &p) {
			return "", err
		}
		return "", Invalid(fmt.Errorf("%s %s: %w", s.noun, s.id(e), err))
	}
	return secret, nil
}

// same reports whether two entries differ in nothing that a client says.
func (s resource[T]) same(e, old T) bool {
	now, was := s.origin(&e), s.origin(&old)
	*now.by, *now.at = *was.by, *was.at
	a, aerr := json.Marshal(e)
	b, berr := json.Marshal(old)
	return aerr == nil && berr == nil && bytes.Equal(a, b)
}

// commit writes edits and loads what they change; the first is that of old. When it cannot be loaded, or another
// gateway was quicker, it is undone.
func (s resource[T]) commit(ctx context.Context, c Change, edit Edit, old *T) error {
	if _, err := s.a.Mirror.Ledger.Apply(ctx, c, edit); err != nil {
		return err
	}
	err := s.a.Mirror.settle(ctx, s.kind)
	if err == nil && s.won != nil && edit.Value != nil {
		if k, ok := s.shelf.Get(edit.ID); ok {
			err = s.won(&k.Value)
		}
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("load %s %s: %w; nothing was changed", s.noun, edit.ID, err)
	return Conflict(errors.Join(err, s.undo(ctx, c, edit, old)))
}

// undo writes what was there before an edit.
func (s resource[T]) undo(ctx context.Context, c Change, edit Edit, old *T) error {
	back := Edit{Kind: edit.Kind, ID: edit.ID, If: MustNotExist}
	if k, ok := s.shelf.Get(edit.ID); ok {
		back.If = k.Version
	}
	if old != nil {
		value, err := json.Marshal(*old)
		if err != nil {
			return err
		}
		back.Value = value
	}
	c.Reason = "taken back: it could not be loaded"
	if _, err := s.a.Mirror.Ledger.Apply(ctx, c, back); err != nil && !errors.Is(err, ErrChanged) { // then theirs stands
		return fmt.Errorf("take it back: %w", err)
	}
	return s.a.Mirror.catchUp(ctx) // what was in force still is
}

// remove removes an entry: DELETE.
func (s resource[T]) remove(w http.ResponseWriter, r *http.Request) (err error) {
	p, id := principal(r), r.PathValue("id")
	c := Change{At: s.a.now().Truncate(time.Second), Reason: r.URL.Query().Get("reason")}
	if c.Who, err = p.change(); err != nil {
		return err
	}
	cond, err := conditionOf(r)
	if err != nil {
		return err
	}
	if err := checkReason(c.Reason); err != nil {
		return Invalid(fmt.Errorf("remove the %s: %w", s.noun, err))
	}
	var gone T
	err = s.a.changing(r.Context(), func(ctx context.Context) error {
		gone, err = s.removeOnce(ctx, p, id, c, cond)
		return err
	})
	if err != nil {
		return err
	}
	*s.origin(&gone).source = "store"
	answer(w, http.StatusOK, s.view(gone))
	return nil
}

func (s resource[T]) removeOnce(ctx context.Context, p Principal, id string, c Change, cond condition) (gone T, err error) {
	old, version, err := s.before(id, cond)
	if err != nil {
		return gone, err
	}
	if old == nil {
		return gone, s.none("remove", id)
	}
	for _, class := range s.touched(old) {
		if err := p.bound(class); err != nil {
			return gone, err
		}
	}
	if s.removal != nil {
		if err := s.removal(old); err != nil {
			return gone, Conflict(fmt.Errorf("remove %s %s: %w", s.noun, id, err))
		}
	}
	if err := s.commit(ctx, c, Edit{Kind: s.kind, ID: id, If: version}, old); err != nil {
		return gone, err
	}
	s.a.log().Info(s.noun+" removed", "id", id, "by", c.Who, "reason", c.Reason)
	return *old, nil
}

// changing runs one change, up to date with what other gateways have changed, and again when one was quicker.
// Changes through this gateway come one after the other, and are not cut off when the client leaves.
func (a *Admin) changing(ctx context.Context, change func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	a.change.Lock()
	defer a.change.Unlock()
	var err error
	for range tries {
		if err := a.Mirror.catchUp(ctx); err != nil {
			return Unavailable(err)
		}
		if err = change(ctx); !errors.Is(err, ErrChanged) {
			return err
		}
	}
	return Conflict(fmt.Errorf("%w, %d times; try again", err, tries))
}

// ErrChanged is what Ledger.Apply returns when a document has another version than an edit expects.
var ErrChanged = errors.New("another gateway changed it at the same time")
