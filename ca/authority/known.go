package authority

import (
	"sync"
	"time"
)

// maxKnown bounds each of the things that are remembered, to half: 16,384 identities of about 300 bytes.
const maxKnown = 8192

// A bounded remembers the values that were used last: at least max, at most twice as many.
type bounded[K comparable, V any] struct {
	max        int
	young, old map[K]V
}

func (b *bounded[K, V]) get(k K) (V, bool) {
	v, ok := b.young[k]
	if ok {
		return v, true
	}
	if v, ok = b.old[k]; ok {
		b.put(k, v)
	}
	return v, ok
}

func (b *bounded[K, V]) put(k K, v V) {
	if b.young == nil || len(b.young) >= b.max {
		b.old, b.young = b.young, make(map[K]V)
	}
	b.young[k] = v
}

// A revocation is what the store said of a serial, and when.
type revocation struct {
	revoked bool
	at      time.Time
}

// A seen is a certificate that was verified.
type seen struct {
	id   Identity
	from *generation
}

// A verified remembers chains that were verified, by the SHA-256 of the certificate, and what is known of revocations,
// by serial.
type verified struct {
	mu          sync.Mutex // guards what follows
	identities  bounded[[32]byte, seen]
	revocations bounded[string, revocation]
}

func newVerified() *verified {
	return &verified{
		identities:  bounded[[32]byte, seen]{max: maxKnown},
		revocations: bounded[string, revocation]{max: maxKnown},
	}
}

// identity returns what the certificate says, if it was verified under g.
func (v *verified) identity(sum [32]byte, g *generation) (Identity, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s, ok := v.identities.get(sum)
	return s.id, ok && s.from == g
}

func (v *verified) keep(sum [32]byte, g *generation, id Identity) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.identities.put(sum, seen{id: id, from: g})
}

// revocation returns what is known of the serial, and how old that is. What lies in the future is not known.
func (v *verified) revocation(serial string, now time.Time) (known, revoked bool, age time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	r, ok := v.revocations.get(serial)
	age = now.Sub(r.at)
	return ok && (r.revoked || age >= 0), r.revoked, age
}

// keepRevocation remembers an answer. That a certificate was revoked is never forgotten for a later answer.
func (v *verified) keepRevocation(serial string, revoked bool, at time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if r, ok := v.revocations.get(serial); ok && r.revoked {
		return
	}
	v.revocations.put(serial, revocation{revoked: revoked, at: at})
}
