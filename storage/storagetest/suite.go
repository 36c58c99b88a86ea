package storagetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage"
)

// Test runs the suite. open returns an empty store, which the suite closes; it is called once for each subtest.
func Test(t *testing.T, open func(t *testing.T) storage.Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, storage.Store)
	}{
		{"RoundTrip", roundTrip},
		{"Idempotent", idempotent},
		{"EndedWins", endedWins},
		{"OneBatchNamesAFlowTwice", twiceInABatch},
		{"Poison", poison},
		{"Pages", pages},
		{"Queries", queries},
		{"NotFound", notFound},
		{"Grants", grants},
		{"Exemptions", exemptions},
		{"Documents", documents},
		{"ValuesStay", valuesStay},
		{"Conflicts", conflicts},
		{"BadEdits", badEdits},
		{"ManyEdits", manyEdits},
		{"Typed", typed},
		{"AuditFilters", auditFilters},
		{"AuditPages", auditPages},
		{"AuditText", auditText},
		{"Uses", uses},
		{"UsesEnd", usesEnd},
		{"Keys", keys},
		{"CompareAndSwap", compareAndSwap},
		{"ListKeys", listKeys},
		{"Prune", prune},
		{"CancelledKeys", cancelledKeys},
		{"ConcurrentWriters", concurrentWriters},
		{"Cancelled", cancelled},
		{"BigBatch", bigBatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			defer func() {
				if err := s.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}()
			c.test(t, s)
		})
	}
}

func write(t *testing.T, s storage.Store, flows ...*exitgate.Flow) {
	t.Helper()
	if err := storage.WriteFlows(t.Context(), s, flows); err != nil {
		t.Fatalf("write %d flows: %v", len(flows), err)
	}
}

