package mitm

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/exitgate/exitgate"
)

// A session is what the engine knows of a connection that a host opened, or of one tunnel inside it.
type session struct {
	conn    exitgate.ID // of the accepted connection
	way     exitgate.Way
	id      *identity
	begin   time.Time
	tunnel  *tunnel // nil for the connection to the proxy itself
	side    exitgate.Side
	flows   atomic.Int64            // flows begun on this session, its tunnels not counted
	spawned atomic.Int64            // tunnels opened on this session
	spoke   atomic.Bool             // HTTP came, if not a whole request
	h2      atomic.Pointer[watched] // where it speaks HTTP/2; set before its first request

	// private holds the upstream connections of a host's connection that authenticates them (NTLM,
	// Negotiate): they are never shared, and close with it.
	private privateTransport

	shown     atomic.Pointer[identity]         // of the last token on this connection
	judged    atomic.Pointer[standing]         // of the last flow that went on
	running   atomic.Int32                     // flows that go on
	dismissed atomic.Pointer[exitgate.Refusal] // why they were cut; nil they were not
	cut       func()                           // ends the connection under whoever serves it
}

// A tunnel is what CONNECT, or an intercepted destination address, opened.
type tunnel struct {
	dest    exitgate.Destination
	connect string           // target as sent; "" in transparent ways
	host    exitgate.Host    // that the verdict is for
	verdict exitgate.Verdict // of the connect stage
	tls     *exitgate.TLS    // the hello seen inside; nil for plain text
}

func (s *session) scheme() string {
	if s.tunnel != nil && s.tunnel.tls != nil {
		return "https"
	}
	return "http"
}

// A leg is one layer of a host's connection: the accepted socket, or the inside of a CONNECT. It replays what
// was peeked at, remembers the last bytes that came in (the only place where a TLS client's reason for leaving
// can be read), and says when it is closed, once.
type leg struct {
	net.Conn
	s       *session
	pre     []byte // peeked, not yet read; owned by the reading goroutine
	read    atomic.Int64
	written atomic.Int64

	mu   sync.Mutex // guards tail
	tail []byte     // the last bytes read, at most 16

	closed  atomic.Bool
	onClose func(*leg)
}

const tailBytes = 16

// peek reads once more into the bytes that will be replayed and returns them all.
func (l *leg) peek(limit int) ([]byte, error) {
	if len(l.pre) == cap(l.pre) {
		grown := make([]byte, len(l.pre), max(2048, 2*cap(l.pre)))
		copy(grown, l.pre)
		l.pre = grown
	}
	n, err := l.Conn.Read(l.pre[len(l.pre):min(cap(l.pre), max(limit, len(l.pre)+1))])
	l.note(l.pre[len(l.pre) : len(l.pre)+n])
	l.pre = l.pre[:len(l.pre)+n]
	return l.pre, err
}

func (l *leg) Read(b []byte) (int, error) {
	if len(l.pre) > 0 {
		n := copy(b, l.pre)
		if l.pre = l.pre[n:]; len(l.pre) == 0 {
			l.pre = nil
		}
		return n, nil
	}
	n, err := l.Conn.Read(b)
	l.note(b[:n])
	return n, err
}

func (l *leg) note(b []byte) {
	l.read.Add(int64(len(b)))
	if len(b) == 0 || len(b) > 4*tailBytes && l.s.tunnel == nil {
		return
	}
	if len(b) > tailBytes {
		b = b[len(b)-tailBytes:]
	}
	l.mu.Lock()
	l.tail = append(l.tail[:0], b...)
	l.mu.Unlock()
}

// last returns a copy of the last bytes that came in.
func (l *leg) last() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]byte(nil), l.tail...)
}

func (l *leg) Write(b []byte) (int, error) {
	n, err := l.Conn.Write(b)
	l.written.Add(int64(n))
	return n, err
}

// CloseWrite sends the end of this direction, where the layer below can.
func (l *leg) CloseWrite() error {
	if c, ok := l.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

func (l *leg) Close() error {
	err := l.Conn.Close()
	if !l.closed.Swap(true) && l.onClose != nil {
		l.onClose(l)
	}
	return err
}

// layered lets the engine find the leg below a *tls.Conn or a screen.
type layered interface{ leg() *leg }

func (l *leg) leg() *leg { return l }

// legOf returns the leg that c is or stands on.
func legOf(c net.Conn) *leg {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = t.NetConn()
	}
	if l, ok := c.(layered); ok {
		return l.leg()
	}
	return nil
}

// addrOf returns the IP address of a, without zone, IPv4-mapped undone.
func addrOf(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
