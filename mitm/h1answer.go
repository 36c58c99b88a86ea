package mitm

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"time"
)

// An h1answer is the http.ResponseWriter of one request over HTTP/1.x. It frames the body by the length that the
// header gives; without one, by the length that it turns out to have, if it is short and not flushed; else in
// chunks, or, for HTTP/1.0, by the end of the connection (RFC 9112, section 6).
type h1answer struct {
	s *h1server
	r *http.Request
	h http.Header

	mu       sync.Mutex // guards what is written: 100 Continue is sent by whoever reads the request's body
	bw       *bufio.Writer
	status   int
	head     bool // the head is written
	held     []byte
	length   int64 // of the body as declared; -1 unknown
	sent     int64 // bytes of the body
	chunks   io.WriteCloser
	close    bool // the connection ends with this answer
	hijacked bool
	expects  bool // the host waits for 100 Continue
	body     *h1request
	writeBy  time.Time
}

// heldMax is how much of a body of unknown length is held back to find that it is short.
const heldMax = 2048

// prepareBody puts the answer between the request's body and its reader.
func (w *h1answer) prepareBody() {
	if w.r.Body == nil || w.r.Body == http.NoBody {
		return
	}
	w.expects = w.r.ProtoAtLeast(1, 1) && strings.EqualFold(w.r.Header.Get("Expect"), "100-continue")
	w.body = &h1request{w: w, from: w.r.Body}
	w.r.Body = w.body
}

// An h1request is the body of a request. Its first Read asks the host for it, where the host waits to be asked.
type h1request struct {
	w     *h1answer
	from  io.ReadCloser
	ended bool // owned by the reader
	mu    sync.Mutex
	shut  bool
}

func (b *h1request) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shut {
		return 0, http.ErrBodyReadAfterClose
	}
	if err := b.w.proceed(); err != nil {
		return 0, err
	}
	b.w.s.armBody()
	n, err := b.from.Read(p)
	if err == io.EOF && !b.ended {
		b.ended = true
		b.w.s.ahead.soon()
	}
	return n, err
}

// Close implements io.Closer. The rest of the body is drained after the answer.
func (b *h1request) Close() error { return nil }

// armBody bounds the next read of a request's body.
func (s *h1server) armBody() { s.arm(s.p.bodyBound()) }

// proceed sends 100 Continue, once, if the host waits for it and no final answer has begun.
func (w *h1answer) proceed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.expects || w.head || w.status != 0 {
		return nil
	}
	w.expects = false
	w.armWrite()
	_, err := io.WriteString(w.s.c, "HTTP/1.1 100 Continue\r\n\r\n")
	return err
}

// armWrite bounds the next write, exact to an eighth: a host that stops reading is let go.
func (w *h1answer) armWrite() {
	bound, now := w.s.p.bodyBound(), time.Now()
	if left := w.writeBy.Sub(now); left <= bound && left >= bound-bound/8 {
		return
	}
	w.writeBy = now.Add(bound)
	w.s.c.SetWriteDeadline(w.writeBy)
}

// Header implements http.ResponseWriter.
func (w *h1answer) Header() http.Header { return w.h }

// WriteHeader implements http.ResponseWriter; informational answers (RFC 9110, section 15.2) go out at once.
func (w *h1answer) WriteHeader(status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.status != 0 || w.hijacked {
		return
	}
	if status/100 == 1 && status != http.StatusSwitchingProtocols {
		w.open()
		w.writeHead(status)
		w.bw.WriteString("\r\n")
		w.bw.Flush()
		return
	}
	w.status = status
	if v := w.h.Get("Content-Length"); v != "" {
		if n, err := strconv.ParseInt(v, 10, 64); err == nil && n >= 0 {
			w.length = n
		} else {
			w.h.Del("Content-Length")
		}
	}
}

func (w *h1answer) open() {
	if w.bw == nil {
		w.bw = writers.Get().(*bufio.Writer)
		w.bw.Reset(w.s.c)
	}
	w.armWrite()
}

// bodyAllowed reports whether the answer may have a body (RFC 9112, section 6.3).
func (w *h1answer) bodyAllowed() bool {
	return w.r.Method != http.MethodHead && w.status != http.StatusNoContent && w.status != http.StatusNotModified && w.status/100 != 1
}

// Write implements http.ResponseWriter.
func (w *h1answer) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.hijacked:
		return 0, http.ErrHijacked
	case w.status == 0:
		w.status = http.StatusOK
	}
	if !w.bodyAllowed() {
		if w.r.Method == http.MethodHead {
			return len(b), nil
		}
		return 0, http.ErrBodyNotAllowed
	}
	if w.length >= 0 && w.sent+int64(len(b)) > w.length {
		return 0, http.ErrContentLength
	}
	if !w.head && w.length < 0 && len(w.held)+len(b) <= heldMax {
		w.held = append(w.held, b...)
		w.sent += int64(len(b))
		return len(b), nil
	}
	if err := w.start(false); err != nil {
		return 0, err
	}
	w.armWrite()
	n, err := w.to().Write(b)
	w.sent += int64(n)
	return n, err
}

func (w *h1answer) to() io.Writer {
	if w.chunks != nil {
		return w.chunks
	}
	return w.bw
}

