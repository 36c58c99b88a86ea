package inspect

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
)

// readOnly is a connection that holds a client's first flight and loses what is written to it.
type readOnly struct {
	net.Conn
	r io.Reader
}

func (c readOnly) Read(p []byte) (int, error)       { return c.r.Read(p) }
func (c readOnly) Write(p []byte) (int, error)      { return len(p), nil }
func (c readOnly) Close() error                     { return nil }
func (c readOnly) SetDeadline(time.Time) error      { return nil }
func (c readOnly) SetReadDeadline(time.Time) error  { return nil }
func (c readOnly) SetWriteDeadline(time.Time) error { return nil }

var errPeeked = errors.New("peeked")

// cryptoTLS returns what crypto/tls reads in a hello, or nil.
func cryptoTLS(b []byte) (got *tls.ClientHelloInfo) {
	tls.Server(readOnly{r: bytes.NewReader(b)}, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		got = h
		return nil, errPeeked
	}}).HandshakeContext(context.Background())
	return got
}

type firstFlight struct {
	readOnly
	sent *bytes.Buffer
}

func (c firstFlight) Write(p []byte) (int, error) { return c.sent.Write(p) }

func helloOf(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	var sent bytes.Buffer
	c := firstFlight{readOnly{r: strings.NewReader("")}, &sent}
	tls.Client(c, cfg).Handshake()
	if sent.Len() < 50 {
		t.Fatalf("the hello has %d bytes", sent.Len())
	}
	return sent.Bytes()
}

// resplit writes the handshake bytes of records in records of n bytes.
func resplit(b []byte, n int) (out []byte) {
	var msg []byte
	for len(b) > 0 {
		m := 5 + int(b[3])<<8 + int(b[4])
		msg, b = append(msg, b[5:m]...), b[m:]
	}
	for len(msg) > 0 {
		m := min(n, len(msg))
		out = append(append(out, 0x16, 3, 1, byte(m>>8), byte(m)), msg[:m]...)
		msg = msg[m:]
	}
	return out
}

func TestSniffHello(t *testing.T) {
	for _, cfg := range []*tls.Config{
		{ServerName: "API.example.com", NextProtos: []string{"h2", "http/1.1"}},
		{ServerName: "a_b.example", MaxVersion: tls.VersionTLS12},
		{InsecureSkipVerify: true},
		{ServerName: "x.example", NextProtos: []string{"acme-tls/1"}},
		{ServerName: "big.example", NextProtos: slices.Repeat([]string{strings.Repeat("p", 200)}, 100)},
	} {
		b := helloOf(t, cfg)
		for _, split := range []int{1 << 14, 700, 1} {
			in := resplit(b, max(split, len(b)/maxRecords+1))
			op, err := Sniff(in)
			if err != nil || op.Proto != exitgate.OpeningTLS {
				t.Fatalf("%s in records of %d: %+v %v", cfg.ServerName, split, op, err)
			}
			want := cryptoTLS(b)
			if op.TLS.SNI != strings.ToLower(want.ServerName) || !slices.Equal(op.TLS.ALPN, append([]string{}, want.SupportedProtos...)) {
				t.Errorf("got %+v, crypto/tls %q %q", op.TLS, want.ServerName, want.SupportedProtos)
			}
			step := 1 + len(in)/300
			for n := 0; n < len(in); n += step {
				if op, err := Sniff(in[:n]); err != exitgate.ErrShort {
					t.Fatalf("prefix of %d bytes: %+v %v", n, op, err)
				}
			}
			if more, err := Sniff(append(slices.Clone(in), "early data"...)); err != nil || more.TLS.JA4 != op.TLS.JA4 {
				t.Errorf("with more bytes: %+v %v", more, err)
			}
		}
	}
	op, _ := Sniff(helloOf(t, &tls.Config{ServerName: "a.example"}))
	if !slices.Equal(op.TLS.Versions, []string{"1.3", "1.2"}) || op.TLS.ECH {
		t.Errorf("%+v", op.TLS)
	}
}

// hello13 builds a ClientHello with the given extensions.
func hello13(exts ...[]byte) []byte {
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0, 0, 2, 0x13, 1, 1, 0)
	all := bytes.Join(exts, nil)
	body = append(append(body, byte(len(all)>>8), byte(len(all))), all...)
	msg := append([]byte{1, 0, byte(len(body) >> 8), byte(len(body))}, body...)
	return append([]byte{0x16, 3, 1, byte(len(msg) >> 8), byte(len(msg))}, msg...)
}

func ext(typ int, body ...byte) []byte {
	return append([]byte{byte(typ >> 8), byte(typ), byte(len(body) >> 8), byte(len(body))}, body...)
}

func sniExt(names ...string) []byte {
	var list []byte
	for _, n := range names {
		list = append(append(list, 0, byte(len(n)>>8), byte(len(n))), n...)
	}
	return ext(0, append([]byte{byte(len(list) >> 8), byte(len(list))}, list...)...)
}

