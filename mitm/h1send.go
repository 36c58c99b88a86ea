package mitm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/exitgate/exitgate"
)

// writers hold what is sent until it is flushed, 4 KiB each: a head is one write, a large body passes by.
var writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 4096) }}

// send writes the head of the request, and starts its body if it has one.
func (e *h1exchange) send() error {
	r := e.a.r
	e.a.x.sent.Store(true) // from here on some of it may have left, whatever fails
	bw := writers.Get().(*bufio.Writer)
	bw.Reset(e.c.Conn)
	if err := writeHead(bw, r, e.c.parent, e.t.p); err != nil {
		putWriter(bw)
		return err
	}
	if !e.hasBody() {
		err := bw.Flush()
		putWriter(bw)
		return err
	}
	e.up = &upload{e: e, bw: bw, go_: make(chan struct{}), end: make(chan struct{})}
	if !strings.EqualFold(r.Header.Get("Expect"), "100-continue") {
		e.up.proceed()
	} else if err := bw.Flush(); err != nil {
		putWriter(bw)
		e.up = nil
		return err
	} else {
		e.up.patience = time.AfterFunc(time.Second, e.up.proceed) // RFC 9110, section 10.1.1: the upstream may not know it
	}
	go e.up.run()
	return nil
}

func putWriter(bw *bufio.Writer) {
	bw.Reset(nil)
	writers.Put(bw)
}

// writeHead writes the request line and the header, as they were judged.
func writeHead(bw *bufio.Writer, r *http.Request, absolute bool, p *Proxy) error {
	bw.WriteString(r.Method)
	bw.WriteByte(' ')
	if absolute {
		bw.WriteString(r.URL.Scheme + "://" + r.URL.Host)
	}
	bw.WriteString(r.URL.RequestURI())
	bw.WriteString(" HTTP/1.1\r\nHost: ")
	bw.WriteString(r.URL.Host)
	bw.WriteString("\r\n")
	if absolute {
		bw.WriteString(parentCredentials(p.Upstream.Proxy))
	}
	for name, values := range r.Header {
		switch name {
		case "Host", "Content-Length", "Transfer-Encoding", "Trailer":
			continue // framing is written below, from what the body is
		}
		for _, v := range values {
			if strings.ContainsAny(v, "\r\n\x00") || strings.ContainsAny(name, "\r\n\x00: ") {
				return &exitgate.Bug{Step: "send", Err: fmt.Errorf("the field %q would break the head", name)}
			}
			bw.WriteString(name)
			bw.WriteString(": ")
			bw.WriteString(v)
			bw.WriteString("\r\n")
		}
	}
	writeFraming(bw, r)
	_, err := bw.WriteString("\r\n")
	return err
}

func writeFraming(bw *bufio.Writer, r *http.Request) {
	hasBody := r.Body != nil && r.Body != http.NoBody
	switch {
	case hasBody && r.ContentLength > 0:
		bw.WriteString("Content-Length: ")
		bw.WriteString(strconv.FormatInt(r.ContentLength, 10))
		bw.WriteString("\r\n")
	case hasBody:
		bw.WriteString("Transfer-Encoding: chunked\r\n")
		if len(r.Trailer) > 0 {
			names := make([]string, 0, len(r.Trailer))
			for k := range r.Trailer {
				names = append(names, k)
			}
			bw.WriteString("Trailer: " + strings.Join(names, ", ") + "\r\n")
		}
	case r.Method == "POST" || r.Method == "PUT" || r.Method == "PATCH":
		bw.WriteString("Content-Length: 0\r\n") // RFC 9110, section 8.6
	}
}

// An upload sends a request's body on its own goroutine, while the exchange waits for the response: an upstream
// may answer before it has read everything.
type upload struct {
	e        *h1exchange
	bw       *bufio.Writer
	patience *time.Timer
	once     sync.Once
	go_      chan struct{} // closed when the body may be sent
	end      chan struct{} // closed when run returned

	mu      sync.Mutex // guards what follows
	final   bool       // the final head came before the body was begun: it is not wanted
	read    time.Time  // when the host's end of the body was read; zero before
	whole   bool       // and all of it was written
	bodyErr error      // of reading what the host sends
}

