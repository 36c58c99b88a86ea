package policy

import (
	"encoding/binary"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/exitgate/exitgate"
)

// The fields of input. One table says for each what it is called, what a policy sees, and how it enters a key, so
// that no field can be in one and not in the other.
const (
	fieldStage = iota
	fieldAt
	fieldWay
	hostName
	hostClass
	hostAddr
	hostBy
	destHost
	destPort
	destAim
	destAddr
	destKeys
	tlsSNI
	tlsALPN
	tlsVersions
	tlsECH
	tlsJA4
	httpMethod
	httpScheme
	httpURL
	httpPath
	httpPrefixes
	httpSegments
	httpQuery
	httpHeaders
	httpLength
	httpProto
	httpUpgrade
	httpEncodedSlash
	responseStatus
	responseHeaders
	responseLength
	numFields
)

// An asked is a question with what has been worked out of it.
type asked struct {
	*exitgate.Question
	site *site
	at   time.Time // within the years that text can hold
	path string    // canonical; "" without HTTP
}

type field struct {
	group, name string // input.group.name; a group of "" is input.name
	term        func(*asked) *ast.Term
	key         func([]byte, *asked) []byte
}

// names are the terms of the fields' names and groups, and of texts that most questions have, made once.
var names = commonTerms()

func commonTerms() map[string]*ast.Term {
	m := map[string]*ast.Term{}
	for _, s := range strings.Fields("stage at way host name class addr by dest port aim keys tls sni alpn versions ech ja4 http method " +
		"scheme url path prefixes segments query headers length proto upgrade encoded_slash response status " +
		"connect request proxy GET HEAD POST PUT https HTTP/1.1 HTTP/2.0") {
		m[s] = ast.StringTerm(s)
	}
	m[""] = ast.StringTerm("")
	return m
}

// textTerm is ast.StringTerm without an allocation for common texts.
func textTerm(s string) *ast.Term {
	if t, ok := names[s]; ok {
		return t
	}
	return ast.StringTerm(validText(s))
}

// validText is s with each byte that is no UTF-8 replaced by U+FFFD, as the record of a flow has it: what a policy sees
// when it is asked, it sees when it is asked again.
func validText(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}

// A field of a group is looked at only where the question has that part.
var fields = [numFields]field{
	fieldStage: text("", "stage", func(q *asked) string { return string(q.Stage) }),
	fieldAt:    text("", "at", func(q *asked) string { return timeText(q.at) }),
	fieldWay:   text("", "way", func(q *asked) string { return string(q.Way) }),

	hostName:  text("host", "name", func(q *asked) string { return q.Host.Name }),
	hostClass: {"host", "class", func(q *asked) *ast.Term { return q.site.classTerm }, nil},
	hostAddr:  {"host", "addr", func(q *asked) *ast.Term { return ast.StringTerm(addrText(q.Host.Addr)) }, func(b []byte, q *asked) []byte { return appendAddr(b, q.Host.Addr) }},
	hostBy:    text("host", "by", func(q *asked) string { return q.Host.By }),

	destHost: text("dest", "host", func(q *asked) string { return q.Dest.Host }),
	destPort: number("dest", "port", func(q *asked) int64 { return int64(q.Dest.Port) }),
	destAim:  address("aim", func(q *asked) netip.AddrPort { return q.Dest.Aim }),
	destAddr: address("addr", func(q *asked) netip.AddrPort { return q.Dest.Addr }),
	destKeys: {"dest", "keys", func(q *asked) *ast.Term { return q.site.keysTerm }, nil},

	tlsSNI:      text("tls", "sni", func(q *asked) string { return q.TLS.SNI }),
	tlsALPN:     list("tls", "alpn", func(q *asked) []string { return q.TLS.ALPN }),
	tlsVersions: list("tls", "versions", func(q *asked) []string { return q.TLS.Versions }),
	tlsECH:      boolean("tls", "ech", func(q *asked) bool { return q.TLS.ECH }),
	tlsJA4:      text("tls", "ja4", func(q *asked) string { return q.TLS.JA4 }),

	httpMethod:       text("http", "method", func(q *asked) string { return q.HTTP.Method }),
	httpScheme:       text("http", "scheme", func(q *asked) string { return q.HTTP.Scheme }),
	httpURL:          text("http", "url", func(q *asked) string { return q.HTTP.URL }),
	httpPath:         text("http", "path", func(q *asked) string { return q.HTTP.Path }),
	httpPrefixes:     {"http", "prefixes", func(q *asked) *ast.Term { return stringsTerm(prefixesOf(q.path)) }, appendPath},
	httpSegments:     {"http", "segments", func(q *asked) *ast.Term { return stringsTerm(segmentsOf(q.path)) }, appendPath},
	httpQuery:        {"http", "query", func(q *asked) *ast.Term { return valuesTerm(parseQuery(q.HTTP.Query)) }, func(b []byte, q *asked) []byte { return appendText(b, q.HTTP.Query) }},
	httpHeaders:      headers("http", func(q *asked) map[string][]string { return q.HTTP.Headers }),
	httpLength:       number("http", "length", func(q *asked) int64 { return q.HTTP.Length }),
	httpProto:        text("http", "proto", func(q *asked) string { return q.HTTP.Proto }),
	httpUpgrade:      text("http", "upgrade", func(q *asked) string { return q.HTTP.Upgrade }),
	httpEncodedSlash: boolean("http", "encoded_slash", func(q *asked) bool { return q.HTTP.EncodedSlash }),

	responseStatus:  number("response", "status", func(q *asked) int64 { return int64(q.Response.Status) }),
	responseHeaders: headers("response", func(q *asked) map[string][]string { return q.Response.Headers }),
	responseLength:  number("response", "length", func(q *asked) int64 { return q.Response.Length }),
}

