package storage

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/exitgate/exitgate"
)

// A ColumnKind says what a column holds.
type ColumnKind uint8

// The kinds of column.
const (
	TextColumn ColumnKind = iota // string, never null; "" when there is none
	IntColumn                    // int64, never null; 0 when there is none
	BoolColumn
	TimeColumn // time.Time in UTC, microseconds; the zero time is null
	AddrColumn // netip.Addr without its zone; the zero Addr is null
)

// A Column is one column to search flows by. Text gives the value of a TextColumn, Int that of an IntColumn, and
// so on; the others are nil.
type Column struct {
	Name string
	Kind ColumnKind
	Text func(*exitgate.Flow) string // already printable and cut, see [Printable]
	Int  func(*exitgate.Flow) int64
	Bool func(*exitgate.Flow) bool
	Time func(*exitgate.Flow) time.Time
	Addr func(*exitgate.Flow) netip.Addr

	raw   func([]byte, *exitgate.Flow) []byte // of a TextColumn: appends what Text makes printable and cuts
	of    side                                // whose header fields a row has made already for this column
	limit int
}

// AppendText appends what c.Text(f) returns; for a long text it leaves no garbage.
func (c *Column) AppendText(b []byte, f *exitgate.Flow) []byte {
	n := len(b)
	return c.printable(c.raw(b, f), n)
}

// printable makes what stands in b from n on printable, and cuts it.
func (c *Column) printable(b []byte, n int) []byte {
	if len(b)-n <= c.limit && isPrintable(b[n:]) {
		return b
	}
	return append(b[:n], Printable(string(b[n:]), c.limit)...)
}

// How many bytes of a text a column holds. The first is bounded by what a b-tree page of Postgres takes (2,704
// bytes); the second by what is reasonable to scan; the record has it all.
const (
	maxShort   = 512
	maxURL     = 8 << 10
	maxHeaders = 64 << 10
)

