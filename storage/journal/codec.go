package journal

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/netip"
	"time"

	"github.com/exitgate/exitgate"
)

// How a flow is written in a frame: its fields in the order of their declaration, an integer as a varint, a text as its
// length and its bytes, a list or map as its length plus one (0: nil) and its elements, an optional part after a byte
// that says whether it is there. It is a third of the flow's JSON and costs a third of it, on the data path, where what
// a record costs is decided; the JSON that is kept for ever is made when the flow goes to the store.
//
// A change of exitgate.Flow changes this, and codecVersion with it.
const codecVersion = 2

var errCodec = errors.New("these bytes are not a flow of this program")

// appendFlow appends f but for the subject of its question.
func appendFlow(b []byte, f *exitgate.Flow) []byte {
	b = append(b, f.ID[:]...)
	b = append(b, f.Conn[:]...)
	b = appendText(b, f.Gateway)
	b = appendText(b, string(f.Kind))
	b = appendInstant(b, f.Begin)
	b = appendInstant(b, f.End)
	b = appendNumbers(b, int64(f.Phases.Resolve), int64(f.Phases.Connect), int64(f.Phases.TLS), int64(f.Phases.Wait))
	b = appendVerdict(b, &f.Verdict)
	b = appendRequest(b, f.Forwarded)
	b = appendText(b, f.Authority.Connect)
	b = appendText(b, f.Authority.SNI)
	b = appendText(b, f.Authority.Host)
	b = appendAddrPort(b, f.Authority.Dialled)
	b = appendSide(b, &f.Client)
	b = appendSide(b, &f.Upstream)
	b = appendText(b, f.UpstreamCert)
	b = appendNumbers(b, int64(f.Status), f.Sent.Header, f.Sent.Body, f.Received.Header, f.Received.Body)
	b = appendText(b, string(f.RequestBody))
	b = appendText(b, string(f.ResponseBody))
	b = appendText(b, f.RequestSHA256)
	b = appendLength(b, len(f.Findings), f.Findings == nil)
	for i := range f.Findings {
		b = appendText(b, f.Findings[i].Inspector)
		b = appendText(b, f.Findings[i].Where)
		b = appendText(b, f.Findings[i].What)
	}
	if b = appendBool(b, f.Fault != nil); f.Fault != nil {
		b = appendText(b, f.Fault.Step)
		b = appendText(b, f.Fault.Type)
		b = appendText(b, f.Fault.Reason)
	}
	b = appendBool(b, f.Interrupted)
	return appendAsked(b, &f.Question)
}

func appendVerdict(b []byte, v *exitgate.Verdict) []byte {
	b = append(b, byte(v.Action))
	b = appendText(b, v.Rule)
	b = appendText(b, v.Reason)
	b = appendText(b, v.Revision)
	b = appendText(b, v.Grant)
	b = appendText(b, v.Exemption)
	b = appendBool(b, v.Raw)
	b = appendNumbers(b, v.Limits.RequestBody, v.Limits.ResponseBody, int64(v.Limits.Duration), v.Limits.Bytes)
	b = appendText(b, string(v.Rewrite))
	return appendBool(b, v.Audit)
}

// appendAsked appends the part of q that differs from stage to stage.
func appendAsked(b []byte, q *exitgate.Question) []byte {
	b = appendText(b, string(q.Stage))
	b = appendInstant(b, q.At)
	b = appendText(b, string(q.Way))
	r := q.Response
	if b = appendBool(b, r != nil); r != nil {
		b = binary.AppendVarint(b, int64(r.Status))
		b = appendHeaders(b, r.Headers)
		b = binary.AppendVarint(b, r.Length)
	}
	return b
}

// appendSubject appends the part of q that stays the same once a request was read: host, dest, tls, http.
func appendSubject(b []byte, q *exitgate.Question) []byte {
	b = appendText(b, q.Host.Name)
	b = appendText(b, string(q.Host.Class))
	b = appendAddr(b, q.Host.Addr)
	b = appendText(b, q.Host.By)
	b = appendText(b, q.Dest.Host)
	b = binary.AppendUvarint(b, uint64(q.Dest.Port))
	b = appendAddrPort(b, q.Dest.Aim)
	b = appendAddrPort(b, q.Dest.Addr)
	t := q.TLS
	if b = appendBool(b, t != nil); t != nil {
		b = appendText(b, t.SNI)
		b = appendTexts(b, t.ALPN)
		b = appendTexts(b, t.Versions)
		b = appendBool(b, t.ECH)
		b = appendText(b, t.JA4)
	}
	return appendRequest(b, q.HTTP)
}

