package mitm

import (
	"errors"
	"io"
	"net"
	"sync/atomic"

	"github.com/exitgate/exitgate"
)

// A screened connection speaks HTTP/1.x: every byte passes a Screen before net/http's server parses it, so that
// what reaches a handler was neither ambiguous nor repaired.
type screened struct {
	net.Conn // a *leg, or a *tls.Conn on one
	l        *leg
	screen   Screen
	busy     atomic.Bool                        // a handler is answering: nothing else may write
	passed   atomic.Bool                        // the screening ended
	ended    atomic.Bool                        // nothing more is read: the rest of a body was given up
	refused  func(*screened, *exitgate.Refusal) // answers and records, when no handler is there to do it
	broke    func(*leg, error)                  // records that the screen itself failed, and closes

	violation atomic.Pointer[exitgate.Refusal] // what the screen found; nothing is read after it
	told      atomic.Bool                      // the violation is in a flow
}

func (c *screened) leg() *leg { return c.l }

// errScreened is what net/http sees of a refusal: an error of the network kind, which it does not answer itself.
var errScreened = &net.OpError{Op: "read", Net: "tcp", Err: errors.New("the request is malformed")}

func (c *screened) Read(b []byte) (int, error) {
	if c.violation.Load() != nil {
		return 0, c.stopped()
	}
	if c.ended.Load() {
		return 0, io.EOF
	}
	n, err := c.Conn.Read(b)
	if n == 0 || c.passed.Load() {
		return n, err
	}
	c.l.s.spoke.Store(true)
	var ok int
	serr := safely("screen", func() (err error) { ok, err = c.screen.Scan(b[:n]); return err })
	if serr == nil {
		return n, err
	}
	if bug := new(exitgate.Bug); errors.As(serr, &bug) {
		c.broke(c.l, bug)
		return 0, errScreened
	}
	r := new(exitgate.Refusal)
	if !errors.As(serr, &r) {
		r = exitgate.NewRefusal(400, exitgate.RuleMalformed, "%v", serr)
	}
	c.violation.Store(r)
	if ok > 0 {
		return ok, nil
	}
	return 0, c.stopped()
}

// stopped ends the reading. While a handler runs, it is the one to tell: the violation is in its request's body,
// or cuts it off.
func (c *screened) stopped() error {
	if !c.busy.Load() && !c.told.Swap(true) {
		c.refused(c, c.violation.Load())
	}
	return errScreened
}

// pass ends the screening: what follows is no longer HTTP.
func (c *screened) pass() {
	c.passed.Store(true)
	c.screen.Pass()
}

// CloseWrite sends the end of this direction.
func (c *screened) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// discard reads and drops what a peer still sends, at most limit bytes, so that closing does not turn into a
// reset that destroys the answer on its way.
func discard(c net.Conn, limit int64) { io.Copy(io.Discard, io.LimitReader(c, limit)) }
