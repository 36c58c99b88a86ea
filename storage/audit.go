package storage

import (
	"encoding/json"
	"errors"
	"math"
	"time"
)

// SourceStore is the Source of a grant or exemption that comes from a store.
const SourceStore = "store"

// NewEntry is the audit entry of change c to the object with the given id, and an error when the change or the id
// says too little. Its texts are [Printable].
func NewEntry(action, id string, value any, c Change) (Entry, error) {
	if id == "" {
		return Entry{}, errors.New("it has no id")
	}
	if err := c.Check(); err != nil {
		return Entry{}, err
	}
	if p := Printable(id, maxShort); p != id {
		return Entry{}, errors.New("its id is too long, or is not printable")
	}
	if c.At.IsZero() {
		c.At = time.Now()
	}
	b, err := json.Marshal(value)
	if err != nil {
		return Entry{}, err
	}
	return Entry{At: micro(c.At), Who: Printable(c.Who, maxShort), Action: action, Object: id,
		Reason: Printable(c.Reason, maxURL), Value: b}, nil
}

// AuditPage gives the arguments of Store.Audit their defaults.
func AuditPage(before int64, limit int) (int64, int) {
	if before <= 0 {
		before = math.MaxInt64
	}
	if limit <= 0 {
		limit = DefaultLimit
	}
	return before, min(limit, MaxLimit)
}
