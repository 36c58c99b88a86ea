package gatetest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
)

// A Recorder keeps flows in memory and holds the engine to the law: each flow begins once and ends once.
type Recorder struct {
	t testing.TB

	mu    sync.Mutex
	cond  *sync.Cond
	begun map[exitgate.ID]exitgate.Flow
	ended []exitgate.Flow
	wrong []string

	// BeginErr, when it returns an error, fails Begin. It is called without the lock held, so it may block.
	BeginErr func(*exitgate.Flow) error
}

// NewRecorder returns an empty recorder.
func NewRecorder(t testing.TB) *Recorder {
	r := &Recorder{t: t, begun: map[exitgate.ID]exitgate.Flow{}}
	r.cond = sync.NewCond(&r.mu)
	return r
}

// Begin implements mitm.Recorder.
func (r *Recorder) Begin(_ context.Context, f *exitgate.Flow) error {
	if r.BeginErr != nil {
		if err := r.BeginErr(f); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.begun[f.ID]; ok {
		r.wrong = append(r.wrong, fmt.Sprintf("flow %s begun twice", f.ID))
	}
	r.begun[f.ID] = *f
	r.cond.Broadcast()
	return nil
}

// End implements mitm.Recorder.
func (r *Recorder) End(_ context.Context, f *exitgate.Flow) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.begun[f.ID]; !ok {
		r.wrong = append(r.wrong, fmt.Sprintf("flow %s ended without having begun, or twice", f.ID))
	}
	delete(r.begun, f.ID)
	if f.End.IsZero() || f.End.Before(f.Begin) {
		r.wrong = append(r.wrong, fmt.Sprintf("flow %s ends at %v, begun at %v", f.ID, f.End, f.Begin))
	}
	r.ended = append(r.ended, *f)
	r.cond.Broadcast()
	return nil
}

// Begun returns how many flows were begun so far, ended ones included.
func (r *Recorder) Begun() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.begun) + len(r.ended)
}

// Wait returns the first n flows that ended, once there are so many.
func (r *Recorder) Wait(n int) []exitgate.Flow {
	r.t.Helper()
	timer := time.AfterFunc(20*time.Second, func() { r.mu.Lock(); r.cond.Broadcast(); r.mu.Unlock() })
	defer timer.Stop()
	deadline := time.Now().Add(20 * time.Second)
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.ended) < n {
		if time.Now().After(deadline) {
			r.t.Fatalf("%d flows ended within 20 s, want %d; open: %d", len(r.ended), n, len(r.begun))
		}
		r.cond.Wait()
	}
	return append([]exitgate.Flow(nil), r.ended...)
}

// Last waits for n flows and returns the last of them.
func (r *Recorder) Last(n int) exitgate.Flow { r.t.Helper(); return r.Wait(n)[n-1] }

// check reports what broke the law, after the engine has stopped.
func (r *Recorder) check() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.wrong {
		r.t.Error(w)
	}
	for id, f := range r.begun {
		r.t.Errorf("flow %s (%s %s) has no end", id, f.Kind, f.Question.Dest)
	}
}