func read(t *testing.T, s storage.Store, id exitgate.ID) *exitgate.Flow {
	t.Helper()
	f, err := s.Flow(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func search(t *testing.T, s storage.Store, f storage.Filter) []*exitgate.Flow {
	t.Helper()
	flows, err := s.Flows(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return flows
}

// Same fails t when got is not the flow want.
func Same(t *testing.T, got, want *exitgate.Flow) {
	t.Helper()
	g, w := reflect.ValueOf(got).Elem(), reflect.ValueOf(want).Elem()
	for i := range g.NumField() {
		if a, b := g.Field(i).Interface(), w.Field(i).Interface(); !reflect.DeepEqual(a, b) {
			t.Errorf("%s of flow %s:\n got %+v\nwant %+v", g.Type().Field(i).Name, want.ID, a, b)
		}
	}
}

func roundTrip(t *testing.T, s storage.Store) {
	flows := Every()
	write(t, s, flows...)
	for _, f := range flows {
		Same(t, read(t, s, f.ID), f)
	}
	all := search(t, s, storage.Filter{Limit: len(flows) + 1})
	if len(all) != len(flows) {
		t.Fatalf("%d flows found, want %d", len(all), len(flows))
	}
	if !slices.IsSortedFunc(all, func(a, b *exitgate.Flow) int { return strings.Compare(b.ID.String(), a.ID.String()) }) {
		t.Error("the flows are not in order, newest first")
	}
}

func idempotent(t *testing.T, s storage.Store) {
	flows := Every()
	for range 3 {
		write(t, s, flows...)
	}
	if got := search(t, s, storage.Filter{Limit: 1000}); len(got) != len(flows) {
		t.Errorf("%d flows after three times the same %d", len(got), len(flows))
	}
	write(t, s) // an empty batch is nothing
}

func endedWins(t *testing.T, s storage.Store) {
	begun, ended := Typical()
	later := *ended
	later.Status, later.End = 502, ended.End.Add(time.Hour)
	reopened := *begun
	reopened.Gateway = "another"
	for i, step := range []struct{ put, want *exitgate.Flow }{
		{begun, begun}, {&reopened, &reopened}, {ended, ended}, {begun, ended}, {&later, ended}, {&reopened, ended},
	} {
		write(t, s, step.put)
		Same(t, read(t, s, begun.ID), step.want)
		if got := search(t, s, storage.Filter{}); len(got) != 1 {
			t.Fatalf("step %d: %d rows for one flow", i, len(got))
		}
	}
}

func twiceInABatch(t *testing.T, s storage.Store) {
	begun, ended := Typical()
	write(t, s, begun, ended, begun)
	Same(t, read(t, s, begun.ID), ended)
}

func notFound(t *testing.T, s storage.Store) {
	if _, err := s.Flow(t.Context(), exitgate.NewID(Start())); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("a flow that is not there: %v, want ErrNotFound", err)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
}

func pages(t *testing.T, s storage.Store) {
	var flows []*exitgate.Flow
	for i := range 95 {
		_, f := Typical()
		f.Begin = Start().Add(time.Duration(i/3) * time.Millisecond) // three in each millisecond
		f.ID = exitgate.NewID(f.Begin)
		flows = append(flows, f)
	}
	write(t, s, flows...)
	seen := map[exitgate.ID]bool{}
	filter := storage.Filter{Limit: 10}
	for {
		page := search(t, s, filter)
		for _, f := range page {
			if seen[f.ID] {
				t.Fatalf("flow %s is on two pages", f.ID)
			}
			seen[f.ID] = true
		}
		if len(page) < 10 {
			break
		}
		filter.Before = page[len(page)-1].ID
	}
	if len(seen) != len(flows) {
		t.Errorf("the pages hold %d flows, want %d", len(seen), len(flows))
	}
	if n := len(search(t, s, storage.Filter{})); n != len(flows) {
		t.Errorf("%d flows with no limit given, want all %d", n, len(flows))
	}
}

func poison(t *testing.T, s storage.Store) {
	bad := Poison()
	var batch []*exitgate.Flow
	var good []*exitgate.Flow
	for _, f := range bad {
		_, neighbour := Typical()
		neighbour.ID = exitgate.NewID(Start())
		good = append(good, neighbour)
		batch = append(batch, neighbour, f)
	}
	write(t, s, batch...)
	for _, f := range good {
		Same(t, read(t, s, f.ID), f)
	}
	for _, f := range bad {
		Same(t, read(t, s, f.ID), AsStored(f))
	}
	if n := len(search(t, s, storage.Filter{Limit: 10_000})); n != len(batch) {
		t.Errorf("%d flows found, want %d", n, len(batch))
	}
}

func bigBatch(t *testing.T, s storage.Store) {
	var flows []*exitgate.Flow
	for i := range 5003 {
		_, f := Typical()
		f.Begin = Start().Add(time.Duration(i) * time.Minute) // over several days
		f.ID = exitgate.NewID(f.Begin)
		flows = append(flows, f)
	}
	write(t, s, flows...)
	if n := len(search(t, s, storage.Filter{Limit: 10_000})); n != len(flows) {
		t.Errorf("%d flows found, want %d", n, len(flows))
	}
}

func concurrentWriters(t *testing.T, s storage.Store) {
	const writers, each = 8, 200
	begun, _ := Typical()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each / 20 {
				var batch []*exitgate.Flow
				for range 20 {
					_, f := Typical()
					f.ID = exitgate.NewID(Start())
					f.Gateway = fmt.Sprint(w, "-", i)
					batch = append(batch, f)
				}
				batch = append(batch, begun) // all of them fight for this one
				if w%2 == 0 {
					slices.Reverse(batch)
				}
				if err := storage.WriteFlows(context.Background(), s, batch); err != nil {
					t.Errorf("writer %d: %v", w, err)
				}
				if _, err := s.Flows(context.Background(), storage.Filter{Limit: 5}); err != nil {
					t.Errorf("reader %d: %v", w, err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(search(t, s, storage.Filter{Limit: 10_000})); n != writers*each+1 {
		t.Errorf("%d flows, want %d", n, writers*each+1)
	}
}

func cancelled(t *testing.T, s storage.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, f := Typical()
	if err := storage.WriteFlows(ctx, s, []*exitgate.Flow{f}); !errors.Is(err, context.Canceled) {
		t.Errorf("write with a cancelled context: %v", err)
	}
	if _, err := s.Flows(ctx, storage.Filter{}); !errors.Is(err, context.Canceled) {
		t.Errorf("read with a cancelled context: %v", err)
	}
	if err := storage.PutGrant(ctx, s, exitgate.Grant{ID: "g"}, change()); !errors.Is(err, context.Canceled) {
		t.Errorf("put with a cancelled context: %v", err)
	}
	if n := len(search(t, s, storage.Filter{})); n != 0 {
		t.Errorf("%d flows were written", n)
	}
	write(t, s, f)
}
