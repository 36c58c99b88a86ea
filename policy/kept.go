package policy

import (
	"hash/maphash"
	"sync"
)

// kept is a bounded map for many readers. It has two generations: when the young one is full it becomes the old
// one, whose values are forgotten unless they are asked for again before the next turn.
type kept[V any] struct {
	seed   maphash.Seed
	bound  int // values in one generation of one shard
	shards [keptShards]keptShard[V]
}

const keptShards = 16

type keptShard[V any] struct {
	mu         sync.RWMutex // guards young and old
	young, old map[string]V
	_          [64]byte // keeps two shards' locks off one cache line
}

// newKept makes a map that holds at most about bound values.
func newKept[V any](bound int) *kept[V] {
	return &kept[V]{seed: maphash.MakeSeed(), bound: max(1, bound/keptShards/2)}
}

func (k *kept[V]) get(key []byte) (V, bool) {
	s := &k.shards[maphash.Bytes(k.seed, key)%keptShards]
	s.mu.RLock()
	v, ok := s.young[string(key)]
	if !ok {
		if v, ok = s.old[string(key)]; ok {
			s.mu.RUnlock()
			k.put(string(key), v)
			return v, true
		}
	}
	s.mu.RUnlock()
	return v, ok
}

func (k *kept[V]) put(key string, v V) {
	s := &k.shards[maphash.String(k.seed, key)%keptShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.young) >= k.bound {
		s.young, s.old = nil, s.young
	}
	if s.young == nil {
		s.young = make(map[string]V)
	}
	s.young[key] = v
}

// size returns how many values are held; one that is in both generations counts twice.
func (k *kept[V]) size() (n int) {
	for i := range k.shards {
		s := &k.shards[i]
		s.mu.RLock()
		n += len(s.young) + len(s.old)
		s.mu.RUnlock()
	}
	return n
}
