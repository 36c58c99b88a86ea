package storagetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage"
)

// TestShared runs what several gateways do at once to one database. open returns the opener of an empty database, which
// each call opens anew; it is called once for each subtest, which closes what it opened.
func TestShared(t *testing.T, open func(t *testing.T) func() storage.Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, storage.Store, storage.Store)
	}{
		{"Redeem", redeemOnce},
		{"Update", updatesAddUp},
		{"NumbersAreSeenInOrder", numbersInOrder},
		{"TakeKey", takeOnce},
		{"SwapKeys", swapsAddUp},
		{"UsesAddUp", usesAddUp},
		{"Restart", restart},
	} {
		t.Run(c.name, func(t *testing.T) {
			again := open(t)
			a, b := again(), again()
			defer a.Close()
			defer b.Close()
			c.test(t, a, b)
		})
	}
}

// Rounds and racers of the tests in which one may win.
const rounds, racers = 40, 8

// race runs f at once for each racer, half of them on either store.
func race(a, b storage.Store, f func(racer int, s storage.Store)) {
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range racers {
		s := a
		if i%2 == 1 {
			s = b
		}
		wg.Go(func() {
			<-start
			f(i, s)
		})
	}
	close(start)
	wg.Wait()
}

// A Token is what [Redeem] counts.
type Token struct{ Uses, Used int }

// errUsedUp says that a token was used as often as it may be.
var errUsedUp = errors.New("used up")

// Redeem uses the token once, and reports whether it could be.
func Redeem(ctx context.Context, l storage.Ledger, id string) (bool, error) {
	_, _, err := storage.Update(ctx, l, storage.KindHostToken, id, change(), func(v *Token) error {
		if v.Used >= v.Uses {
			return errUsedUp
		}
		v.Used++
		return nil
	})
	if errors.Is(err, errUsedUp) {
		return false, nil
	}
	return err == nil, err
}

// Tokens makes n tokens that are good once, t0 and on.
func Tokens(t *testing.T, l storage.Ledger, n int) {
	t.Helper()
	for i := range n {
		edit, err := storage.Put(storage.KindHostToken, fmt.Sprint("t", i), Token{Uses: 1}, storage.MustNotExist)
		if err != nil {
			t.Fatal(err)
		}
		apply(t, l, edit)
	}
}

func redeemOnce(t *testing.T, a, b storage.Store) {
	Tokens(t, a, rounds)
	for round := range rounds {
		var won atomic.Int32
		race(a, b, func(_ int, s storage.Store) {
			ok, err := Redeem(context.Background(), s, fmt.Sprint("t", round))
			if err != nil {
				t.Error(err)
			}
			if ok {
				won.Add(1)
			}
		})
		if won.Load() != 1 {
			t.Errorf("round %d: the token was redeemed %d times", round, won.Load())
		}
	}
	// Making a document is a race as well.
	for round := range rounds {
		var won atomic.Int32
		race(a, b, func(racer int, s storage.Store) {
			edit := doc("host", fmt.Sprint("h", round), fmt.Sprintf(`{"racer":%d}`, racer))
			_, err := s.Apply(context.Background(), change(), expecting(edit, storage.MustNotExist))
			if err == nil {
				won.Add(1)
			} else if !errors.Is(err, storage.ErrConflict) {
				t.Error(err)
			}
		})
		if won.Load() != 1 {
			t.Errorf("round %d: the host was made %d times", round, won.Load())
		}
	}
}

// updatesAddUp: no update is lost among others.
func updatesAddUp(t *testing.T, a, b storage.Store) {
	const each = 20
	type counter struct{ N int }
	apply(t, a, doc("host", "h", `{}`))
	race(a, b, func(_ int, s storage.Store) {
		for range each {
			if _, _, err := storage.Update(context.Background(), s, "host", "h", change(), func(c *counter) error { c.N++; return nil }); err != nil {
				t.Error(err)
			}
		}
	})
	all, err := storage.Values[counter](t.Context(), a, "host")
	if err != nil || len(all) != 1 || all[0].N != racers*each {
		t.Errorf("%+v, %v, want %d", all, err, racers*each)
	}
	if n := revision(t, b); n != 1+racers*each {
		t.Errorf("revision %d after %d changes", n, 1+racers*each)
	}
}

// numbersInOrder: who saw a revision finds every change up to it, however the writers overlap.
func numbersInOrder(t *testing.T, a, b storage.Store) {
	const each = 10
	var writing sync.WaitGroup
	var done atomic.Bool
	writing.Go(func() {
		race(a, b, func(racer int, s storage.Store) {
			for i := range each {
				edits := []storage.Edit{doc("grant", fmt.Sprint(racer, "-", i), `{}`), doc("host", fmt.Sprint(racer, "-", i), `{}`)}
				if _, err := s.Apply(context.Background(), change(), edits...); err != nil {
					t.Error(err)
				}
			}
		})
		done.Store(true)
	})
	var followers sync.WaitGroup
	for _, s := range []storage.Store{a, b} {
		followers.Go(func() { follow(t, s, &done) })
	}
	writing.Wait()
	followers.Wait()
	if n := revision(t, a); n != 2*racers*each {
		t.Errorf("revision %d after %d changes", n, 2*racers*each)
	}
}

