package mitm

import (
	"errors"
	"io"
	"syscall"
	"testing"
)

func TestEndedWell(t *testing.T) {
	reset, unread := syscall.ECONNRESET, writeError{syscall.EPIPE}
	for _, c := range []struct {
		name    string
		out, in error
		want    bool
	}{
		{"both at their ends", nil, nil, true},
		{"the host closed, the upstream's farewell met nobody", nil, unread, true},
		{"the host closed, the upstream broke off", nil, reset, false},
		{"the upstream closed, then the host reset", reset, nil, true},
		{"the upstream closed, the host's farewell met nobody", unread, nil, true},
		{"the upstream closed, reading the host failed otherwise", errors.New("i/o error"), nil, false},
		{"both broke off", reset, reset, false},
		{"a write failed for another reason", nil, writeError{io.ErrShortWrite}, false},
	} {
		if got := endedWell(c.out, c.in); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
