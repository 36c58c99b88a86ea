package journal

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/exitgate/exitgate/storage"
	"github.com/exitgate/exitgate/storage/storagetest"
)

func TestTail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := start(t, t.TempDir(), &memory{}, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		filter, err := storage.ParseQuery("-host:other")
		if err != nil {
			t.Fatal(err)
		}
		all := j.Tail(ctx, filter)
		slow := j.Tail(t.Context(), storage.Filter{})
		_, other := pair()
		other.Question.Host.Name = "other"
		end(t, j, other)
		flows := pass(t, j, 3)
		for _, want := range flows {
			if got := <-all; got.ID != want.ID {
				t.Errorf("got %s, want %s", got.ID, want.ID)
			}
		}
		cancel()
		if _, ok := <-all; ok {
			t.Error("the tail goes on after its context is done")
		}
		synctest.Wait()
		pass(t, j, tailBuffer+10)
		if n := j.Stats().TailDrops; n != 13 { // one is in the hands of the goroutine that copies
			t.Errorf("%d drops are counted, want 13", n)
		}
		stop(t, j)
		n := 0
		for range slow {
			n++
		}
		if n != 1+tailBuffer {
			t.Errorf("the slow tail got %d flows", n)
		}
		if _, ok := <-j.Tail(t.Context(), filter); ok {
			t.Error("a tail of a closed journal")
		}
	})
}

// disk is a file whose calls fail when a test says so.
type disk struct {
	file
	fail func(call string) (short int, err error)
}

func (d disk) WriteAt(b []byte, off int64) (int, error) {
	if short, err := d.fail("write"); err != nil {
		n, _ := d.file.WriteAt(b[:min(short, len(b))], off)
		return n, err
	}
	return d.file.WriteAt(b, off)
}

func (d disk) Sync() error {
	if _, err := d.fail("sync"); err != nil {
		return err
	}
	return d.file.Sync()
}

func TestDiskThatFails(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EIO, syscall.EDQUOT} {
		t.Run(errno.Error(), func(t *testing.T) {
			failing := false
			o := Options{Log: quiet(), openFile: func(name string, create bool) (file, error) {
				f, err := openFile(name, create)
				return disk{f, func(call string) (int, error) {
					if failing && call == "write" {
						return 77, errno
					}
					return 0, nil
				}}, err
			}}
			dir := t.TempDir()
			var m memory
			j := start(t, dir, &m, o)
			flows := pass(t, j, 3)
			begun, ended := pair()
			begin(t, j, begun)
			left, _ := pair()
			begin(t, j, left)
			failing = true
			refused, _ := pair()
			if err := j.Begin(t.Context(), refused); !errors.Is(err, errno) {
				t.Errorf("begin on a disk that fails: %v", err)
			}
			end(t, j, ended) // is kept in memory
			failing = false
			flows = append(flows, pass(t, j, 3)...)
			waitStored(j)
			if s := j.Stats(); s.DiskErrors == 0 || s.Refused != 1 || s.LostEnds != 0 {
				t.Errorf("stats %+v", s)
			}
			crash(t, j)
			j = start(t, dir, &m, Options{})
			stop(t, j)
			for _, f := range append(flows, ended) {
				got, _ := m.get(f.ID)
				if got == nil {
					t.Fatal("a flow is lost")
				}
				storagetest.Same(t, got, f)
			}
			if got, _ := m.get(left.ID); got == nil || !got.Interrupted {
				t.Errorf("the flow that was left open: %+v", got)
			}
			if got, _ := m.get(refused.ID); got != nil {
				t.Error("the refused flow was stored")
			}
		})
	}
}

func TestSync(t *testing.T) {
	var syncs int
	var failing error
	o := Options{Sync: true, SyncEvery: time.Hour, openFile: func(name string, create bool) (file, error) {
		f, err := openFile(name, create)
		return disk{f, func(call string) (int, error) {
			if call == "sync" {
				syncs++
				return 0, failing
			}
			return 0, nil
		}}, err
	}}
	var m memory
	j := start(t, t.TempDir(), &m, o)
	for i := range 3 {
		begun, ended := pair()
		begin(t, j, begun)
		if syncs <= i {
			t.Fatal("begin returned before the sync")
		}
		end(t, j, ended)
	}
	failing = syscall.EIO
	begun, _ := pair()
	if err := j.Begin(t.Context(), begun); err == nil {
		t.Error("begin returned nil, and the sync had failed")
	}
	failing = nil
	pass(t, j, 1)
	stop(t, j)
	if m.len() != 4 {
		t.Errorf("%d flows stored, want 4", m.len())
	}
}

// TestDiskThatIsGone: memory that cannot be written, since the file lost what was under it, is an error and not the end of
// the process.
func TestDiskThatIsGone(t *testing.T) {
	dir := t.TempDir()
	var m memory
	j := start(t, dir, &m, Options{SegmentBytes: 64 << 10, FlushEvery: time.Hour})
	flows := pass(t, j, 2)
	begun, ended := pair()
	begin(t, j, begun)
	if err := os.Truncate(segmentName(dir, 1), 4096); err != nil { // as if blocks were gone
		t.Fatal(err)
	}
	refused := 0
	for range 5 {
		begun, ended := pair()
		if err := j.Begin(t.Context(), begun); err != nil {
			refused++
			continue
		}
		end(t, j, ended)
		flows = append(flows, ended)
	}
	end(t, j, ended)
	flows = append(flows, ended)
	if s := j.Stats(); refused == 0 || refused > 1 || s.Refused != int64(refused) {
		t.Errorf("%d begins failed, want one: %+v", refused, s)
	}
	stop(t, j)
	for _, f := range flows[2:] {
		if got, _ := m.get(f.ID); got == nil {
			t.Errorf("a flow that was begun in another segment is lost: %s", f.ID)
		}
	}
}

// TestDiskThatIsFull: room is set aside when a segment begins, so that a full disk refuses a flow and never cuts one.
func TestDiskThatIsFull(t *testing.T) {
	var m memory
	full := false
	j := start(t, t.TempDir(), &m, Options{SegmentBytes: 8 << 10, openFile: func(name string, create bool) (file, error) {
		f, err := openFile(name, create)
		return fullDisk{f, &full}, err
	}})
	flows := pass(t, j, 1)
	full = true
	for {
		begun, ended := pair()
		if err := j.Begin(t.Context(), begun); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("begin on a full disk: %v", err)
			}
			break
		}
		end(t, j, ended)
		flows = append(flows, ended)
	}
	full = false
	flows = append(flows, pass(t, j, 3)...)
	stop(t, j)
	wantAll(t, &m, flows)
}

type fullDisk struct {
	file
	full *bool
}

func (f fullDisk) Prepare(size int64) error {
	if *f.full {
		return syscall.ENOSPC
	}
	return f.file.Prepare(size)
}