func appendRequest(b []byte, r *exitgate.Request) []byte {
	if b = appendBool(b, r != nil); r != nil {
		b = appendText(b, r.Method)
		b = appendText(b, r.Scheme)
		b = appendText(b, r.URL)
		b = appendText(b, r.Path)
		b = appendText(b, r.Query)
		b = appendHeaders(b, r.Headers)
		b = binary.AppendVarint(b, r.Length)
		b = appendText(b, r.Proto)
		b = appendText(b, r.Upgrade)
		b = appendBool(b, r.EncodedSlash)
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func appendNumbers(b []byte, list ...int64) []byte {
	for _, n := range list {
		b = binary.AppendVarint(b, n)
	}
	return b
}

// appendLength appends the length of a list, which nil tells from an empty one.
func appendLength(b []byte, n int, isNil bool) []byte {
	if isNil {
		return append(b, 0)
	}
	return binary.AppendUvarint(b, uint64(n)+1)
}

func appendTexts(b []byte, list []string) []byte {
	b = appendLength(b, len(list), list == nil)
	for _, s := range list {
		b = appendText(b, s)
	}
	return b
}

func appendHeaders(b []byte, h map[string][]string) []byte {
	b = appendLength(b, len(h), h == nil)
	for name, values := range h {
		b = appendTexts(appendText(b, name), values)
	}
	return b
}

// appendInstant appends the seconds since 1970 and the nanoseconds of t; the zero time is short.
func appendInstant(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, 0)
	}
	b = binary.AppendVarint(append(b, 1), t.Unix())
	return binary.AppendUvarint(b, uint64(t.Nanosecond()))
}

func appendSide(b []byte, s *exitgate.Side) []byte {
	return appendText(appendText(appendText(b, s.Proto), s.ALPN), s.TLS)
}

// appendAddr appends the number of a's bytes, these, and its zone.
func appendAddr(b []byte, a netip.Addr) []byte {
	switch {
	case !a.IsValid():
		return append(b, 0)
	case a.Is4():
		ip := a.As4()
		return append(append(b, 4), ip[:]...)
	}
	ip := a.As16()
	return appendText(append(append(b, 16), ip[:]...), a.Zone())
}

func appendAddrPort(b []byte, a netip.AddrPort) []byte {
	return binary.AppendUvarint(appendAddr(b, a.Addr()), uint64(a.Port()))
}

// A decoder reads what the functions above appended. Its first error stays, and what is read after it is zero.
type decoder struct {
	b   string // texts are parts of it
	at  int    // of b, what comes next; a place, as moving a pointer costs while garbage is collected
	bad bool
}

// left returns how many bytes are left.
func (d *decoder) left() int { return len(d.b) - d.at }

func (d *decoder) fail() {
	d.bad, d.at = true, len(d.b)
}

func (d *decoder) take(n uint64) string {
	if n > uint64(d.left()) {
		d.fail()
		return ""
	}
	s := d.b[d.at : d.at+int(n)]
	d.at += int(n)
	return s
}

// byte returns the next byte, or 0.
func (d *decoder) byte() byte {
	if d.at >= len(d.b) {
		d.fail()
		return 0
	}
	c := d.b[d.at]
	d.at++
	return c
}