// follow reads what is new as a gateway does, and compares it with the revision that it saw before.
func follow(t *testing.T, s storage.Store, done *atomic.Bool) {
	var have int64
	for last := false; !last; {
		last = done.Load()
		seen, err := s.Revision(context.Background())
		if err != nil {
			t.Error(err)
			return
		}
		news, err := s.Audit(context.Background(), storage.AuditFilter{After: have, Before: seen + 1, Limit: storage.MaxLimit})
		if err != nil || int64(len(news)) != seen-have {
			t.Errorf("%d entries from %d to %d, %v", len(news), have, seen, err)
			return
		}
		docs, err := s.Documents(context.Background(), "host")
		if err != nil || int64(len(docs)) < seen/2 {
			t.Errorf("%d documents at revision %d, %v", len(docs), seen, err)
			return
		}
		have = seen
	}
}

// takeOnce: a key that all want to make, and then to remove, is made and removed by one of them.
func takeOnce(t *testing.T, a, b storage.Store) {
	for round := range rounds {
		key := []byte(strconv.Itoa(round))
		var made, taken atomic.Int32
		race(a, b, func(racer int, s storage.Store) {
			mine := []byte{byte(racer)}
			current, swapped, err := s.KV().CompareAndSwap(context.Background(), "used", key, nil, mine)
			if err != nil || current == nil {
				t.Errorf("%q, %v", current, err)
				return
			}
			if swapped {
				made.Add(1)
			}
			_, swapped, err = s.KV().CompareAndSwap(context.Background(), "used", key, current, nil)
			if err != nil {
				t.Error(err)
			}
			if swapped {
				taken.Add(1)
			}
		})
		if made.Load() < 1 || made.Load() != taken.Load() {
			t.Errorf("round %d: made %d times, taken %d times", round, made.Load(), taken.Load())
		}
		var won atomic.Int32
		race(a, b, func(racer int, s storage.Store) {
			if _, swapped, err := s.KV().CompareAndSwap(context.Background(), "once", key, nil, []byte{byte(racer)}); err != nil {
				t.Error(err)
			} else if swapped {
				won.Add(1)
			}
		})
		if won.Load() != 1 {
			t.Errorf("round %d: made %d times", round, won.Load())
		}
	}
}

// swapsAddUp: a counter that all add to by compare-and-swap loses nothing, and a call that did not swap never says that
// what it expected is there.
func swapsAddUp(t *testing.T, a, b storage.Store) {
	const each = 20
	race(a, b, func(_ int, s storage.Store) {
		var old []byte
		for added := 0; added < each; {
			n, _ := strconv.Atoi(string(old))
			next := []byte(strconv.Itoa(n + 1))
			current, swapped, err := s.KV().CompareAndSwap(context.Background(), "b", []byte("n"), old, next)
			if err != nil || !swapped && string(current) == string(old) {
				t.Errorf("%q, from %q: %v", current, old, err)
				return
			}
			if old = current; swapped {
				added++
			}
		}
	})
	wantKey(t, a.KV(), "b", "n", []byte(strconv.Itoa(racers*each)))
}

// usesAddUp: gateways that tell of the same uses in any order, and some that remove documents meanwhile, wait for one
// another but never for good.
func usesAddUp(t *testing.T, a, b storage.Store) {
	const each, things = 4, 50
	race(a, b, func(racer int, s storage.Store) {
		for i := range each {
			uses, puts, removals := someUses(things, racer%2 == 0, Start().Add(time.Duration(i*racers+racer)*time.Second))
			if err := s.Used(context.Background(), uses); err != nil {
				t.Error(err)
			}
			if racer >= racers/2 {
				continue
			}
			for _, edits := range [][]storage.Edit{puts, removals} {
				if _, err := s.Apply(context.Background(), change(), edits...); err != nil && !errors.Is(err, storage.ErrNotFound) {
					t.Error(err)
				}
			}
		}
	})
	all, err := a.Uses(t.Context(), "grant")
	if err != nil || len(all) != things {
		t.Fatalf("%d things were used, %v", len(all), err)
	}
	last := micro(Start().Add((each*racers - 1) * time.Second))
	for id, u := range all {
		if u.Count != racers*each || !u.Last.Equal(last) {
			t.Errorf("%s: %d uses, the last at %v, want %d, the last at %v", id, u.Count, u.Last, racers*each, last)
		}
	}
}

// someUses returns uses of n grants and n hosts, and the edits that put and remove the hosts, in order or in reverse.
func someUses(n int, reverse bool, last time.Time) (uses []storage.Use, puts, removals []storage.Edit) {
	for i := range n {
		if reverse {
			i = n - 1 - i
		}
		id := fmt.Sprint("g", i)
		uses = append(uses, storage.Use{Kind: "grant", ID: id, Last: last, Count: 1}, storage.Use{Kind: "host", ID: id, Last: last, Count: 1})
		puts = append(puts, doc("host", id, `{}`))
		removals = append(removals, storage.Edit{Kind: "host", ID: id})
	}
	return uses, puts, removals
}

// restart: what a store that was closed has written is there for the next, and the numbers go on.
func restart(t *testing.T, a, b storage.Store) {
	seq := apply(t, a, doc("host", "h", `{"n":1}`))
	used(t, a, storage.Use{Kind: "host", ID: "h", Last: Start(), Count: 1})
	if err := a.KV().Put(t.Context(), "b", []byte("k"), []byte("v")); err != nil {
		t.Fatal(err)
	}
	write(t, a, &exitgate.Flow{ID: exitgate.NewID(Start()), Begin: Start()})
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if got := list(t, b, "host"); len(got) != 1 || string(got[0].Value) != `{"n":1}` {
		t.Errorf("%s", show(got))
	}
	wantUses(t, b, "host", storage.Use{ID: "h", Last: Start(), Count: 1})
	wantKey(t, b.KV(), "b", "k", []byte("v"))
	if next := apply(t, b, doc("host", "h", `{"n":2}`)); next != seq+1 {
		t.Errorf("number %d after %d", next, seq)
	}
}
