package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage/storagetest"
)

func TestEachFlowIsStoredOnce(t *testing.T) {
	var m memory
	j := start(t, t.TempDir(), &m, Options{Batch: 10})
	flows := pass(t, j, 105)
	stop(t, j)
	wantAll(t, &m, flows)
	if s := j.Stats(); s.Waiting != 0 || s.Stored != 105 || s.Open != 0 || s.StoreErrors != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a[b*c", "journal")
	var m memory
	j := start(t, dir, &m, Options{})
	pass(t, j, 1)
	stop(t, j)
	for name, want := range map[string]os.FileMode{dir: 0o700, segmentName(dir, 1): 0o600, filepath.Join(dir, "cursor"): 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %o", name, info.Mode(), err, want)
		}
	}
	j = start(t, dir, &m, Options{})
	stop(t, j)
}

func TestOneProcess(t *testing.T) {
	dir := t.TempDir()
	j := start(t, dir, &memory{}, Options{})
	defer stop(t, j)
	if _, err := Open(t.Context(), dir, &memory{}, Options{Log: quiet()}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second journal in the same folder: %v", err)
	}
}

// TestFlushInTime: a lone flow does not wait for its batch to fill.
func TestFlushInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m memory
		j := start(t, t.TempDir(), &m, Options{})
		pass(t, j, 1)
		time.Sleep(251 * time.Millisecond)
		synctest.Wait()
		if m.len() != 1 {
			t.Error("not stored after FlushEvery")
		}
		stop(t, j)
	})
}

// TestOpenIsShown: a flow that stays open is stored as open, and its end replaces that.
func TestOpenIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m memory
		j := start(t, t.TempDir(), &m, Options{})
		begun, ended := pair()
		begin(t, j, begun)
		time.Sleep(1900 * time.Millisecond)
		synctest.Wait()
		if m.len() != 0 {
			t.Error("stored as open at once: most flows are short")
		}
		time.Sleep(1200 * time.Millisecond)
		synctest.Wait()
		if got, _ := m.get(begun.ID); got == nil {
			t.Fatal("not stored as open")
		} else {
			storagetest.Same(t, got, begun)
		}
		m.do(func(context.Context, []*exitgate.Flow) error { t.Error("stored as open twice"); return nil })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		m.do(nil)
		end(t, j, ended)
		stop(t, j)
		wantAll(t, &m, []*exitgate.Flow{ended})
	})
}

func TestStoreThatFails(t *testing.T) {
	for name, fail := range map[string]func(context.Context, []*exitgate.Flow) error{
		"error":  down,
		"panic":  func(context.Context, []*exitgate.Flow) error { panic("index out of range") },
		"hangs":  func(ctx context.Context, _ []*exitgate.Flow) error { <-ctx.Done(); return ctx.Err() },
		"nil":    func(context.Context, []*exitgate.Flow) error { var f *exitgate.Flow; _ = f.ID; return nil },
		"slowly": func(ctx context.Context, _ []*exitgate.Flow) error { time.Sleep(3 * time.Second); return errDown },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := memory{before: fail}
				j := start(t, t.TempDir(), &m, Options{Batch: 7})
				flows := pass(t, j, 100) // does not wait for the store
				time.Sleep(2 * time.Minute)
				if s := j.Stats(); s.Waiting != 100 || s.StoreErrors == 0 || s.LastError == "" || s.FailingSince.IsZero() || s.Oldest.IsZero() {
					t.Errorf("stats while it fails: %+v", s)
				}
				m.do(nil)
				flows = append(flows, pass(t, j, 50)...)
				time.Sleep(time.Minute)
				if s := j.Stats(); s.Waiting != 0 || s.LastError != "" || !s.Oldest.IsZero() {
					t.Errorf("stats when it works again: %+v", s)
				}
				flows = append(flows, pass(t, j, 5)...)
				stop(t, j)
				wantAll(t, &m, flows)
			})
		})
	}
}