// Columns returns the columns to search by, in the order in which the databases have them. The names are those of
// the JSON fields, joined where a bare name would not say whose it is.
func Columns() []Column {
	q := func(f func(*exitgate.Request) string) func(*exitgate.Flow) string {
		return func(flow *exitgate.Flow) string {
			if flow.Question.HTTP == nil {
				return ""
			}
			return f(flow.Question.HTTP)
		}
	}
	fault := func(f func(*exitgate.Fault) string) func(*exitgate.Flow) string {
		return func(flow *exitgate.Flow) string {
			if flow.Fault == nil {
				return ""
			}
			return f(flow.Fault)
		}
	}
	return []Column{
		made("id", maxShort, func(b []byte, f *exitgate.Flow) []byte { b, _ = f.ID.AppendText(b); return b }),
		made("conn", maxShort, func(b []byte, f *exitgate.Flow) []byte { b, _ = f.Conn.AppendText(b); return b }),
		text("gateway", func(f *exitgate.Flow) string { return f.Gateway }),
		text("kind", func(f *exitgate.Flow) string { return string(f.Kind) }),
		{Name: "begin", Kind: TimeColumn, Time: func(f *exitgate.Flow) time.Time { return micro(f.Begin) }},
		{Name: "end", Kind: TimeColumn, Time: func(f *exitgate.Flow) time.Time { return micro(f.End) }},
		text("outcome", func(f *exitgate.Flow) string { return string(f.Outcome()) }),
		integer("resolve_us", func(f *exitgate.Flow) int64 { return f.Phases.Resolve.Microseconds() }),
		integer("connect_us", func(f *exitgate.Flow) int64 { return f.Phases.Connect.Microseconds() }),
		integer("tls_us", func(f *exitgate.Flow) int64 { return f.Phases.TLS.Microseconds() }),
		integer("wait_us", func(f *exitgate.Flow) int64 { return f.Phases.Wait.Microseconds() }),

		text("stage", func(f *exitgate.Flow) string { return string(f.Question.Stage) }),
		text("way", func(f *exitgate.Flow) string { return string(f.Question.Way) }),
		text("host", func(f *exitgate.Flow) string { return f.Question.Host.Name }),
		text("class", func(f *exitgate.Flow) string { return string(f.Question.Host.Class) }),
		text("identified_by", func(f *exitgate.Flow) string { return f.Question.Host.By }),
		address("source_addr", func(f *exitgate.Flow) netip.Addr { return f.Question.Host.Addr }),
		text("dest_host", func(f *exitgate.Flow) string { return f.Question.Dest.Host }),
		integer("dest_port", func(f *exitgate.Flow) int64 { return int64(f.Question.Dest.Port) }),
		address("aim_addr", func(f *exitgate.Flow) netip.Addr { return f.Question.Dest.Aim.Addr() }),
		integer("aim_port", func(f *exitgate.Flow) int64 { return int64(f.Question.Dest.Aim.Port()) }),

		text("authority_connect", func(f *exitgate.Flow) string { return f.Authority.Connect }),
		text("authority_sni", func(f *exitgate.Flow) string { return f.Authority.SNI }),
		text("authority_host", func(f *exitgate.Flow) string { return f.Authority.Host }),
		address("dialled_addr", func(f *exitgate.Flow) netip.Addr { return f.Authority.Dialled.Addr() }),
		integer("dialled_port", func(f *exitgate.Flow) int64 { return int64(f.Authority.Dialled.Port()) }),
		text("client_proto", func(f *exitgate.Flow) string { return f.Client.Proto }),
		text("client_alpn", func(f *exitgate.Flow) string { return f.Client.ALPN }),
		text("client_tls", func(f *exitgate.Flow) string { return f.Client.TLS }),
		text("client_ja4", func(f *exitgate.Flow) string {
			if f.Question.TLS == nil {
				return ""
			}
			return f.Question.TLS.JA4
		}),
		text("upstream_proto", func(f *exitgate.Flow) string { return f.Upstream.Proto }),
		text("upstream_alpn", func(f *exitgate.Flow) string { return f.Upstream.ALPN }),
		text("upstream_tls", func(f *exitgate.Flow) string { return f.Upstream.TLS }),
		text("upstream_cert", func(f *exitgate.Flow) string { return f.UpstreamCert }),

		text("method", q(func(r *exitgate.Request) string { return r.Method })),
		text("scheme", q(func(r *exitgate.Request) string { return r.Scheme })),
		long("url", maxURL, q(func(r *exitgate.Request) string { return r.URL })),
		long("path", maxURL, q(func(r *exitgate.Request) string { return r.Path })),
		headers("request_headers", requestSide, func(q *exitgate.Question) map[string][]string {
			if q.HTTP == nil {
				return nil
			}
			return q.HTTP.Headers
		}),
		headers("response_headers", responseSide, func(q *exitgate.Question) map[string][]string {
			if q.Response == nil {
				return nil
			}
			return q.Response.Headers
		}),
		integer("status", func(f *exitgate.Flow) int64 { return int64(f.Status) }),
		integer("sent_header", func(f *exitgate.Flow) int64 { return f.Sent.Header }),
		integer("sent_body", func(f *exitgate.Flow) int64 { return f.Sent.Body }),
		integer("received_header", func(f *exitgate.Flow) int64 { return f.Received.Header }),
		integer("received_body", func(f *exitgate.Flow) int64 { return f.Received.Body }),
		text("request_body", func(f *exitgate.Flow) string { return string(f.RequestBody) }),
		text("response_body", func(f *exitgate.Flow) string { return string(f.ResponseBody) }),
		text("request_sha256", func(f *exitgate.Flow) string { return f.RequestSHA256 }),

		text("action", func(f *exitgate.Flow) string { return f.Verdict.Action.String() }),
		text("rule", func(f *exitgate.Flow) string { return f.Verdict.Rule }),
		long("reason", maxURL, func(f *exitgate.Flow) string { return f.Verdict.Reason }),
		text("revision", func(f *exitgate.Flow) string { return f.Verdict.Revision }),
		text("grant", func(f *exitgate.Flow) string { return f.Verdict.Grant }),
		text("exemption", func(f *exitgate.Flow) string { return f.Verdict.Exemption }),
		{Name: "audit", Kind: BoolColumn, Bool: func(f *exitgate.Flow) bool { return f.Verdict.Audit }},
		text("fault_step", fault(func(f *exitgate.Fault) string { return f.Step })),
		text("fault_type", fault(func(f *exitgate.Fault) string { return f.Type })),
		long("fault_reason", maxURL, fault(func(f *exitgate.Fault) string { return f.Reason })),
		made("findings", maxHeaders, func(b []byte, f *exitgate.Flow) []byte {
			if len(f.Findings) == 0 {
				return b
			}
			return appendFindings(b, f.Findings)
		}),
	}
}