// start writes the head and what was held back. whole says that nothing will follow.
func (w *h1answer) start(whole bool) error {
	if w.head {
		return nil
	}
	w.head = true
	w.open()
	if w.expects {
		w.close = true // the host may send the body that it was not asked for, or may not
	}
	chunked := false
	if w.length < 0 && w.bodyAllowed() {
		switch {
		case whole && w.h["Trailer"] == nil:
			w.length = int64(len(w.held))
			w.h["Content-Length"] = []string{strconv.Itoa(len(w.held))}
		case w.r.ProtoAtLeast(1, 1):
			chunked = true
			w.h["Transfer-Encoding"] = []string{"chunked"}
		default:
			w.close = true // the end of the connection is the end of the body
		}
	}
	if w.status == http.StatusNoContent {
		delete(w.h, "Content-Length") // RFC 9110, section 8.6
	}
	if w.status != http.StatusSwitchingProtocols {
		delete(w.h, "Connection")
		if w.close {
			w.h["Connection"] = []string{"close"}
		} else if !w.r.ProtoAtLeast(1, 1) {
			w.h["Connection"] = []string{"keep-alive"}
		}
	}
	if _, ok := w.h["Date"]; !ok {
		w.h["Date"] = []string{time.Now().UTC().Format(http.TimeFormat)}
	}
	w.writeHead(w.status)
	w.bw.WriteString("\r\n")
	if chunked {
		w.chunks = httputil.NewChunkedWriter(w.bw)
	}
	if len(w.held) > 0 {
		if _, err := w.to().Write(w.held); err != nil {
			return err
		}
		w.held = nil
	}
	return nil
}

// writeHead writes the status line and the fields, but for the end of the head.
func (w *h1answer) writeHead(status int) {
	text := http.StatusText(status)
	w.bw.WriteString("HTTP/1.1 ")
	w.bw.WriteString(strconv.Itoa(status))
	w.bw.WriteByte(' ')
	w.bw.WriteString(text)
	w.bw.WriteString("\r\n")
	for name, values := range w.h {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			continue
		}
		w.writeField(name, values)
	}
}

// fieldBreaks are what would end a field before its end.
var fieldBreaks = strings.NewReplacer("\r", " ", "\n", " ", "\x00", " ")

func (w *h1answer) writeField(name string, values []string) {
	if strings.ContainsAny(name, "\r\n\x00: ") {
		return
	}
	for _, v := range values {
		if strings.ContainsAny(v, "\r\n\x00") {
			v = fieldBreaks.Replace(v)
		}
		w.bw.WriteString(name)
		w.bw.WriteString(": ")
		w.bw.WriteString(v)
		w.bw.WriteString("\r\n")
	}
}

// Flush implements http.Flusher.
func (w *h1answer) Flush() { w.FlushError() }

// FlushError sends what there is.
func (w *h1answer) FlushError() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hijacked {
		return http.ErrHijacked
	}
	if w.status == 0 {
		w.status = http.StatusOK
	}
	if err := w.start(false); err != nil {
		return err
	}
	w.armWrite()
	return w.bw.Flush()
}

// finish ends the answer. A body that is shorter than was declared is an error, and the connection must be cut.
func (w *h1answer) finish() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.release()
	if w.status == 0 {
		w.status = http.StatusOK
	}
	if err := w.start(true); err != nil {
		return err
	}
	if w.bodyAllowed() && w.length >= 0 && w.sent < w.length {
		return io.ErrUnexpectedEOF
	}
	if w.chunks != nil {
		if err := w.chunks.Close(); err != nil {
			return err
		}
		w.writeTrailers()
		w.bw.WriteString("\r\n")
	}
	w.armWrite()
	return w.bw.Flush()
}

// writeTrailers writes the fields that the head announced, or that are marked as trailers.
func (w *h1answer) writeTrailers() {
	for _, list := range w.h["Trailer"] {
		for name := range strings.SplitSeq(list, ",") {
			name = http.CanonicalHeaderKey(strings.TrimSpace(name))
			w.writeField(name, w.h[name])
		}
	}
	for name, values := range w.h {
		if t, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			w.writeField(t, values)
		}
	}
}

// drop gives up what was not sent.
func (w *h1answer) drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.release()
}

func (w *h1answer) release() {
	if w.bw != nil {
		putWriter(w.bw)
		w.bw = nil
	}
}

// drained reads what is left of the request's body, if it is little, so that the next request can be read.
func (w *h1answer) drained() bool {
	b := w.body
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shut = true
	if b.ended {
		return true
	}
	w.s.c.SetReadDeadline(time.Now().Add(2 * time.Second))
	w.s.readBy = time.Time{}
	_, err := io.CopyN(io.Discard, b.from, 256<<10)
	return err == io.EOF
}

// Hijack implements http.Hijacker: the connection is the caller's, with what was read ahead of the answer.
func (w *h1answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.s.ahead.end()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hijacked || w.head {
		return nil, nil, errNoHijack
	}
	w.hijacked = true
	w.release()
	w.s.c.SetDeadline(time.Time{})
	if w.s.ahead.has && w.r.Method == http.MethodConnect {
		return nil, nil, errors.New("a byte came before the answer to CONNECT")
	}
	return w.s.c, bufio.NewReadWriter(w.s.br, bufio.NewWriter(w.s.c)), nil
}

// SetReadDeadline bounds reads of the request's body; it works through http.ResponseController.
func (w *h1answer) SetReadDeadline(t time.Time) error { return w.s.c.SetReadDeadline(t) }

// SetWriteDeadline bounds writes of the answer.
func (w *h1answer) SetWriteDeadline(t time.Time) error {
	w.writeBy = time.Time{}
	return w.s.c.SetWriteDeadline(t)
}

// EnableFullDuplex is how it works in any case.
func (w *h1answer) EnableFullDuplex() error { return nil }
