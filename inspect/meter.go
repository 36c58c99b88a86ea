package inspect

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"net/http"
	"strconv"
	"sync"

	"github.com/exitgate/exitgate"
)

var errSettled = errors.New("the flow has ended")

// A RequestMeter counts and hashes the request's body on its way upstream and holds it to the verdict's limit. A body
// that declares more is refused with 413 before anything is sent; one that turns out longer fails the upstream's read with an
// *exitgate.Refusal after exactly as many bytes as are allowed, so that the upstream never gets a complete
// request. A body of exactly the limit passes. It stands behind the verdict, and after everything that changes the header.
type RequestMeter struct {
	Default int64 // bytes, where the verdict has no limit; 0: none
}

// ModifyRequest implements martian's RequestModifier.
func (m *RequestMeter) ModifyRequest(req *http.Request) error {
	x, _, err := exchange("RequestMeter", req)
	if err != nil {
		return err
	}
	f := x.Flow
	f.Sent.Header = requestHeaderSize(req)
	if req.ContentLength == 0 || req.Body == nil {
		req.Body = http.NoBody // HTTP/2's empty body is not NoBody, and the transport would send it in chunks
		return nil
	}
	b := &meter{body: req.Body, what: "request", limit: orDefault(f.Verdict.Limits.RequestBody, m.Default), declared: req.ContentLength, sum: sha256.New()}
	if err := b.tooLong(); err != nil {
		f.RequestBody = exitgate.BodyOverLimit
		return err
	}
	req.Body = b
	x.OnSettle(func(f *exitgate.Flow) {
		f.Sent.Body, f.RequestBody = b.settle()
		f.RequestSHA256 = hex.EncodeToString(b.sum.Sum(nil))
		if f.RequestBody == exitgate.BodyComplete {
			f.Sent.Header += fieldsSize(req.Trailer)
		}
	})
	return nil
}

// A ResponseMeter counts the response's body on its way to the host and holds it to the verdict's limit, as
// [RequestMeter] does for requests. An upgraded connection is counted by the engine; the meter tells it the limits.
type ResponseMeter struct {
	Default        int64 // bytes, where the verdict has no limit for the response; 0: none
	DefaultRequest int64 // the same for what an upgraded connection sends
}

// ModifyResponse implements martian's ResponseModifier.
func (m *ResponseMeter) ModifyResponse(res *http.Response) error {
	x, _, err := exchange("ResponseMeter", res.Request)
	if err != nil {
		return err
	}
	f := x.Flow
	f.Received.Header = responseHeaderSize(res)
	limit := orDefault(f.Verdict.Limits.ResponseBody, m.Default)
	if res.StatusCode == http.StatusSwitchingProtocols { // its body is a connection, and must stay one
		l := &f.Verdict.Limits
		l.RequestBody, l.ResponseBody = orDefault(l.RequestBody, m.DefaultRequest), limit
		return nil
	}
	if res.Body == nil || res.Body == http.NoBody || !hasBody(res) {
		return nil
	}
	b := &meter{body: res.Body, what: "response", limit: limit, declared: res.ContentLength}
	if err := b.tooLong(); err != nil {
		f.ResponseBody = exitgate.BodyOverLimit
		return err
	}
	res.Body = b
	x.OnSettle(func(f *exitgate.Flow) {
		f.Received.Body, f.ResponseBody = b.settle()
		if f.ResponseBody == exitgate.BodyComplete {
			f.Received.Header += fieldsSize(res.Trailer)
		}
	})
	return nil
}

func orDefault(limit, def int64) int64 {
	if limit > 0 {
		return limit
	}
	return def
}

// hasBody reports whether RFC 9112, section 6.3, lets the response have a body.
func hasBody(res *http.Response) bool {
	return res.Request.Method != http.MethodHead && res.StatusCode/100 != 1 &&
		res.StatusCode != http.StatusNoContent && res.StatusCode != http.StatusNotModified
}

// A meter passes a body on and counts it. The goroutine that reads it may be another one than settles it, and may
// still be reading then.
type meter struct {
	body     io.ReadCloser
	what     string
	limit    int64 // bytes; 0: none
	declared int64 // bytes; -1: unknown

	mu      sync.Mutex // guards what follows
	n       int64
	sum     hash.Hash // of what was passed on; nil: not wanted
	err     error     // what ended the body: io.EOF, a refusal, or what the sender's side said
	settled bool
}

func (m *meter) tooLong() error {
	if m.limit > 0 && m.declared > m.limit {
		return m.over("declares " + strconv.FormatInt(m.declared, 10) + " bytes")
	}
	return nil
}

func (m *meter) over(how string) error {
	return exitgate.NewRefusal(http.StatusRequestEntityTooLarge, exitgate.RuleLimit, "the body of the %s %s, and %d are allowed", m.what, how, m.limit)
}

// Read implements io.Reader. It never passes on a byte that is not counted, nor one over the limit.
func (m *meter) Read(p []byte) (int, error) {
	if err := m.ended(); err != nil {
		return 0, err
	}
	n, err := m.body.Read(p) // not under the lock: it may block for ever, and settle may not
	return m.count(p[:n], err)
}

func (m *meter) ended() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.settled && m.err == nil {
		return errSettled
	}
	return m.err
}

// count adds p, of which it returns how many bytes may be passed on.
func (m *meter) count(p []byte, err error) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.settled {
		return 0, errSettled
	}
	n := len(p)
	if m.limit > 0 && m.n+int64(n) > m.limit {
		n = int(m.limit - m.n)
		err = m.over("goes on after its limit")
	}
	m.n += int64(n)
	if m.sum != nil {
		m.sum.Write(p[:n])
	}
	if err != nil && m.err == nil {
		m.err = err
	}
	return n, err
}

// Close implements io.Closer.
func (m *meter) Close() error { return m.body.Close() }

// settle stops the meter and returns what it counted. A body of known length is complete when that many bytes
// were passed on, whether or not its reader asked for the end.
func (m *meter) settle() (n int64, state exitgate.BodyState) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settled = true
	var refused *exitgate.Refusal
	switch {
	case errors.As(m.err, &refused):
		return m.n, exitgate.BodyOverLimit
	case m.err == io.EOF, m.declared > 0 && m.n == m.declared:
		return m.n, exitgate.BodyComplete
	}
	return m.n, exitgate.BodyCut
}
