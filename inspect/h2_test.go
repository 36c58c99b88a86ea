package inspect

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/exitgate/exitgate"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2Ask sends header fields, which no client library would send, to net/http's HTTP/2 server with the front steps behind
// it, and returns the status of the answer.
func h2Ask(t *testing.T, addr string, fields ...string) string {
	t.Helper()
	c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte(http2.ClientPreface))
	fr := http2.NewFramer(c, c)
	fr.WriteSettings()
	var block strings.Builder
	enc := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(block.String()), EndHeaders: true, EndStream: true})
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			return f.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return f.ErrCode.String()
		}
	}
}

// TestHTTP2 puts requests to the steps that only HTTP/2 can carry, through net/http's own server.
func TestHTTP2(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f := &exitgate.Flow{Authority: exitgate.Authority{Connect: "a.example:443", SNI: "a.example"}}
		f.Question.Dest = exitgate.Destination{Host: "a.example", Port: 443}
		f.Question.HTTP = &exitgate.Request{Scheme: "https", Proto: r.Proto}
		err := run(r.WithContext(exitgate.WithExchange(r.Context(), &exitgate.Exchange{Flow: f})), front()...)
		if refused, ok := err.(*exitgate.Refusal); ok {
			w.WriteHeader(refused.Status)
		} else if err != nil {
			w.WriteHeader(500)
		}
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	for name, c := range map[string]struct {
		fields []string
		want   string
	}{
		"good":                {[]string{":method", "GET", ":scheme", "https", ":authority", "a.example", ":path", "/"}, "200"},
		"other authority":     {[]string{":method", "GET", ":scheme", "https", ":authority", "b.example", ":path", "/"}, "421"},
		"authority with user": {[]string{":method", "GET", ":scheme", "https", ":authority", "u@a.example", ":path", "/"}, "400"},
		"host beside":         {[]string{":method", "GET", ":scheme", "https", ":authority", "a.example", ":path", "/", "host", "b.example"}, "421"},
		"same host beside":    {[]string{":method", "GET", ":scheme", "https", ":authority", "a.example", ":path", "/", "host", "a.example"}, "200"},
		"only host, other":    {[]string{":method", "GET", ":scheme", "https", ":path", "/", "host", "b.example"}, "421"},
		"whole URL as path":   {[]string{":method", "GET", ":scheme", "https", ":authority", "a.example", ":path", "https://a.example/"}, "400"},
		"dots":                {[]string{":method", "GET", ":scheme", "https", ":authority", "a.example", ":path", "/a/../b"}, "400"},
		"space in path":       {[]string{":method", "GET", ":scheme", "https", ":authority", "a.example", ":path", "/a b"}, "400"},
		"non-ascii path":      {[]string{":method", "GET", ":scheme", "https", ":authority", "a.example", ":path", "/\xff"}, "400"},
		"fragment":            {[]string{":method", "GET", ":scheme", "https", ":authority", "a.example", ":path", "/a#b"}, "400"},
		"lower-case method":   {[]string{":method", "get", ":scheme", "https", ":authority", "a.example", ":path", "/"}, "400"},
		"length of nothing":   {[]string{":method", "POST", ":scheme", "https", ":authority", "a.example", ":path", "/", "content-length", "abc"}, "400"},
		"two lengths":         {[]string{":method", "POST", ":scheme", "https", ":authority", "a.example", ":path", "/", "content-length", "0", "content-length", "5"}, "400"},
		"length 0":            {[]string{":method", "POST", ":scheme", "https", ":authority", "a.example", ":path", "/", "content-length", "0"}, "200"},
		"two tokens":          {[]string{":method", "GET", ":scheme", "https", ":authority", "a.example", ":path", "/", "authorization", "Bearer a", "authorization", "Bearer b"}, "400"},
	} {
		if got := h2Ask(t, srv.Listener.Addr().String(), c.fields...); got != c.want && !(c.want == "400" && got == "PROTOCOL_ERROR") {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
