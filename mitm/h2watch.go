package mitm

import (
	"fmt"
	"net"
	"sync"

	"github.com/exitgate/exitgate"
)

// A watched connection speaks HTTP/2. The server resets what is no legal request before a handler sees it, so the
// frames that pass are looked at, just enough to account for that: how many streams the host opened, and with which
// error the server ended any.
type watched struct {
	net.Conn // a *leg, or a *tls.Conn on one. Its type is hidden: what the server does not know to be TLS, it serves by its preface
	l        *leg
	in, out  frames // each for one goroutine at a time: the one that reads, and the one that writes

	mu      sync.Mutex // guards what follows
	newest  uint32     // the highest stream that the host opened
	opened  int
	handled int    // of the opened ones, those that became requests
	resets  int    // streams that the server ended with an error
	code    uint32 // the last such error, or the connection's
	goaway  bool   // the server ended the connection with an error
}

func watch(c net.Conn, l *leg) *watched {
	w := &watched{Conn: c, l: l}
	w.in.left = len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") // RFC 9113, section 3.4: skipped as if it were a frame's rest
	w.in.seen, w.out.seen = w.cameIn, w.wentOut
	l.s.h2.Store(w)
	return w
}

func (w *watched) leg() *leg { return w.l }

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if n > 0 {
		w.l.s.spoke.Store(true)
	}
	w.in.walk(b[:n])
	return n, err
}

func (w *watched) Write(b []byte) (int, error) {
	w.out.walk(b)
	return w.Conn.Write(b)
}

// Types of frames and codes of errors that matter here (RFC 9113, sections 6 and 7).
const (
	frameHeaders = 0x1
	frameReset   = 0x3
	frameGoaway  = 0x7

	codeNone     = 0x0
	codeInternal = 0x2 // what the server says when a handler broke an answer off
	codeClosed   = 0x5 // frames that crossed a reset
	codeCancel   = 0x8
)

func (w *watched) cameIn(typ byte, stream uint32, _ []byte) {
	if typ != frameHeaders {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if stream > w.newest { // and not a trailer
		w.newest = stream
		w.opened++
	}
}

func (w *watched) wentOut(typ byte, _ uint32, payload []byte) {
	var code uint32
	switch {
	case typ == frameReset && len(payload) >= 4:
		code = be32(payload)
	case typ == frameGoaway && len(payload) >= 8:
		code = be32(payload[4:])
	default:
		return
	}
	if code == codeNone || code == codeInternal || code == codeClosed || code == codeCancel {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.code = code
	if typ == frameGoaway {
		w.goaway = true
		return
	}
	w.resets++
}

// request notes that a stream became a request.
func (w *watched) request() {
	w.mu.Lock()
	w.handled++
	w.mu.Unlock()
}

// violation says what came on the connection that was no request, or nil. Quiet says that nothing else did.
func (w *watched) violation(quiet bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	lost := w.opened - w.handled
	switch {
	case w.goaway:
		return exitgate.NewRefusal(400, exitgate.RuleMalformed, "the HTTP/2 connection broke the protocol and was ended with %s; of %d requests %d were never read",
			codeName(w.code), w.opened, max(lost, 0))
	case lost > 0 && w.resets > 0:
		return exitgate.NewRefusal(400, exitgate.RuleMalformed, "of %d HTTP/2 requests %d were malformed and reset with %s before they were read", w.opened, lost, codeName(w.code))
	case lost > 0 && quiet:
		return exitgate.NewRefusal(400, exitgate.RuleMalformed, "%d HTTP/2 requests were malformed, or their header was too large, and were not read", lost)
	}
	return nil
}

func codeName(code uint32) string {
	names := [...]string{"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
		"FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM"}
	if int(code) < len(names) {
		return names[code]
	}
	return fmt.Sprintf("error %#x", code)
}

func be32(b []byte) uint32 {
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// frames walks over the frames of one direction (RFC 9113, section 4.1), in pieces as they come, and shows each one's
// type, stream and first bytes.
type frames struct {
	seen func(typ byte, stream uint32, payload []byte)
	buf  [9 + 8]byte // of the current frame: its head, and the beginning of its payload
	have int
	want int // how much of buf this frame fills; 0: its head is not whole
	left int // bytes to skip before the next frame
}

func (f *frames) walk(b []byte) {
	for len(b) > 0 {
		if f.left > 0 {
			n := min(f.left, len(b))
			f.left -= n
			b = b[n:]
			continue
		}
		n := copy(f.buf[f.have:max(f.want, 9)], b)
		f.have += n
		b = b[n:]
		length := int(f.buf[0])<<16 | int(f.buf[1])<<8 | int(f.buf[2])
		if f.want == 0 && f.have == 9 {
			f.want = 9 + min(length, 8)
		}
		if f.want > 0 && f.have == f.want {
			f.seen(f.buf[3], be32(f.buf[5:])&(1<<31-1), f.buf[9:f.want])
			f.left = length - (f.want - 9)
			f.have, f.want = 0, 0
		}
	}
}