// proceed lets the body go.
func (u *upload) proceed() { u.once.Do(func() { close(u.go_) }) }

// answered says that the final head came. A body that still waits for 100 is not sent.
func (u *upload) answered() {
	u.mu.Lock()
	u.final = true
	u.mu.Unlock()
	if u.patience != nil {
		u.patience.Stop()
	}
	u.proceed()
}

func (u *upload) run() {
	defer close(u.end)
	defer putWriter(u.bw)
	<-u.go_
	u.mu.Lock()
	unwanted := u.final && u.patience != nil
	u.mu.Unlock()
	if unwanted {
		return
	}
	var writeErr error
	readErr := safely("request body", func() (err error) { err, writeErr = u.copy(); return err })
	u.mu.Lock()
	u.bodyErr, u.whole = readErr, readErr == nil && writeErr == nil
	u.mu.Unlock()
	if readErr != nil {
		u.e.c.cut() // the upstream must not take what it got for the whole
		return
	}
	// A write that failed may have met an early answer, which is then waited for as any other.
	u.e.c.expectHead(u.e.t.p)
}

// copy sends the body, in chunks where its length is not known, and tells which side failed.
func (u *upload) copy() (readErr, writeErr error) {
	r := u.e.a.r
	var to io.Writer = u.bw
	chunked := r.ContentLength <= 0
	if chunked {
		if werr := u.bw.Flush(); werr != nil { // the two may talk in turns, and the upstream begin
			return nil, werr
		}
		to = httputil.NewChunkedWriter(u.bw)
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := r.Body.Read(*buf)
		if n > 0 {
			if _, werr := to.Write((*buf)[:n]); werr != nil {
				return nil, werr
			}
			if chunked || n < len(*buf) {
				if werr := u.bw.Flush(); werr != nil {
					return nil, werr
				}
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err, nil
		}
	}
	u.mu.Lock()
	u.read = time.Now()
	u.mu.Unlock()
	if chunked {
		if err := to.(io.Closer).Close(); err != nil {
			return nil, err
		}
		for name, values := range r.Trailer {
			for _, v := range values {
				if strings.ContainsAny(name+v, "\r\n\x00") {
					return errors.New("a trailer field would break the message"), nil
				}
				u.bw.WriteString(name + ": " + v + "\r\n")
			}
		}
		u.bw.WriteString("\r\n")
	}
	return nil, u.bw.Flush()
}

// failed returns why the host's side of the body broke off, if it did.
func (u *upload) failed() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.bodyErr
}

// sentAt returns when the request was sent as a whole; def while it is not.
func (u *upload) sentAt(def time.Time) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.read.IsZero() {
		return def
	}
	return u.read
}

// sentWhole reports whether all of the body was written. An upstream's answer can be here before run has returned
// from its last write, so for that it waits, but not for an upstream that answered and stopped reading.
func (u *upload) sentWhole() bool {
	u.mu.Lock()
	read := !u.read.IsZero()
	u.mu.Unlock()
	if !read {
		return false
	}
	patience := time.NewTimer(100 * time.Millisecond)
	defer patience.Stop()
	select {
	case <-u.end:
		return u.whole // run returned: nothing writes it any more
	case <-patience.C:
		return false
	}
}

// wait returns when run did. An upload that is about to end, as most are, is given the time; a host that stopped
// sending is not waited for, and its connection is of no more use.
func (u *upload) wait(a *answer) {
	u.answered()
	patience := time.NewTimer(100 * time.Millisecond)
	defer patience.Stop()
	select {
	case <-u.end:
		return
	case <-patience.C:
	}
	if cc, ok := a.r.Context().Value(connKey{}).(*connContext); ok && cc.screened != nil {
		cc.screened.ended.Store(true)
	}
	http.NewResponseController(a.w).SetReadDeadline(time.Unix(1, 0))
	<-u.end
}
