package inspect

import (
	"bytes"
	"strconv"
	"sync/atomic"

	"github.com/exitgate/exitgate"
)

// ScreenLimits bounds what a host may send as HTTP/1.x. A zero field means its default.
type ScreenLimits struct {
	Line      int // bytes of the request line; default 16 KiB
	Head      int // bytes of request line and header fields together; default 64 KiB
	Headers   int // header fields; default 128
	ChunkLine int // bytes of the line that starts a chunk, extensions included; default 256
	Trailer   int // bytes of all trailer fields; default 2 KiB (net/http's server gives up at 4 KiB)
}

func (l ScreenLimits) withDefaults() ScreenLimits {
	set := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&l.Line, 16<<10)
	set(&l.Head, 64<<10)
	set(&l.Headers, 128)
	set(&l.ChunkLine, 256)
	set(&l.Trailer, 2<<10)
	l.Trailer = min(l.Trailer, 4000)
	l.ChunkLine = min(l.ChunkLine, 4000)
	return l
}

// Where a Screen stands in a connection's bytes.
const (
	atStart   = iota // before or inside a request line
	atHeader         // before or inside a header field
	atBody           // inside a body of known length
	atChunk          // before or inside a chunk's first line
	atData           // inside a chunk's data
	atDataEnd        // before or inside the CRLF after a chunk's data
	atTrailer        // before or inside a trailer field
)

// maxExcess bounds how many bytes of chunk overhead a body may carry beyond what its data explains (16 bytes a chunk
// and twice its data), as net/http's reader does.
const maxExcess = 16 << 10

// maxKeptLine is how much of its buffer a Screen keeps between messages: idle connections stay small.
const maxKeptLine = 1 << 10

// A Screen checks the bytes of HTTP/1.x requests, as they come from a host, before any other parser sees them, and
// refuses what two parsers could read in two ways. It keeps nothing but the line that it is in.
//
// What it lets through, net/http's server accepts with the same framing: it is stricter in every point (see the
// package's table). After a violation the Screen stays refused. Scan is for one goroutine; Pass may come from another.
type Screen struct {
	lim   ScreenLimits
	pass  atomic.Bool
	err   error
	at    int
	line  []byte // the beginning of a line that was cut at the end of a piece
	msg   int    // messages begun on this connection, for reasons
	size  int    // bytes of this head or trailer so far
	left  int64  // bytes of the body or chunk still to come
	extra int64  // chunk overhead beyond what the data explains
	crlf  int    // bytes of the CRLF after a chunk's data seen
	head  head
}

// NewScreen returns a Screen for one connection.
func NewScreen(lim ScreenLimits) *Screen { return &Screen{lim: lim.withDefaults()} }

// Pass ends the screening: the connection was switched to another protocol by CONNECT or Upgrade.
func (s *Screen) Pass() { s.pass.Store(true) }

// Scan checks the next piece of the connection and returns how many of its bytes may be handed on. With a nil error
// that is all of them. With an *exitgate.Refusal it is what stands before the offending message, or before the
// offending chunk of its body, and every later call returns 0 and the same refusal.
func (s *Screen) Scan(p []byte) (n int, err error) {
	if s.pass.Load() {
		return len(p), nil
	}
	if s.err != nil {
		return 0, s.err
	}
	safe := 0 // everything before it may be handed on, whatever comes
	for i := 0; i < len(p); {
		switch s.at {
		case atBody, atData:
			n := min(s.left, int64(len(p)-i))
			s.left -= n
			i += int(n)
			if s.left == 0 {
				s.endData()
			}
			safe = i
			continue
		case atDataEnd:
			if p[i] != "\r\n"[s.crlf] {
				return s.fail(safe, s.refuse(400, "the data of a chunk is not followed by CRLF"))
			}
			i++
			if s.crlf++; s.crlf == 2 {
				s.at, s.crlf = atChunk, 0
				safe = i
			}
			continue
		}
		line, next, err := s.take(p, i)
		if err != nil {
			return s.fail(safe, err)
		}
		i = next
		if line == nil {
			break
		}
		if err := s.check(line); err != nil {
			return s.fail(safe, err)
		}
		if s.line = s.line[:0]; s.at != atHeader && s.at != atTrailer {
			safe = i
		}
	}
	return len(p), nil
}

func (s *Screen) fail(safe int, r *exitgate.Refusal) (int, error) {
	s.err, s.line = r, nil
	return safe, r
}

