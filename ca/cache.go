package ca

import (
	"container/list"
	"crypto/tls"
	"sync"
	"time"
)

// A leaf is a certificate in memory.
type leaf struct {
	name      string
	cert      *tls.Certificate
	from      *generation
	replaceAt time.Time
}

// good reports whether l may be served: from g, begun, and with half of its life left.
func (l *leaf) good(g *generation, now time.Time) bool {
	return l.from == g && now.Before(l.replaceAt) && !now.Before(l.cert.Leaf.NotBefore)
}

// A cache keeps the leaves that were used last.
type cache struct {
	max int

	mu     sync.Mutex // guards what follows
	byName map[string]*list.Element
	recent list.List // of *leaf; the front was used last
}

func newCache(limit int) *cache {
	return &cache{max: limit, byName: map[string]*list.Element{}}
}

// get returns the leaf for name of g that is good at now, or nil.
func (c *cache) get(name string, g *generation, now time.Time) *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byName[name]
	if !ok || !e.Value.(*leaf).good(g, now) {
		return nil
	}
	c.recent.MoveToFront(e)
	return e.Value.(*leaf).cert
}

// put keeps l under name in the place of another, and drops the leaf that was not used for longest when there are
// more than max.
func (c *cache) put(name string, l leaf) {
	l.name = name
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byName[name]; ok {
		e.Value = &l
		c.recent.MoveToFront(e)
		return
	}
	c.byName[name] = c.recent.PushFront(&l)
	if c.recent.Len() > c.max {
		delete(c.byName, c.recent.Remove(c.recent.Back()).(*leaf).name)
	}
}

func (c *cache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.recent.Len()
}
