package journal

import (
	"context"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage"
)

// What the drainer does beside draining: flows that stay open, flows that the store does not take, and the sync.

// triesTogether is how often a batch is tried as it is before its flows are tried one by one, and triesApart how
// often one flow is tried alone while its neighbours are taken, before it is put aside.
const (
	triesTogether = 4
	triesApart    = 3
)

// deliverApart finds the flows that the store refuses while it takes their neighbours, so that one bad flow cannot
// stop all traffic: it puts them in quarantine. It reports whether all others are stored. A store that takes nothing,
// or a batch of one, tells nothing about a flow.
func (j *Journal) deliverApart(ctx context.Context, rows []storage.Row) bool {
	var refused []int
	for i := range rows {
		if err := j.write(ctx, rows[i:i+1]); err != nil {
			refused = append(refused, i)
		}
		if ctx.Err() != nil || len(refused) > len(rows)/2 {
			return false
		}
	}
	for _, i := range refused {
		for try := 1; j.write(ctx, rows[i:i+1]) != nil; try++ {
			if ctx.Err() != nil {
				return false
			}
			if try == triesApart {
				if !j.putAside(rows[i]) {
					return false
				}
				break
			}
		}
	}
	return true
}

func (j *Journal) putAside(r storage.Row) bool {
	name := r.ID.String() + ".json"
	record, question, err := storage.Parts(r.Fields)
	if err == nil {
		err = j.quarantine(name, slices.Concat(record[:max(len(record)-1, 0)], []byte(`,"question":`), question, []byte("}")))
	}
	if err != nil {
		j.o.Log.Error("journal: keep a flow that the store refuses", "flow", r.ID, "err", err)
		return false
	}
	j.o.Log.Error("journal: the store refuses a flow and takes its neighbours; it is kept in quarantine", "flow", r.ID, "file", name)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.stats.Quarantined++
	return true
}

// maxShown bounds the open flows that are stored at once.
const maxShown = 1000

// showOpen stores flows that have been open for a while, so that a long tunnel can be seen while it lasts. It is tried
// once: the next tick tries again.
func (j *Journal) showOpen(ctx context.Context) {
	var rows []storage.Row
	j.mu.Lock()
	var ids []exitgate.ID
	for id, b := range j.open {
		if len(ids) < maxShown && !b.shown && time.Since(b.since) >= j.o.OpenAfter {
			ids = append(ids, id)
		}
	}
	j.mu.Unlock()
	for _, id := range ids {
		if f, err := j.readOpen(id); err != nil {
			j.failed(err)
		} else if f != nil {
			rows = append(rows, j.rows.Row(f))
		}
	}
	if len(rows) == 0 {
		return
	}
	if err := j.write(ctx, rows); err != nil {
		j.failed(err)
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, id := range ids {
		if b, ok := j.open[id]; ok {
			b.shown = true
			j.open[id] = b
		}
	}
}

// readOpen returns a flow as it began, or nil when it is no longer open.
func (j *Journal) readOpen(id exitgate.ID) (*exitgate.Flow, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	b, ok := j.open[id]
	if !ok {
		return nil, nil
	}
	return j.began(b)
}

// carryForward copies the Begin frames of the oldest segment to the newest when only open flows keep it.
func (j *Journal) carryForward() {
	j.mu.Lock()
	s := j.segs[0]
	var ids []exitgate.ID
	if len(j.segs) > 1 && s.kept == 0 && s.open > 0 && s.n < j.cursor.Segment {
		for id, b := range j.open {
			if b.seg == s {
				ids = append(ids, id)
			}
		}
	}
	j.mu.Unlock()
	for _, id := range ids { // the lock is given up between two, so that nobody waits for all
		if err := j.carry(id, s); err != nil {
			j.o.Log.Warn("journal: copy the begin of an open flow forward; its segment is kept meanwhile", "flow", id, "err", err)
			return
		}
	}
}

func (j *Journal) carry(id exitgate.ID, s *segment) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	b, ok := j.open[id]
	if !ok || b.seg != s {
		return nil
	}
	fr, err := readFrame(s, b.off, s.size)
	if err != nil {
		return err
	}
	seg, off, err := j.append(append(make([]byte, headerLen), fr.payload...), fr.header, crc32.Checksum(fr.payload, castagnoli()))
	if err != nil {
		return err
	}
	j.forget(id)
	b.seg, b.off = seg, off
	b.seg.open++
	j.open[id] = b
	return nil
}

// syncer syncs what was written every SyncEvery, or as soon as a Begin waits for it.
func (j *Journal) syncer(ctx context.Context) {
	defer j.workers.Done()
	t := time.NewTicker(j.o.SyncEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-j.tick:
		}
		j.sync()
	}
}

func (j *Journal) sync() {
	j.mu.Lock()
	upTo, newNames := j.written, j.newNames
	j.newNames = false
	var dirty []*segment
	for _, s := range j.segs {
		if s.dirty {
			dirty = append(dirty, s)
			s.dirty, s.syncing = false, true
		}
	}
	j.mu.Unlock()
	var failed error
	for _, s := range dirty {
		if err := s.f.Sync(); err != nil {
			failed = fmt.Errorf("sync %s: %w", s.name, err)
		}
	}
	if newNames {
		if err := syncDir(j.dir); err != nil {
			failed = fmt.Errorf("sync the folder %s: %w", j.dir, err)
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	defer j.syncing.Broadcast()
	for _, s := range dirty {
		s.syncing = false
	}
	if failed == nil {
		j.synced = max(j.synced, upTo)
		return
	}
	// After a failed sync the kernel may have dropped what it could not write, and a second sync that works means
	// nothing. So these files are left alone; their flows are in memory and on their way to the store.
	j.stats.DiskErrors++
	j.unsync = max(j.unsync, upTo)
	j.newNames = j.newNames || newNames
	for _, s := range dirty {
		s.sealed, s.failed = true, true
	}
	j.o.Log.Error("journal: sync failed; what was written last may not survive the death of the machine", "err", failed)
}

// awaitSync waits until everything up to n was synced. Called with mu held, which it gives up while it waits.
func (j *Journal) awaitSync(n int64) error {
	for j.synced < n && j.unsync < n {
		if j.gone {
			return ErrClosed
		}
		signal(j.tick)
		j.syncing.Wait()
	}
	if j.synced < n {
		return fmt.Errorf("sync the journal in %s: it failed", j.dir)
	}
	return nil
}