func text(name string, f func(*exitgate.Flow) string) Column { return long(name, maxShort, f) }

func long(name string, limit int, f func(*exitgate.Flow) string) Column {
	return Column{Name: name, Kind: TextColumn, limit: limit,
		Text: func(flow *exitgate.Flow) string { return Printable(f(flow), limit) },
		raw:  func(b []byte, flow *exitgate.Flow) []byte { return append(b, f(flow)...) }}
}

// made is a text that is not there as a string.
func made(name string, limit int, f func([]byte, *exitgate.Flow) []byte) Column {
	return Column{Name: name, Kind: TextColumn, limit: limit, raw: f,
		Text: func(flow *exitgate.Flow) string { return Printable(string(f(make([]byte, 0, 512), flow)), limit) }}
}

type side uint8

const (
	noSide side = iota
	requestSide
	responseSide
)

// headers is the JSON of header fields, or nothing when there are none.
func headers(name string, of side, get func(*exitgate.Question) map[string][]string) Column {
	c := made(name, maxHeaders, func(b []byte, f *exitgate.Flow) []byte {
		if h := get(&f.Question); len(h) > 0 {
			return appendHeaders(b, h)
		}
		return b
	})
	c.of = of
	return c
}

func integer(name string, f func(*exitgate.Flow) int64) Column {
	return Column{Name: name, Kind: IntColumn, Int: f}
}

func address(name string, f func(*exitgate.Flow) netip.Addr) Column {
	return Column{Name: name, Kind: AddrColumn, Addr: func(flow *exitgate.Flow) netip.Addr { return f(flow).WithZone("") }}
}

// micro is t as a column holds it. A year that RFC 3339 cannot hold is no time at all, as in the record.
func micro(t time.Time) time.Time {
	t = t.UTC().Truncate(time.Microsecond)
	if y := t.Year(); y < 0 || y > 9999 {
		return time.Time{}
	}
	return t
}

// Printable returns s as a text column holds it: a control character or a byte that is not UTF-8 is written as
// \xHH, and what is longer than limit bytes is cut and ends in "…". A backslash stays as it is: the text is to
// be read and searched, and the record holds what is exact.
func Printable(s string, limit int) string {
	if len(s) <= limit && isPrintable(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		piece := s[i : i+n]
		if r == utf8.RuneError && n == 1 || isControl(r) {
			piece = escape(s[i : i+n])
		}
		if b.Len()+len(piece) > limit-len("…") && (b.Len()+len(piece) > limit || i+n < len(s)) {
			b.WriteString("…")
			break
		}
		b.WriteString(piece)
		i += n
	}
	return b.String()
}

// isPrintable looks at eight bytes at once: in each term, the high bit of a byte is set if that byte, or one before it, is
// a control character or not ASCII.
func isPrintable[T string | []byte](s T) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; len(s)-i >= 8; i += 8 {
		t := s[i : i+8]
		x := uint64(t[0]) | uint64(t[1])<<8 | uint64(t[2])<<16 | uint64(t[3])<<24 |
			uint64(t[4])<<32 | uint64(t[5])<<40 | uint64(t[6])<<48 | uint64(t[7])<<56
		if (x|(x-ones*0x20)|(x+ones))&highs != 0 {
			return isPrintableUnicode(string(s[i:]))
		}
	}
	for ; i < len(s); i++ {
		if s[i] < 0x20 || s[i] >= 0x7f {
			return isPrintableUnicode(string(s[i:]))
		}
	}
	return true
}

func isPrintableUnicode(s string) bool {
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || isControl(r) {
			return false
		}
		i += n
	}
	return true
}

func isControl(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }

func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteString(`\x`)
		if s[i] < 16 {
			b.WriteByte('0')
		}
		b.WriteString(strconv.FormatUint(uint64(s[i]), 16))
	}
	return b.String()
}