func text(group, name string, get func(*asked) string) field {
	return field{group, name,
		func(q *asked) *ast.Term { return textTerm(get(q)) },
		func(b []byte, q *asked) []byte { return appendText(b, get(q)) }}
}

func number(group, name string, get func(*asked) int64) field {
	return field{group, name,
		func(q *asked) *ast.Term { return intTerm(get(q)) },
		func(b []byte, q *asked) []byte { return binary.LittleEndian.AppendUint64(b, uint64(get(q))) }}
}

func boolean(group, name string, get func(*asked) bool) field {
	return field{group, name,
		func(q *asked) *ast.Term { return ast.InternedTerm(get(q)) },
		func(b []byte, q *asked) []byte {
			if get(q) {
				return append(b, 1)
			}
			return append(b, 0)
		}}
}

func list(group, name string, get func(*asked) []string) field {
	return field{group, name,
		func(q *asked) *ast.Term { return stringsTerm(get(q)) },
		func(b []byte, q *asked) []byte { return appendList(b, get(q)) }}
}

// address is absent where there is none.
func address(name string, get func(*asked) netip.AddrPort) field {
	return field{"dest", name,
		func(q *asked) *ast.Term {
			if a := get(q); a.IsValid() {
				return ast.StringTerm(a.String())
			}
			return nil
		},
		func(b []byte, q *asked) []byte {
			a := get(q)
			return binary.LittleEndian.AppendUint16(appendAddr(b, a.Addr()), a.Port())
		}}
}

func headers(group string, get func(*asked) map[string][]string) field {
	return field{group, "headers",
		func(q *asked) *ast.Term { return valuesTerm(get(q)) },
		func(b []byte, q *asked) []byte {
			h := get(q)
			b = binary.AppendUvarint(b, uint64(len(h)))
			for _, name := range slices.Sorted(maps.Keys(h)) {
				b = appendList(appendText(b, name), h[name])
			}
			return b
		}}
}

func appendPath(b []byte, q *asked) []byte { return appendText(b, q.path) }

// appendText appends s so that no two sequences of texts look alike.
func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendList(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = appendText(b, s)
	}
	return b
}

func appendAddr(b []byte, a netip.Addr) []byte {
	a16 := a.As16()
	b = append(append(b, byte(a.BitLen())), a16[:]...)
	return appendText(b, a.Zone())
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func intTerm(n int64) *ast.Term {
	if n == int64(int(n)) {
		return ast.InternedTerm(int(n))
	}
	return ast.NumberTerm(json.Number(strconv.FormatInt(n, 10)))
}

func valuesTerm(m map[string][]string) *ast.Term {
	items := make([][2]*ast.Term, 0, len(m))
	for name, values := range m {
		items = append(items, item(name, stringsTerm(values)))
	}
	return ast.ObjectTerm(items...)
}