// TestCloseWithHungStore: a store that heeds nothing holds up neither the data path nor Close.
func TestCloseWithHungStore(t *testing.T) {
	release := make(chan struct{})
	m := memory{before: func(context.Context, []*exitgate.Flow) error { <-release; return errDown }}
	dir := t.TempDir()
	j := start(t, dir, &m, Options{Batch: 1})
	flows := pass(t, j, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := j.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "3 flows") {
		t.Errorf("close: %v", err)
	}
	close(release)
	<-j.done
	j.closeFiles()
	var good memory
	j = start(t, dir, &good, Options{})
	stop(t, j)
	wantAll(t, &good, flows)
}

func TestRestart(t *testing.T) {
	dir := t.TempDir()
	var flows []*exitgate.Flow
	for range 3 { // three lives in which the store is down
		m := memory{before: down}
		j := start(t, dir, &m, Options{SegmentBytes: 8 << 10, MaxBytes: 1 << 20})
		flows = append(flows, pass(t, j, 11)...)
		crash(t, j)
	}
	var m memory
	j := start(t, dir, &m, Options{})
	flows = append(flows, pass(t, j, 3)...)
	stop(t, j)
	wantAll(t, &m, flows)
	j = start(t, dir, &m, Options{})
	if s := j.Stats(); s.Waiting != 0 || s.Bytes != 0 {
		t.Errorf("after all was stored: %+v", s)
	}
	stop(t, j)
}

// TestReadBackRegression: flows were recorded while others were read back, and the size of a segment was read without
// the lock (seen by the race detector).
func TestReadBackRegression(t *testing.T) {
	m := memory{before: down}
	j := start(t, t.TempDir(), &m, Options{Batch: 10, MaxBackoff: time.Millisecond})
	flows := pass(t, j, 200)
	m.do(nil)
	for j.Stats().Stored < 200 {
		flows = append(flows, pass(t, j, 5)...)
	}
	stop(t, j)
	wantAll(t, &m, flows)
}

// TestBatchBytes: what is read for the store at once is bounded in bytes, however few flows that are.
func TestBatchBytes(t *testing.T) {
	const limit = 20 << 10
	m := memory{before: down}
	j := start(t, t.TempDir(), &m, Options{BatchBytes: limit, MaxBackoff: time.Millisecond})
	flows := pass(t, j, 200)
	largest := 0
	m.do(func(_ context.Context, flows []*exitgate.Flow) error { largest = max(largest, len(flows)); return nil })
	stop(t, j)
	wantAll(t, &m, flows)
	if largest == 0 || largest > limit/1000 {
		t.Errorf("%d flows were written at once", largest)
	}
}

func TestInterrupted(t *testing.T) {
	dir := t.TempDir()
	m := memory{before: down}
	j := start(t, dir, &m, Options{})
	begun, _ := pair()
	begin(t, j, begun)
	ended := pass(t, j, 2)
	crash(t, j)
	m.do(nil)
	for range 2 { // the second time there is nothing left to interrupt
		j = start(t, dir, &m, Options{})
		stop(t, j)
	}
	got, times := m.get(begun.ID)
	if times != 1 || got.Outcome() != exitgate.OutcomeInterrupted || got.End.Before(got.Begin) || time.Since(got.End) > time.Hour {
		t.Fatalf("%d times, %+v", times, got)
	}
	got.Interrupted, got.End = false, time.Time{}
	storagetest.Same(t, got, begun)
	for _, f := range ended {
		if got, _ := m.get(f.ID); got == nil || got.Interrupted {
			t.Errorf("an ended flow: %+v", got)
		}
	}
}