func (d *decoder) uvarint() uint64 {
	var x uint64
	for shift := 0; shift < 64; shift += 7 {
		c := d.byte()
		if x |= uint64(c&0x7f) << shift; c < 0x80 {
			return x
		}
	}
	d.fail()
	return 0
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (d *decoder) text() string { return d.take(d.uvarint()) }
func (d *decoder) bool() bool   { return d.byte() == 1 }

// length returns the length of a list and whether it is there at all. Each element takes at least a byte.
func (d *decoder) length() (n int, there bool) {
	u := d.uvarint()
	if u == 0 {
		return 0, false
	}
	if u--; u > uint64(d.left()) {
		d.fail()
		return 0, false
	}
	return int(u), true
}

func (d *decoder) texts() []string {
	n, there := d.length()
	if !there {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = d.text()
	}
	return list
}

func (d *decoder) headers() map[string][]string {
	n, there := d.length()
	if !there {
		return nil
	}
	h := make(map[string][]string, n)
	single := make([]string, n) // most fields have one value
	for i := range n {
		name := d.text()
		if d.left() > 0 && d.b[d.at] == 2 { // a list of one
			d.at++
			single[i] = d.text()
			h[name] = single[i : i+1 : i+1]
			continue
		}
		h[name] = d.texts()
	}
	return h
}

func (d *decoder) instant() time.Time {
	if !d.bool() {
		return time.Time{}
	}
	sec, nsec := d.varint(), d.uvarint()
	return time.Unix(sec, int64(nsec%1e9)).UTC()
}

func (d *decoder) side() exitgate.Side {
	return exitgate.Side{Proto: d.text(), ALPN: d.text(), TLS: d.text()}
}

func (d *decoder) addr() netip.Addr {
	switch d.byte() {
	case 4:
		var ip [4]byte
		copy(ip[:], d.take(4))
		return netip.AddrFrom4(ip)
	case 16:
		var ip [16]byte
		copy(ip[:], d.take(16))
		a := netip.AddrFrom16(ip)
		if zone := d.text(); zone != "" {
			return a.WithZone(zone)
		}
		return a
	}
	return netip.Addr{}
}

func (d *decoder) addrPort() netip.AddrPort {
	a, port := d.addr(), d.uvarint()
	return netip.AddrPortFrom(a, uint16(port))
}

func (d *decoder) flow(f *exitgate.Flow) {
	copy(f.ID[:], d.take(16))
	copy(f.Conn[:], d.take(16))
	f.Gateway, f.Kind = d.text(), exitgate.Kind(d.text())
	f.Begin, f.End = d.instant(), d.instant()
	for _, p := range []*time.Duration{&f.Phases.Resolve, &f.Phases.Connect, &f.Phases.TLS, &f.Phases.Wait} {
		*p = time.Duration(d.varint())
	}
	d.verdict(&f.Verdict)
	f.Forwarded = d.request()
	f.Authority = exitgate.Authority{Connect: d.text(), SNI: d.text(), Host: d.text(), Dialled: d.addrPort()}
	f.Client, f.Upstream = d.side(), d.side()
	f.UpstreamCert, f.Status = d.text(), int(d.varint())
	f.Sent = exitgate.Bytes{Header: d.varint(), Body: d.varint()}
	f.Received = exitgate.Bytes{Header: d.varint(), Body: d.varint()}
	f.RequestBody, f.ResponseBody = exitgate.BodyState(d.text()), exitgate.BodyState(d.text())
	f.RequestSHA256 = d.text()
	if n, there := d.length(); there {
		f.Findings = make([]exitgate.Finding, n)
		for i := range f.Findings {
			f.Findings[i] = exitgate.Finding{Inspector: d.text(), Where: d.text(), What: d.text()}
		}
	}
	if d.bool() {
		f.Fault = &exitgate.Fault{Step: d.text(), Type: d.text(), Reason: d.text()}
	}
	f.Interrupted = d.bool()
	d.asked(&f.Question)
}

func (d *decoder) verdict(v *exitgate.Verdict) {
	v.Action = exitgate.Action(d.byte())
	v.Rule, v.Reason, v.Revision = d.text(), d.text(), d.text()
	v.Grant, v.Exemption, v.Raw = d.text(), d.text(), d.bool()
	v.Limits.RequestBody, v.Limits.ResponseBody = d.varint(), d.varint()
	v.Limits.Duration, v.Limits.Bytes = time.Duration(d.varint()), d.varint()
	if r := d.text(); r != "" {
		v.Rewrite = json.RawMessage(r)
	}
	v.Audit = d.bool()
}

func (d *decoder) asked(q *exitgate.Question) {
	q.Stage, q.At, q.Way = exitgate.Stage(d.text()), d.instant(), exitgate.Way(d.text())
	if d.bool() {
		q.Response = &exitgate.Response{Status: int(d.varint()), Headers: d.headers(), Length: d.varint()}
	}
}

func (d *decoder) subject(q *exitgate.Question) {
	q.Host = exitgate.Host{Name: d.text(), Class: exitgate.Class(d.text()), Addr: d.addr(), By: d.text()}
	q.Dest = exitgate.Destination{Host: d.text(), Port: uint16(d.uvarint()), Aim: d.addrPort(), Addr: d.addrPort()}
	if d.bool() {
		q.TLS = &exitgate.TLS{SNI: d.text(), ALPN: d.texts(), Versions: d.texts(), ECH: d.bool(), JA4: d.text()}
	}
	q.HTTP = d.request()
}

func (d *decoder) request() *exitgate.Request {
	if !d.bool() {
		return nil
	}
	return &exitgate.Request{Method: d.text(), Scheme: d.text(), URL: d.text(), Path: d.text(), Query: d.text(),
		Headers: d.headers(), Length: d.varint(), Proto: d.text(), Upgrade: d.text(), EncodedSlash: d.bool()}
}
