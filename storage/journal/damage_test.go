package journal

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage"
	"github.com/exitgate/exitgate/storage/storagetest"
)

// written returns the bytes of a segment with n ended flows, the flows, and where each frame starts (a begin and an end
// for each flow), and the length.
func written(t *testing.T, n int) (b []byte, flows []*exitgate.Flow, starts []int64) {
	t.Helper()
	dir := t.TempDir()
	j := start(t, dir, &memory{before: down}, Options{})
	for range n {
		starts = append(starts, j.Stats().Bytes)
		begun, ended := pair()
		begin(t, j, begun)
		starts = append(starts, j.Stats().Bytes)
		end(t, j, ended)
		flows = append(flows, ended)
	}
	starts = append(starts, j.Stats().Bytes)
	crash(t, j)
	b, err := os.ReadFile(segmentName(dir, 1))
	if err != nil {
		t.Fatal(err)
	}
	return b[:starts[2*n]], flows, starts // the rest is room that was set aside
}

// replay opens a journal whose segment 1 is b and returns what it stores.
func replay(t *testing.T, b []byte) (*memory, Stats, string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(segmentName(dir, 1), b, 0o600); err != nil {
		t.Fatal(err)
	}
	var m memory
	j := start(t, dir, &m, Options{})
	stop(t, j)
	return &m, j.Stats(), dir
}

// TestTornTail cuts the last frame at every byte: all before it is kept, and its flow is interrupted.
func TestTornTail(t *testing.T) {
	b, flows, starts := written(t, 3)
	last := starts[5] // the end of the third
	for cut := last; cut < int64(len(b)); cut += 1 + cut%13 {
		m, s, _ := replay(t, b[:cut])
		for i, f := range flows {
			got, times := m.get(f.ID)
			if times != 1 || got.Interrupted != (i == 2) {
				t.Fatalf("cut at %d: flow %d: stored %d times, %+v", cut, i, times, got)
			}
		}
		if s.TornBytes != cut-last || s.DamagedBytes != 0 {
			t.Fatalf("cut at %d: stats %+v", cut, s)
		}
	}
}

// TestDamagedMiddle flips a byte of the frames in the middle: the flows before and after are not affected, and the
// damaged bytes are kept.
func TestDamagedMiddle(t *testing.T) {
	b, flows, starts := written(t, 3)
	for at := starts[2]; at < starts[4]; at += 1 + at%17 {
		bad := append([]byte(nil), b...)
		bad[at] ^= 0x20
		m, s, dir := replay(t, bad)
		for _, i := range []int{0, 2} {
			got, times := m.get(flows[i].ID)
			if times != 1 {
				t.Fatalf("byte %d: flow %d was stored %d times", at, i, times)
			}
			storagetest.Same(t, got, flows[i])
		}
		got, times := m.get(flows[1].ID)
		if times != 1 || got.Interrupted != (at >= starts[3]) {
			t.Fatalf("byte %d: the damaged flow was stored %d times: %+v", at, times, got)
		}
		kept, err := filepath.Glob(filepath.Join(dir, "quarantine", "*.damaged"))
		if err != nil || len(kept) != 1 || s.DamagedBytes == 0 || s.TornBytes != 0 {
			t.Fatalf("byte %d: %v, %v, stats %+v", at, kept, err, s)
		}
	}
}