// TestChangedSubject: what End says of the question holds, and it is written again only where it has to be.
func TestChangedSubject(t *testing.T) {
	addr := netip.MustParseAddrPort
	for name, c := range map[string]struct {
		change func(q *exitgate.Question)
		full   bool
	}{
		"not at all":          {func(*exitgate.Question) {}, false},
		"dialled":             {func(q *exitgate.Question) { q.Dest.Addr = addr("198.51.100.7:443") }, false},
		"dialled IPv6":        {func(q *exitgate.Question) { q.Dest.Addr = addr("[2001:db8::7]:443") }, false},
		"dialled with a zone": {func(q *exitgate.Question) { q.Dest.Addr = addr(`[fe80::1%"x]:443`) }, false},
		"another request": {func(q *exitgate.Question) {
			r := *q.HTTP
			r.Path = "/elsewhere"
			q.HTTP = &r
		}, true},
		"no request":            {func(q *exitgate.Question) { q.HTTP = nil }, true},
		"another hello":         {func(q *exitgate.Question) { q.TLS = &exitgate.TLS{SNI: "example.org"} }, true},
		"another host":          {func(q *exitgate.Question) { q.Host.Name = "web-02" }, true},
		"dialled, another port": {func(q *exitgate.Question) { q.Dest.Port, q.Dest.Addr = 80, addr("198.51.100.7:80") }, true},
		"another aim":           {func(q *exitgate.Question) { q.Dest.Aim = addr("198.51.100.8:443") }, true},
		"another destination":   {func(q *exitgate.Question) { q.Dest.Host = "example.org" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			m := memory{before: down}
			j := start(t, dir, &m, Options{})
			begun, ended := pair()
			begin(t, j, begun)
			before := j.Stats().Bytes
			c.change(&ended.Question)
			end(t, j, ended)
			full := int64(len(appendSubject(appendFlow(nil, ended), &ended.Question)))
			if got := j.Stats().Bytes-before > full; got != c.full {
				t.Errorf("the subject was written again: %v, want %v", got, c.full)
			}
			crash(t, j)
			m.do(nil)
			j = start(t, dir, &m, Options{})
			stop(t, j)
			wantAll(t, &m, []*exitgate.Flow{ended})
		})
	}
}

// TestOtherVersion: flows that another version of this program left are kept aside, and their neighbours stored.
func TestOtherVersion(t *testing.T) {
	dir := t.TempDir()
	m := memory{before: down}
	j := start(t, dir, &m, Options{})
	flows := pass(t, j, 3)
	crash(t, j)
	b, err := os.ReadFile(segmentName(dir, 1))
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.LastIndex(b, []byte(magic)) // the End of the last flow
	b[at+60]++
	binary.LittleEndian.PutUint32(b[at+64:], crc32.Checksum(b[at:at+64], castagnoli()))
	if err := os.WriteFile(segmentName(dir, 1), b, 0o600); err != nil {
		t.Fatal(err)
	}
	m.do(nil)
	j = start(t, dir, &m, Options{})
	stop(t, j)
	wantAll(t, &m, flows[:2])
	kept, err := filepath.Glob(filepath.Join(dir, "quarantine", "*.flow"))
	if s := j.Stats(); err != nil || len(kept) != 1 || s.Quarantined != 1 {
		t.Errorf("%v, %v, %+v", kept, err, s)
	}
}

// TestUndialled: an address that Begin knew and End does not is not kept.
func TestUndialled(t *testing.T) {
	dir := t.TempDir()
	m := memory{before: down}
	j := start(t, dir, &m, Options{})
	begun, ended := pair()
	begun.Question.Dest.Addr = netip.MustParseAddrPort("198.51.100.7:443")
	begin(t, j, begun)
	end(t, j, ended)
	crash(t, j)
	m.do(nil)
	j = start(t, dir, &m, Options{})
	stop(t, j)
	wantAll(t, &m, []*exitgate.Flow{ended})
}

func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memory{before: down}
		dir := t.TempDir()
		j := start(t, dir, &m, Options{MaxBytes: 100 << 10, Batch: 5})
		open, done := pair()
		begin(t, j, open)
		var flows []*exitgate.Flow
		for {
			begun, ended := pair()
			if err := j.Begin(t.Context(), begun); err != nil {
				time.Sleep(time.Second)
				err := j.Begin(t.Context(), begun)
				if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "connection refused") || !strings.Contains(err.Error(), dir) {
					t.Errorf("the error does not name the cause: %v", err)
				}
				break
			}
			end(t, j, ended)
			flows = append(flows, ended)
		}
		if len(flows) < 10 {
			t.Errorf("only %d flows fit", len(flows))
		}
		end(t, j, done) // an end is always taken
		flows = append(flows, done)
		m.do(nil)
		time.Sleep(time.Minute)
		flows = append(flows, pass(t, j, 5)...)
		stop(t, j)
		wantAll(t, &m, flows)
		if s := j.Stats(); s.Refused != 2 || s.Bytes > 60<<10 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestCarryForward: one flow that stays open does not keep every segment since it began.
