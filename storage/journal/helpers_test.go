package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage"
	"github.com/exitgate/exitgate/storage/storagetest"
)

// A memory is a store of flows that does what a test wants first. It keeps what [storage.FlowWriter] promises.
type memory struct {
	mu      sync.Mutex
	before  func(context.Context, []*exitgate.Flow) error
	flows   map[exitgate.ID]*exitgate.Flow
	written map[exitgate.ID]int // how often the ended version came
	order   []exitgate.ID       // of ended versions
}

func (m *memory) WriteRows(ctx context.Context, rows []storage.Row) error {
	var flows []*exitgate.Flow
	for _, r := range storage.Dedupe(rows) {
		f, err := storage.DecodeRow(r.Fields)
		if err != nil || f.ID != r.ID || r.Ended == f.End.IsZero() {
			panic(fmt.Sprint("a bad row: ", r, err))
		}
		flows = append(flows, f)
	}
	m.mu.Lock()
	before := m.before
	m.mu.Unlock()
	if before != nil {
		if err := before(ctx, flows); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.flows == nil {
		m.flows, m.written = map[exitgate.ID]*exitgate.Flow{}, map[exitgate.ID]int{}
	}
	for _, f := range flows {
		if !f.End.IsZero() {
			m.written[f.ID]++
			m.order = append(m.order, f.ID)
		}
		if old := m.flows[f.ID]; old == nil || old.End.IsZero() {
			m.flows[f.ID] = f
		}
	}
	return nil
}

func (m *memory) do(f func(context.Context, []*exitgate.Flow) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.before = f
}

func (m *memory) get(id exitgate.ID) (f *exitgate.Flow, times int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.flows[id], m.written[id]
}

func (m *memory) len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.flows)
}

var errDown = errors.New("connection refused")

func down(context.Context, []*exitgate.Flow) error { return errDown }

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func start(t *testing.T, dir string, s storage.FlowWriter, o Options) *Journal {
	t.Helper()
	if o.Log == nil {
		o.Log = quiet()
	}
	j, err := Open(t.Context(), dir, s, o)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// stop closes j and wants it drained.
func stop(t *testing.T, j *Journal) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := j.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// crash closes j without draining: what a kill leaves, but for the lock.
func crash(t *testing.T, j *Journal) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	j.Close(ctx)
	<-j.done
	j.closeFiles()
}

// pair returns a fresh flow as it begins and as it ends.
func pair() (begun, ended *exitgate.Flow) {
	begun, ended = storagetest.Typical()
	begun.ID = exitgate.NewID(begun.Begin)
	ended.ID = begun.ID
	return begun, ended
}

// pass begins and ends n flows and returns them as they ended.
func pass(t *testing.T, j *Journal, n int) []*exitgate.Flow {
	t.Helper()
	var flows []*exitgate.Flow
	for range n {
		begun, ended := pair()
		begin(t, j, begun)
		end(t, j, ended)
		flows = append(flows, ended)
	}
	return flows
}

func begin(t *testing.T, j *Journal, f *exitgate.Flow) {
	t.Helper()
	if err := j.Begin(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func end(t *testing.T, j *Journal, f *exitgate.Flow) {
	t.Helper()
	if err := j.End(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

// wantAll fails t unless the store has each of flows, stored once, in their order.
func wantAll(t *testing.T, m *memory, flows []*exitgate.Flow) {
	t.Helper()
	for i, want := range flows {
		got, times := m.get(want.ID)
		if times != 1 {
			t.Fatalf("flow %d of %d was stored %d times, want once", i, len(flows), times)
		}
		storagetest.Same(t, got, want)
		if m.order[i] != want.ID {
			t.Fatalf("flow %d of %d came out of order", i, len(flows))
		}
	}
	if m.len() != len(flows) {
		t.Errorf("the store has %d flows, want %d", m.len(), len(flows))
	}
}