// TestUsedAgain: a file that is used for another segment still holds the frames of its first life, cut where the new
// ones end. They are never read as frames of the new one, nor taken for damage.
func TestUsedAgain(t *testing.T) {
	dir := t.TempDir()
	var m memory
	j := start(t, dir, &m, Options{SegmentBytes: 16 << 10, Batch: 3, FlushEvery: time.Millisecond})
	var flows []*exitgate.Flow
	var now *segment
	for again := false; !again; { // until a file that was longer holds a few frames
		flows = append(flows, pass(t, j, 1)...)
		waitStored(j)
		j.mu.Lock()
		now = j.active()
		size := now.size
		j.mu.Unlock()
		b, err := os.ReadFile(now.name)
		if err != nil || len(flows) > 10_000 {
			t.Fatalf("no file was used again: %v", err)
		}
		again = 4<<10 < size && size < 8<<10 && bytes.Count(b[size:], []byte(magic)) > 1
	}
	m.do(down)
	flows = append(flows, pass(t, j, 2)...)
	crash(t, j)
	for what, change := range map[string]func(b []byte) []byte{
		"as it was left": func(b []byte) []byte { return b },
		"torn":           func(b []byte) []byte { copy(b[now.size-10:], make([]byte, 10)); return b },
	} {
		left := t.TempDir()
		if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		name := segmentName(left, now.n)
		b, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(name, change(b), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		again := memory{before: down}
		j := start(t, left, &again, Options{})
		if s := j.Stats(); s.DamagedBytes != 0 || s.TornBytes != 0 || (what == "torn") != (s.Interrupted == 1) {
			t.Errorf("%s: %+v", what, s)
		}
		crash(t, j)
	}
	m.do(nil)
	j = start(t, dir, &m, Options{})
	stop(t, j)
	for _, f := range flows {
		if got, times := m.get(f.ID); times != 1 {
			t.Fatalf("a flow was stored %d times: %+v", times, got)
		}
	}
}

func TestMissingSegment(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []uint64{3, 5} {
		if err := os.WriteFile(segmentName(dir, n), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Open(t.Context(), dir, &memory{}, Options{Log: quiet()})
	if err == nil || !strings.Contains(err.Error(), "0000000000000004.journal is missing") {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(segmentName(dir, 4), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, cursor := range []string{"", "{", `{"segment":9,"offset":1}`, `{"segment":4,"offset":-1}`, `{"segment":4,"offset":1000000}`} {
		if err := os.WriteFile(filepath.Join(dir, "cursor"), []byte(cursor), 0o600); err != nil {
			t.Fatal(err)
		}
		var m memory
		j := start(t, dir, &m, Options{})
		flows := pass(t, j, 2)
		stop(t, j)
		for _, f := range flows { // those of the lives before may come again
			if _, times := m.get(f.ID); times != 1 {
				t.Errorf("cursor %q: a flow was stored %d times", cursor, times)
			}
		}
	}
}

// FuzzOpen opens a journal over hostile bytes. It must neither panic nor refuse, and must still work.
func FuzzOpen(f *testing.F) {
	frame := func(k kind, id exitgate.ID, begin place, payload string) []byte {
		b := append(make([]byte, headerLen), payload...)
		seal(b, header{kind: k, id: id, segment: 1, begin: begin}, crc32.Checksum([]byte(payload), castagnoli()))
		return b
	}
	id := exitgate.ID{1}
	begun, ended := pair()
	flow := string(appendFlow(nil, ended))
	subject := string(appendSubject(nil, &begun.Question))
	good := frame(kindBegin, id, place{}, string(appendFlow(nil, begun))+subject)
	f.Add([]byte{})
	f.Add([]byte(strings.Repeat(magic, 40)))
	f.Add(good)
	f.Add(append(good, frame(kindEnd, id, place{1, 0}, flow+"\x00")...))
	f.Add(append(good, frame(kindEnd, id, place{1, 0}, flow+"\x01\x04\x7f\x00\x00\x01\x50")...))
	f.Add(frame(kindEnd, id, place{1, 0}, flow+"\x00"))
	f.Add(frame(kindEnd, id, place{1 << 63, 5}, flow+"\x02"+subject))
	f.Add(frame(kindEnd, id, place{9, 9}, "\xff\xff\xff\xff"))
	f.Add(frame(kindEnd, id, place{9, 9}, ""))
	f.Add(frame(kindBegin, id, place{}, "not a flow"))
	f.Add(frame('?', id, place{}, flow))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(segmentName(dir, 1), b, 0o600); err != nil {
			t.Fatal(err)
		}
		var m memory
		j := start(t, dir, &m, Options{})
		flows := pass(t, j, 1)
		stop(t, j)
		if got, _ := m.get(flows[0].ID); got == nil {
			t.Error("a new flow is lost")
		}
	})
}

// killed is the environment variable that makes this test binary the process to be killed.
const killed = "EXITGATE_JOURNAL_TO_KILL"

// TestKilled kills a process that records flows as fast as it can. Every begin and every end that had returned must be
// found, exactly once.
func TestKilled(t *testing.T) {
	if dir := os.Getenv(killed); dir != "" {
		recordUntilKilled(t, dir)
		return
	}
	for round := range 5 {
		dir := t.TempDir()
		begun, ended := killChild(t, dir, 2000+round*700)
		before := storedBefore(t, dir)
		if round%2 == 1 && len(before) < len(ended)/3 {
			t.Fatalf("round %d: only %d flows were stored before the kill: no segment was used again", round, len(before))
		}
		var m memory
		j := start(t, dir, &m, Options{})
		stop(t, j)
		for id := range begun {
			got, times := m.get(id)
			if times == 0 && before[id] {
				continue
			}
			if times != 1 {
				t.Fatalf("round %d: an accepted flow was stored %d times, want once", round, times)
			}
			if got.Interrupted && ended[id] {
				t.Fatalf("round %d: the end of a flow was accepted and is lost", round)
			}
			if got.Question.HTTP == nil || got.Question.Host.Name != "web-01" {
				t.Fatalf("round %d: a flow lost its question: %+v", round, got)
			}
		}
	}
}

// killChild runs this test as a child, kills it after it said lines, and returns what it had been promised.
func killChild(t *testing.T, dir string, lines int) (begun, ended map[exitgate.ID]bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), killed+"="+dir, storing+"="+strconv.Itoa(lines/700%2))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	begun, ended = map[exitgate.ID]bool{}, map[exitgate.ID]bool{}
	said := bufio.NewScanner(out)
	for n := 0; said.Scan(); n++ { // what it said before the kill counts also when it is read after it
		what, text, _ := strings.Cut(said.Text(), " ")
		id, err := exitgate.ParseID(text)
		if err != nil {
			continue // the last line was cut
		}
		map[string]map[exitgate.ID]bool{"begun": begun, "ended": ended}[what][id] = true
		if n == lines {
			cmd.Process.Kill()
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the child ended by itself")
	}
	if len(begun) < lines/3 || len(ended) < lines/3 {
		t.Fatalf("only %d begun and %d ended: the test says nothing", len(begun), len(ended))
	}
	return begun, ended
}

// storing says in the environment of the process to be killed whether its store works.
const storing = "EXITGATE_JOURNAL_STORES"

// An idFile is a store that keeps ids in a file, and so survives the process. The flows must have ended.
type idFile struct{ *os.File }

func (f idFile) WriteRows(_ context.Context, rows []storage.Row) error {
	var b []byte
	for _, r := range rows {
		if r.Ended {
			b, _ = r.ID.AppendText(b)
		}
	}
	_, err := f.Write(b)
	return err
}

// storedBefore reads what an idFile holds.
func storedBefore(t *testing.T, dir string) map[exitgate.ID]bool {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "stored"))
	if err != nil {
		t.Fatal(err)
	}
	ids := map[exitgate.ID]bool{}
	for ; len(b) >= 26; b = b[26:] {
		id, err := exitgate.ParseID(string(b[:26]))
		if err != nil {
			t.Fatal(err)
		}
		ids[id] = true
	}
	return ids
}

func recordUntilKilled(t *testing.T, dir string) {
	stored, err := os.OpenFile(filepath.Join(dir, "stored"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	down := storage.FlowWriter(&memory{before: down})
	s := down
	if os.Getenv(storing) == "1" {
		s = idFile{stored}
	}
	j := start(t, dir, s, Options{SegmentBytes: 256 << 10, Batch: 50, FlushEvery: time.Millisecond})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var open []*exitgate.Flow
			for {
				if s != down && j.Stats().Waiting > 100 {
					waitStored(j) // so that files are used again
				}
				begun, ended := pair()
				if err := j.Begin(context.Background(), begun); err != nil {
					return
				}
				fmt.Printf("begun %s\n", begun.ID)
				open = append(open, ended)
				if i := rand.IntN(len(open)); len(open) > 5 {
					if err := j.End(context.Background(), open[i]); err != nil {
						return
					}
					fmt.Printf("ended %s\n", open[i].ID)
					open = append(open[:i], open[i+1:]...)
				}
			}
		})
	}
	wg.Wait()
}
