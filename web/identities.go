package web

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// A Notebook keeps small values by key, for all gateways together, without an audit trail.
type Notebook interface {
	All(ctx context.Context) (map[string][]byte, error)
	Put(ctx context.Context, key string, value []byte) error
}

// Identities remember which certificate each host got last, and which interception roots it said it trusts. A nil
// Identities remembers nothing.
type Identities struct {
	Notebook Notebook

	mu    sync.Mutex
	known map[string]noted // by the host's name
}

type noted struct {
	Identity *Identity `json:"identity,omitempty"`
	Trust    []string  `json:"trust,omitempty"`
}

// Issued notes that a host got a certificate.
func (i *Identities) Issued(ctx context.Context, host string, id Identity) error {
	return i.note(ctx, host, noted{Identity: &id})
}

// maxTrust bounds the roots that a host can say it trusts.
const maxTrust = 16

// Trusts notes which interception roots a host says it trusts, by their fingerprints.
func (i *Identities) Trusts(ctx context.Context, host string, fingerprints []string) error {
	if len(fingerprints) > maxTrust {
		return Invalid(fmt.Errorf("trust: %d fingerprints; at most %d", len(fingerprints), maxTrust))
	}
	for _, f := range fingerprints {
		if err := checkText(f, 128); err != nil {
			return Invalid(fmt.Errorf("trust: %w", err))
		}
	}
	if slices.Equal(i.of(host).Trust, fingerprints) {
		return nil
	}
	return i.note(ctx, host, noted{Trust: append([]string{}, fingerprints...)})
}

// note writes what n has, each member under a key of its own, so that two gateways do not undo each other's notes.
func (i *Identities) note(ctx context.Context, host string, n noted) error {
	if i == nil {
		return nil
	}
	key := "identity/" + host
	if n.Identity == nil {
		key = "trust/" + host
	}
	b, err := json.Marshal(n)
	if err == nil {
		err = i.Notebook.Put(ctx, key, b)
	}
	if err != nil {
		return fmt.Errorf("take a note of host %s: %w", host, err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.known == nil {
		i.known = map[string]noted{}
	}
	i.known[host] = i.known[host].with(n)
	return nil
}

func (n noted) with(m noted) noted {
	if m.Identity != nil {
		n.Identity = m.Identity
	}
	if m.Trust != nil {
		n.Trust = m.Trust
	}
	return n
}

// Refresh reads what all gateways have noted.
func (i *Identities) Refresh(ctx context.Context) error {
	all, err := i.Notebook.All(ctx)
	if err != nil {
		return fmt.Errorf("read the notes of hosts: %w", err)
	}
	known := map[string]noted{}
	for key, b := range all {
		var n noted
		if _, host, ok := strings.Cut(key, "/"); ok && json.Unmarshal(b, &n) == nil {
			known[host] = known[host].with(n)
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.known = known
	return nil
}

func (i *Identities) of(host string) noted {
	if i == nil {
		return noted{}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.known[host]
}
