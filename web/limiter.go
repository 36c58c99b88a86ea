package web

import (
	"net/netip"
	"sync"
	"time"
)

// A Limiter bounds how often each source address may do something. The zero value is ready.
type Limiter struct {
	mu      sync.Mutex
	buckets map[netip.Prefix]*bucket
	rest    bucket // of every address that came when there were too many
	swept   time.Time
}

type bucket struct {
	used float64
	at   time.Time
}

// maxBuckets bounds the memory that strangers can take; beyond it, new ones share a bucket.
const maxBuckets = 10_000

// Take returns 0 and counts one, or returns how long addr has to wait: it can do burst things at once, and one more
// each time that every has passed. An IPv6 address counts with its /64.
func (l *Limiter) Take(addr netip.Addr, now time.Time, burst int, every time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(addr, now, every)
	b.used = max(0, b.used-float64(now.Sub(b.at))/float64(every))
	b.at = now
	if b.used+1 > float64(burst) {
		return time.Duration((b.used + 1 - float64(burst)) * float64(every))
	}
	b.used++
	return 0
}

func (l *Limiter) bucket(addr netip.Addr, now time.Time, every time.Duration) *bucket {
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits)
	if b := l.buckets[p]; b != nil {
		return b
	}
	if len(l.buckets) >= maxBuckets && now.Sub(l.swept) >= time.Second {
		l.swept = now
		for p, b := range l.buckets {
			if now.Sub(b.at) > time.Duration(b.used*float64(every)) {
				delete(l.buckets, p) // it is empty again
			}
		}
	}
	if len(l.buckets) >= maxBuckets {
		return &l.rest
	}
	if l.buckets == nil {
		l.buckets = map[netip.Prefix]*bucket{}
	}
	b := &bucket{at: now}
	l.buckets[p] = b
	return b
}