// take returns the line that begins or goes on at p[i], without its LF, and where the next one begins. A nil line
// means that p ended first; what there is of the line was kept.
func (s *Screen) take(p []byte, i int) (line []byte, next int, r *exitgate.Refusal) {
	j := bytes.IndexByte(p[i:], '\n')
	n := j + 1
	if j < 0 {
		n = len(p) - i
	}
	if r := s.bound(n); r != nil {
		return nil, i, r
	}
	if j < 0 {
		s.line = append(s.line, p[i:]...)
		return nil, len(p), nil
	}
	if len(s.line) == 0 {
		return p[i : i+j], i + n, nil
	}
	s.line = append(s.line, p[i:i+j]...)
	return s.line, i + n, nil
}

// bound counts n more bytes of the current line and refuses what is over a limit.
func (s *Screen) bound(n int) *exitgate.Refusal {
	switch s.at {
	case atChunk:
		if len(s.line)+n > s.lim.ChunkLine+2 {
			return s.refuse(413, "the first line of a chunk has more than %d bytes", s.lim.ChunkLine)
		}
		return nil
	case atTrailer:
		if s.size += n; s.size > s.lim.Trailer {
			return s.refuse(431, "the trailer has more than %d bytes", s.lim.Trailer)
		}
		return nil
	case atStart:
		if len(s.line)+n > s.lim.Line+2 {
			return s.refuse(431, "the request line has more than %d bytes", s.lim.Line)
		}
	}
	if s.size += n; s.size > s.lim.Head {
		return s.refuse(431, "the request's head has more than %d bytes", s.lim.Head)
	}
	return nil
}

// check reads one whole line, without its LF, and moves on.
func (s *Screen) check(line []byte) *exitgate.Refusal {
	if len(line) == 0 || line[len(line)-1] != '\r' {
		return s.refuse(400, "%s ends in a bare LF, not in CRLF", s.where())
	}
	line = line[:len(line)-1]
	switch s.at {
	case atStart:
		if r := s.requestLine(line); r != nil {
			return r
		}
		s.msg++
		s.at = atHeader
	case atHeader:
		if len(line) == 0 {
			return s.endHead()
		}
		return s.field(line)
	case atChunk:
		return s.chunkLine(line)
	case atTrailer:
		if len(line) == 0 {
			s.reset()
			return nil
		}
		return s.trailerField(line)
	}
	return nil
}

func (s *Screen) reset() {
	if cap(s.line) > maxKeptLine {
		s.line = nil
	}
	s.at, s.size, s.extra = atStart, 0, 0
	s.head.reset()
}

// endData moves on when the last byte of a body or of a chunk's data was seen.
func (s *Screen) endData() {
	if s.at == atData {
		s.at = atDataEnd
		return
	}
	s.reset()
}

// chunkLine reads chunk-size [ chunk-ext ] (RFC 9112, section 7.1). The size is 1 to 15 hexadecimal digits at the
// start of the line; extensions are bounded by the line and never understood.
func (s *Screen) chunkLine(line []byte) *exitgate.Refusal {
	n := firstBad(line, isHex)
	if n < 0 {
		n = len(line)
	}
	if n == 0 || n > 15 {
		return s.refuse(400, "the size of a chunk is not 1 to 15 hexadecimal digits")
	}
	if n < len(line) && line[n] != ';' {
		return s.refuse(400, "byte %#02x follows the size of a chunk", line[n])
	}
	if i := firstBad(line[n:], isValue); i >= 0 {
		return s.refuse(400, "an extension of a chunk holds byte %#02x", line[n+i])
	}
	s.left = 0
	for _, c := range line[:n] {
		s.left = s.left<<4 | int64(unhex(c))
	}
	s.extra = max(0, s.extra+int64(len(line))+2-16-2*min(s.left, 1<<40))
	if s.extra > maxExcess {
		return s.refuse(413, "the body is mostly chunk overhead")
	}
	if s.at = atData; s.left == 0 {
		s.at, s.size = atTrailer, 0
	}
	return nil
}

// where names the line that is being read, for reasons.
func (s *Screen) where() string {
	switch s.at {
	case atStart:
		return "the request line"
	case atChunk:
		return "the first line of a chunk"
	case atTrailer:
		return "a trailer field"
	}
	return "a header field"
}

// refuse says what was wrong with which message of the connection.
func (s *Screen) refuse(status int, format string, args ...any) *exitgate.Refusal {
	r := exitgate.NewRefusal(status, exitgate.RuleMalformed, format, args...)
	n := s.msg
	if s.at == atStart {
		n++
	}
	if n > 1 {
		r.Verdict.Reason += " (request " + strconv.Itoa(n) + " of its connection)"
	}
	return r
}