func TestCarryForward(t *testing.T) {
	dir := t.TempDir()
	var m memory
	j := start(t, dir, &m, Options{MaxBytes: 64 << 10, SegmentBytes: 8 << 10, Batch: 3, FlushEvery: time.Millisecond})
	begun, ended := pair()
	begin(t, j, begun)
	stays, _ := pair()
	begin(t, j, stays)
	var flows []*exitgate.Flow
	for range 40 { // more than MaxBytes in all
		flows = append(flows, pass(t, j, 3)...)
		waitStored(j)
	}
	if s := j.Stats(); s.Bytes > 32<<10 {
		t.Errorf("%d bytes are kept for two open flows", s.Bytes)
	}
	m.do(down)
	end(t, j, ended)
	crash(t, j)
	m.do(nil)
	j = start(t, dir, &m, Options{})
	stop(t, j)
	got, _ := m.get(stays.ID)
	if got == nil || !got.Interrupted || got.Question.HTTP == nil {
		t.Fatalf("the flow that stayed open: %+v", got)
	}
	if got, _ := m.get(ended.ID); got == nil {
		t.Error("the flow that was carried forward and ended is lost")
	} else {
		storagetest.Same(t, got, ended)
	}
	for _, f := range flows {
		if _, times := m.get(f.ID); times != 1 {
			t.Fatalf("a flow was stored %d times", times)
		}
	}
}

// waitStored waits until nothing waits.
func waitStored(j *Journal) {
	for {
		j.mu.Lock()
		waiting, drained := j.stats.Waiting, j.drained
		j.mu.Unlock()
		if waiting == 0 {
			return
		}
		<-drained
	}
}

// TestBadFlow: a flow that the store refuses while it takes others is put aside, alone.
func TestBadFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m memory
		dir := t.TempDir()
		j := start(t, dir, &m, Options{Batch: 50})
		bad, badEnd := pair()
		m.do(func(_ context.Context, flows []*exitgate.Flow) error {
			if slices.ContainsFunc(flows, func(f *exitgate.Flow) bool { return f.ID == bad.ID }) {
				return errors.New("value too long")
			}
			return nil
		})
		begin(t, j, bad)
		end(t, j, badEnd)
		time.Sleep(10 * time.Minute) // alone, it could be the store
		if s := j.Stats(); s.Waiting != 1 || s.Quarantined != 0 {
			t.Errorf("a lone flow: %+v", s)
		}
		flows := pass(t, j, 30)
		time.Sleep(time.Minute)
		flows = append(flows, pass(t, j, 5)...)
		stop(t, j)
		for _, f := range flows {
			if got, _ := m.get(f.ID); got == nil {
				t.Fatal("a neighbour is lost")
			}
		}
		if _, err := os.Stat(filepath.Join(dir, "quarantine", bad.ID.String()+".json")); err != nil || j.Stats().Quarantined != 1 {
			t.Errorf("%v, %+v", err, j.Stats())
		}
	})
}

func TestMisuse(t *testing.T) {
	var m memory
	j := start(t, t.TempDir(), &m, Options{})
	begun, ended := pair()
	begin(t, j, begun)
	begin(t, j, begun)
	end(t, j, ended)
	end(t, j, ended) // a second end
	_, other := pair()
	end(t, j, other) // an end without a begin
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := j.Begin(ctx, begun); !errors.Is(err, context.Canceled) {
		t.Errorf("begin with a cancelled context: %v", err)
	}
	stop(t, j)
	for _, f := range []*exitgate.Flow{ended, other} {
		got, _ := m.get(f.ID)
		storagetest.Same(t, got, f)
	}
	if err := j.Begin(t.Context(), begun); !errors.Is(err, ErrClosed) {
		t.Errorf("begin after close: %v", err)
	}
	if err := j.End(t.Context(), begun); !errors.Is(err, ErrClosed) {
		t.Errorf("end after close: %v", err)
	}
	if err := j.Close(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("close after close: %v", err)
	}
}
