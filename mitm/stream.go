package mitm

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// takeStream makes a connection of an HTTP/2 stream that CONNECT opened (RFC 9113, section 8.5).
func takeStream(w http.ResponseWriter, r *http.Request, cc *connContext) (net.Conn, func(), error) {
	rc := http.NewResponseController(w)
	w.WriteHeader(http.StatusOK)
	if err := rc.Flush(); err != nil {
		return nil, nil, err
	}
	c := &streamConn{body: r.Body, w: w, rc: rc, l: cc.l, done: make(chan struct{})}
	c.in.cond.L = &c.in.mu
	c.in.from = r.Body
	return c, func() { <-c.done }, nil
}

// A streamConn is a net.Conn over the two directions of an HTTP/2 stream. Its handler stays until Close.
type streamConn struct {
	body io.Closer
	w    http.ResponseWriter
	rc   *http.ResponseController
	l    *leg
	in   streamReader
	once sync.Once
	half atomic.Bool // ended by CloseWrite
	done chan struct{}

	wmu    sync.Mutex // guards w, which must not be used after the handler returned
	closed bool

	dmu  sync.Mutex // guards rc in the same way; taken while wmu is held by a writer
	over bool
}

func (c *streamConn) Read(b []byte) (int, error) {
	n, err := c.in.Read(b)
	if err != nil && c.half.Load() {
		err = io.EOF
	}
	return n, err
}

func (c *streamConn) Write(b []byte) (int, error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	n, err := c.w.Write(b)
	if err == nil {
		err = c.rc.Flush()
	}
	return n, err
}

// CloseWrite ends the stream. net/http says the end of its direction only when the handler returns, and then the
// other direction ends too: what the host sends after the destination's last word is not carried. Most protocols
// have nothing there, and a host that waits for the end would else wait for ever.
func (c *streamConn) CloseWrite() error {
	c.half.Store(true)
	return c.Close()
}

// Close ends the stream in order, unless a writer is held by the peer's window, which only a reset frees.
func (c *streamConn) Close() error {
	c.once.Do(func() {
		c.body.Close()
		c.in.close()
		if !c.wmu.TryLock() {
			c.deadline(time.Unix(1, 0))
			c.wmu.Lock()
		}
		c.closed = true
		c.wmu.Unlock()
		c.dmu.Lock()
		c.over = true
		c.dmu.Unlock()
		close(c.done)
	})
	return nil
}

func (c *streamConn) LocalAddr() net.Addr  { return c.l.LocalAddr() }
func (c *streamConn) RemoteAddr() net.Addr { return c.l.RemoteAddr() }

func (c *streamConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *streamConn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(t)
	return nil
}

// SetWriteDeadline bounds writes. For a deadline that has passed net/http resets the stream, and what is on its way
// is lost; while nobody writes, refusing further writes is enough (crypto/tls does so behind its farewell).
func (c *streamConn) SetWriteDeadline(t time.Time) error {
	if !t.IsZero() && !t.After(time.Now()) && c.wmu.TryLock() {
		c.closed = true
		c.wmu.Unlock()
		return nil
	}
	return c.deadline(t)
}

func (c *streamConn) deadline(t time.Time) error {
	c.dmu.Lock()
	defer c.dmu.Unlock()
	if c.over {
		return os.ErrClosed
	}
	return c.rc.SetWriteDeadline(t)
}

// streamPiece is how much of a stream is read at one time: a record of TLS.
const streamPiece = 16 << 10

// A streamReader reads a stream on a goroutine of its own, so that a deadline ends a Read and not, as net/http's
// would, the stream.
type streamReader struct {
	from io.Reader

	mu       sync.Mutex // guards what follows
	cond     sync.Cond
	started  bool
	wanted   bool
	buf      []byte // what data is a part of; the pump's while data is empty and wanted is set
	data     []byte
	err      error
	deadline time.Time
	timer    *time.Timer
}

func (r *streamReader) Read(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		switch {
		case len(r.data) > 0:
			n := copy(b, r.data)
			r.data = r.data[n:]
			return n, nil
		case r.err != nil:
			return 0, r.err
		case !r.deadline.IsZero() && !time.Now().Before(r.deadline):
			return 0, os.ErrDeadlineExceeded
		}
		if !r.started {
			r.started, r.buf = true, make([]byte, streamPiece)
			go r.pump()
		}
		r.wanted = true
		r.cond.Broadcast()
		r.cond.Wait()
	}
}

// pump reads a piece whenever one is wanted, until the stream's end, which Close brings about.
func (r *streamReader) pump() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.err == nil {
		if !r.wanted || len(r.data) > 0 {
			r.cond.Wait()
			continue
		}
		r.mu.Unlock()
		n, err := r.from.Read(r.buf)
		r.mu.Lock()
		r.data, r.err, r.wanted = r.buf[:n], err, false
		r.cond.Broadcast()
	}
}

// close ends the pump where it does not read.
func (r *streamReader) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = net.ErrClosed
	}
	r.cond.Broadcast()
}

func (r *streamReader) setDeadline(t time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deadline = t
	if r.timer != nil {
		r.timer.Stop()
	}
	if !t.IsZero() {
		r.timer = time.AfterFunc(time.Until(t), func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.cond.Broadcast()
		})
	}
	r.cond.Broadcast()
}