func TestSniffRefuses(t *testing.T) {
	good := hello13(sniExt("a.example"))
	cutExt := slices.Clone(good)
	cutExt[len(cutExt)-1-9]++ // the length of the name
	behind := append(slices.Clone(good), 1, 2, 3)
	behind[4] += 3
	junk := slices.Clone(behind)
	junk[8] += 3
	for name, c := range map[string]struct {
		in   []byte
		says string
	}{
		"empty name":              {hello13(sniExt("")), "empty"},
		"two names":               {hello13(sniExt("a.example", "b.example")), "more than one"},
		"no names":                {hello13(ext(0, 0, 0)), "cut off"},
		"dot":                     {hello13(sniExt("a.example.")), "dot"},
		"address":                 {hello13(sniExt("192.0.2.7")), "IP address"},
		"octal address":           {hello13(sniExt("0300.0.2.7")), "number"},
		"ipv6":                    {hello13(sniExt("2001:db8::1")), "no host name"},
		"ipv6 in brackets":        {hello13(sniExt("[2001:db8::1]")), "no host name"},
		"port":                    {hello13(sniExt("a.example:443")), "no host name"},
		"not utf-8":               {hello13(sniExt("a\xff.example")), "no host name"},
		"kelvin sign":             {hello13(sniExt("\u212a.example")), "no host name"},
		"NUL":                     {hello13(sniExt("a\x00.example")), "no host name"},
		"space":                   {hello13(sniExt("a .example")), "no host name"},
		"empty label":             {hello13(sniExt("a..example")), "label"},
		"long label":              {hello13(sniExt(strings.Repeat("a", 64) + ".example")), "label"},
		"long name":               {hello13(sniExt(strings.Repeat("a.", 150) + "example")), "bytes"},
		"name type":               {hello13(ext(0, 0, 4, 1, 0, 1, 'a')), "type"},
		"extension twice":         {hello13(sniExt("a.example"), sniExt("b.example")), "twice"},
		"cut extension":           {cutExt, "cut off"},
		"empty ALPN":              {hello13(ext(16, 0, 0)), "ALPN"},
		"empty ALPN name":         {hello13(ext(16, 0, 1, 0)), "ALPN"},
		"cut ALPN name":           {hello13(ext(16, 0, 2, 5, 'h')), "ALPN"},
		"odd versions":            {hello13(ext(43, 3, 3, 4, 3)), "versions"},
		"only GREASE":             {hello13(ext(43, 2, 0x1a, 0x1a)), "no version"},
		"ServerHello":             {[]byte{0x16, 3, 3, 0, 5, 2, 0, 0, 1, 0}, "type 2"},
		"empty record":            {[]byte{0x16, 3, 3, 0, 0}, "0 bytes"},
		"huge record":             {[]byte{0x16, 3, 3, 0x40, 1}, "16385"},
		"huge hello":              {[]byte{0x16, 3, 3, 0, 5, 1, 1, 0, 0, 0}, "65536"},
		"alert between":           {append(resplit(good, 20)[:25], 0x15, 3, 3, 0, 2, 1, 0), "type 21"},
		"bytes behind":            {behind, "follow"},
		"empty hello":             {[]byte{0x16, 3, 3, 0, 4, 1, 0, 0, 0}, "fixed"},
		"bytes behind extensions": {junk, "extensions"},
	} {
		_, err := Sniff(c.in)
		var r *exitgate.Refusal
		if !errors.As(err, &r) || r.Verdict.Rule != exitgate.RuleMalformed || !strings.Contains(r.Verdict.Reason, c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

func TestSniffOthers(t *testing.T) {
	for in, want := range map[string]string{
		"SSH-2.0-OpenSSH_9.2p1\r\n":        exitgate.OpeningSSH,
		preface:                            exitgate.OpeningH2C,
		"GET / HTTP/1.1\r\n":               exitgate.OpeningHTTP,
		"get / HTTP/1.1\r\n":               exitgate.OpeningHTTP,
		"SEARCH / HTTP/1.1\r\n":            exitgate.OpeningHTTP,
		"PRI /":                            exitgate.OpeningHTTP,
		"PRIVATE /":                        exitgate.OpeningHTTP,
		"OPTIONS * ":                       exitgate.OpeningHTTP,
		"GET http://a/":                    exitgate.OpeningHTTP,
		"GET HTTPS://a/":                   exitgate.OpeningHTTP,
		"CONNECT a:443":                    exitgate.OpeningHTTP,
		"EHLO mail.example.com\r\n":        exitgate.OpeningUnknown,
		"USER anonymous\r\n":               exitgate.OpeningUnknown,
		"NICK http\r\n":                    exitgate.OpeningHTTP, // a 400 is as good an answer
		"HELO home.example.com\r\n":        exitgate.OpeningUnknown,
		"\x05\x02\x00\x01":                 exitgate.OpeningUnknown,
		"\x00\x0e\x38":                     exitgate.OpeningUnknown,
		"\x00\x00\x00\x08\x04\xd2\x16\x2f": exitgate.OpeningUnknown,
		"\x16\x09":                         exitgate.OpeningUnknown,
		"\r\nGET / HTTP/1.1\r\n":           exitgate.OpeningUnknown,
		" GET / HTTP/1.1\r\n":              exitgate.OpeningUnknown,
		strings.Repeat("A", 40):            exitgate.OpeningUnknown,
		"deadc0de":                         "",
		"SSH":                              "",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r":   "",
		"GET ":                             "",
		"GET htt":                          "",
		"":                                 "",
	} {
		op, err := Sniff([]byte(in))
		if want == "" && err != exitgate.ErrShort || want != "" && (err != nil || op.Proto != want) {
			t.Errorf("%q: %v %v, want %q", in, op.Proto, err, want)
		}
		for n := range len(in) {
			if early, err := Sniff([]byte(in[:n])); err != exitgate.ErrShort && (err != nil || early.Proto != op.Proto) {
				t.Errorf("%q: %v %v, and the whole %v", in[:n], early.Proto, err, op.Proto)
			}
		}
	}
}

// TestJA4 recomputes the worked example of the JA4 specification, with GREASE and out of order.
func TestJA4(t *testing.T) {
	two := func(v ...uint16) (b []byte) {
		for _, x := range v {
			b = append(b, byte(x>>8), byte(x))
		}
		return b
	}
	h := hello{
		legacy: 0x0303,
		ciphers: two(0x3a3a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d,
			0x002f, 0x0035),
		types: []uint16{0x8a8a, 0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023, 0x0012, 0x002b, 0xff01,
			0x000b, 0x000a, 0x0015, 0xdada},
		alpn:     [][]byte{[]byte("h2"), []byte("http/1.1")},
		versions: two(0x6a6a, 0x0304, 0x0303),
		sigs:     two(0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601),
	}
	f, err := h.facts()
	if err != nil || f.JA4 != "t13d1516h2_8daaf6152771_e5627efa2ab1" {
		t.Errorf("%+v %v", f, err)
	}
}

func TestSniffFacts(t *testing.T) {
	op, err := Sniff(hello13(ext(0xfe0d, 0, 0, 1), ext(16, 0, 9, 2, 0x2a, 0x2a, 2, 'h', '2', 2, 0xff, '%'), ext(43, 6, 0x7a, 0x7a, 3, 4, 0x7f, 0x1c)))
	if err != nil {
		t.Fatal(err)
	}
	if !op.TLS.ECH || !slices.Equal(op.TLS.ALPN, []string{"h2", "%FF%25"}) || !slices.Equal(op.TLS.Versions, []string{"1.3", "0x7f1c"}) || op.TLS.SNI != "" {
		t.Errorf("%+v", op.TLS)
	}
}

// FuzzSniff compares the names that this parser and crypto/tls read, and that no prefix is told otherwise.
func FuzzSniff(f *testing.F) {
	f.Add(helloOf(f, &tls.Config{ServerName: "a.example", NextProtos: []string{"h2"}}), uint16(100))
	f.Add(resplit(helloOf(f, &tls.Config{ServerName: "A.example", MaxVersion: tls.VersionTLS12}), 50), uint16(60))
	f.Add(hello13(sniExt("a.example"), ext(16, 0, 3, 2, 'h', '2')), uint16(20))
	f.Add([]byte("GET / HTTP/1.1\r\n"), uint16(4))
	f.Add([]byte(preface), uint16(10))
	f.Fuzz(func(t *testing.T, b []byte, n uint16) {
		op, err := Sniff(b)
		if int(n) < len(b) {
			if early, e := Sniff(b[:n]); e == nil && (err != nil || early.Proto != op.Proto) {
				t.Fatalf("%d bytes: %v; all: %v %v", n, early.Proto, op.Proto, err)
			}
		}
		if err != nil || op.Proto != exitgate.OpeningTLS {
			return
		}
		std := cryptoTLS(b)
		if std == nil {
			return // stricter than this parser, in what does not matter here
		}
		if op.TLS.SNI != strings.ToLower(std.ServerName) {
			t.Fatalf("SNI %q, crypto/tls %q", op.TLS.SNI, std.ServerName)
		}
		var want []string
		for _, p := range std.SupportedProtos {
			if len(p) != 2 || !grease(uint16(p[0])<<8|uint16(p[1])) {
				want = append(want, protocolName([]byte(p)))
			}
		}
		if !slices.Equal(op.TLS.ALPN, want) {
			t.Fatalf("ALPN %q, crypto/tls %q", op.TLS.ALPN, want)
		}
	})
}

func BenchmarkSniff(b *testing.B) {
	in := helloOf(b, &tls.Config{ServerName: "api.example.com", NextProtos: []string{"h2", "http/1.1"}})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Sniff(in); err != nil {
			b.Fatal(err)
		}
	}
}
