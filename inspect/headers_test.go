package inspect

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/exitgate/exitgate"
)

// TestHeadersJudgedAreSent shows that the fields which a question holds are those that go upstream, but for Via.
func TestHeadersJudgedAreSent(t *testing.T) {
	fields := http.Header{
		"Accept": {"*/*"}, "X-Many": {"1", "2"}, "Connection": {"keep-alive, X-Hop, TE", "X-Also"}, "X-Hop": {"secret"}, "X-Also": {"x"},
		"Keep-Alive": {"timeout=5"}, "Proxy-Authorization": {"Basic eDp5"}, "Proxy-Connection": {"keep-alive"}, "Proxy-Foo": {"x"},
		"TE": {"gzip, trailers"}, "Upgrade": {"foo"}, "Http2-Settings": {"AAAA"}, "Trailer": {"X-Sum"}, "User-Agent": {"curl/8.5.0"},
		"Accept-Encoding": {"br"}, "X-Forwarded-For": {"192.0.2.1"}, "Content-Type": {"text/plain"},
	}
	req, x := visit{fields: fields, body: "5\r\nhello\r\n0\r\n\r\n", length: -1, method: "POST"}.request(t)
	if err := run(req, append(front(), NewHopByHop(), &Via{"gate1"})...); err != nil {
		t.Fatal(err)
	}
	sent := map[string][]string{}
	for k, v := range req.Header {
		sent[strings.ToLower(k)] = v
	}
	if via := sent["via"]; len(via) != 1 || via[0] != "1.1 gate1" {
		t.Errorf("via: %q", via)
	}
	if te := sent["te"]; len(te) != 1 || te[0] != "trailers" {
		t.Errorf("te: %q", te)
	}
	delete(sent, "via")
	delete(sent, "te")
	judged := x.Flow.Question.HTTP.Headers
	if !maps.EqualFunc(sent, judged, slices.Equal[[]string]) {
		t.Errorf("judged %v\nsent   %v", judged, sent)
	}
	if want := []string{"accept", "accept-encoding", "content-type", "user-agent", "x-forwarded-for", "x-many"}; !slices.Equal(slices.Sorted(maps.Keys(judged)), want) {
		t.Errorf("judged %v", slices.Sorted(maps.Keys(judged)))
	}
}

func TestHeadersRefuse(t *testing.T) {
	for name, c := range map[string]struct {
		fields http.Header
		says   string
	}{
		"two content types":  {http.Header{"Content-Type": {"text/plain", "application/json"}}, "Content-Type"},
		"two authorizations": {http.Header{"Authorization": {"Bearer a", "Bearer b"}}, "Authorization"},
		"two user agents":    {http.Header{"User-Agent": {"a", "b"}}, "User-Agent"},
		"two origins":        {http.Header{"Origin": {"https://a", "https://b"}}, "Origin"},
		"latin-1":            {http.Header{"X-Name": {"caf\xe9"}}, "UTF-8"},
	} {
		req, _ := visit{fields: c.fields}.request(t)
		wantRefusal(t, name, run(req, front()...), 400, exitgate.RuleMalformed, c.says)
	}
	for _, length := range []string{"5", "abc", "", "+0", "0, 0", "99999999999999999999"} { // net/http's HTTP/2 takes them for 0
		req, _ := visit{h2: true}.request(t)
		req.Header["Content-Length"] = []string{length}
		wantRefusal(t, "length "+length, run(req, front()...), 400, exitgate.RuleMalformed, "length")
	}
	req, _ := visit{h2: true, body: "0\r\n\r\n", length: 5}.request(t)
	req.Header["Content-Length"] = []string{"5"}
	if err := run(req, front()...); err != nil {
		t.Error(err)
	}
}

// TestHeadersUserAgent shows that no User-Agent is invented for a client that sent none.
func TestHeadersUserAgent(t *testing.T) {
	for _, fields := range []http.Header{nil, {"User-Agent": {""}}} {
		req, x := visit{fields: fields}.request(t)
		if err := run(req, front()...); err != nil {
			t.Fatal(err)
		}
		v, ok := req.Header["User-Agent"]
		if _, judged := x.Flow.Question.HTTP.Headers["user-agent"]; !ok || v != nil || judged {
			t.Errorf("%v: sent %q %v, judged %v", fields, v, ok, judged)
		}
		var b strings.Builder
		req.Write(&b)
		if strings.Contains(b.String(), "User-Agent") {
			t.Errorf("goes out as %q", b.String())
		}
	}
}

func TestHopByHopWebSocket(t *testing.T) {
	req, _ := visit{fields: http.Header{"Upgrade": {"websocket"}, "Connection": {"Upgrade, X-Hop"}, "X-Hop": {"1"}, "Sec-WebSocket-Key": {"a"}}}.request(t)
	if err := run(req, append(front(), NewHopByHop())...); err != nil {
		t.Fatal(err)
	}
	if req.Header.Get("Upgrade") != "websocket" || req.Header.Get("Connection") != "Upgrade" || req.Header.Get("X-Hop") != "" {
		t.Errorf("%v", req.Header)
	}
}

func TestRedactHeader(t *testing.T) {
	r := testRedactor
	fp := r.Fingerprint
	first := fp("a")
	if first == fp("b") || first != fp("a") || len(fp("a")) != 19 || fp("a") == NewRedactor([]byte("x"), Secrets{}).Fingerprint("a") {
		t.Fatal("fingerprints do not tell secrets apart, or not by key")
	}
	for _, c := range [][3]string{
		{"authorization", "Bearer abc", "Bearer " + fp("abc")},
		{"authorization", "bearer abc", "Bearer " + fp("abc")},
		{"authorization", "Basic dTpw", "Basic " + fp("dTpw")},
		{"authorization", "abc", fp("abc")},
		{"authorization", "hunter2 abc", fp("hunter2 abc")},
		{"authorization", "", fp("")},
		{"authorization", "AWS4-HMAC-SHA256 Credential=AKID/20260101/eu/s3/aws4_request, SignedHeaders=host, Signature=ff",
			"AWS4-HMAC-SHA256 Credential=AKID/20260101/eu/s3/aws4_request " + fp("Credential=AKID/20260101/eu/s3/aws4_request, SignedHeaders=host, Signature=ff")},
		{"cookie", "a=1; b=two=2; c", "a=" + fp("1") + "; b=" + fp("two=2") + "; " + fp("c")},
		{"cookie", "", ""},
		{"set-cookie", "sid=s3cret; Path=/; HttpOnly", "sid=" + fp("s3cret") + "; Path=/; HttpOnly"},
		{"set-cookie", "sid=s3cret", "sid=" + fp("s3cret")},
		{"x-api-key", "k", fp("k")},
		{"x-internal", "k", fp("k")},
		{"referer", "https://u:p@a.example/x?token=t&q=1", "https://" + fp("u:p") + "@a.example/x?token=" + fp("t") + "&q=1"},
		{"location", "/cb#access_token=t&x=y", "/cb#access_token=" + fp("t") + "&x=y"},
		{"location", "/cb?code=c#state=s", "/cb?code=" + fp("c") + "#state=s"},
		{"accept", "text/html?token=x", "text/html?token=x"},
	} {
		if got := r.Header(c[0], c[1]); got != c[2] {
			t.Errorf("%s: %s became %s, want %s", c[0], c[1], got, c[2])
		}
	}
}

func TestRedactQuery(t *testing.T) {
	fp := testRedactor.Fingerprint
	for in, want := range map[string]string{
		"":                              "",
		"a=b":                           "a=b",
		"a":                             "a",
		"token":                         "token",
		"token=":                        "token=",
		"token=x":                       "token=" + fp("x"),
		"a=1&access_token=x&b=2":        "a=1&access_token=" + fp("x") + "&b=2",
		"Access_Token=x":                "Access_Token=" + fp("x"),
		"X-Amz-Signature=ff&X-Amz=1":    "X-Amz-Signature=" + fp("ff") + "&X-Amz=1",
		"%61ccess_token=x":              "%61ccess_token=" + fp("x"),
		"%2561ccess_token=x":            "%2561ccess_token=x",
		"access%5Ftoken=x":              "access%5Ftoken=" + fp("x"),
		"token[]=x":                     "token[]=" + fp("x"),
		"token%5B%5D=x":                 "token%5B%5D=" + fp("x"),
		"a=1;token=x;b":                 "a=1;token=" + fp("x") + ";b",
		"token=x&token=y":               "token=" + fp("x") + "&token=" + fp("y"),
		"token=x=y":                     "token=" + fp("x=y"),
		"ticket=x":                      "ticket=" + fp("x"),
		"q=token=x":                     "q=token=x",
		"next=/y?token=x":               "next=/y?token=" + fp("x"),
		strings.Repeat("k", 300) + "=x": strings.Repeat("k", 300) + "=x",
	} {
		if got := testRedactor.Query(in); got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
}

// TestNoSecretInQuestion puts one canary in every place that holds secrets and looks for it in the whole flow (law 8).
func TestNoSecretInQuestion(t *testing.T) {
	const canary = "hunter2hunter2"
	fields := http.Header{"Authorization": {"Bearer " + canary}, "Cookie": {"a=" + canary}, "X-Api-Key": {canary}, "Proxy-Authorization": {"Basic " + canary},
		"Referer": {"https://a.example/?token=" + canary}, "X-Internal": {canary}}
	for _, target := range []string{"/?api_key=" + canary, "/../?token=" + canary, "/a?%74oken=" + canary + "&b=%"} {
		req, x := visit{target: target, fields: fields}.request(t)
		err := run(req, append(front(), back()...)...)
		q := x.Flow.Question.HTTP
		all := q.URL + q.Query + q.Path
		for k, vv := range q.Headers {
			all += k + strings.Join(vv, " ")
		}
		if err != nil {
			all += err.Error()
		}
		if strings.Contains(all, canary) {
			t.Errorf("%s: the secret is in %s", target, all)
		}
		if req.Header.Get("Authorization") != "Bearer "+canary {
			t.Errorf("%s: the request itself was changed", target)
		}
	}
}

func BenchmarkRedactQuery(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		testRedactor.Query("expand=owner&page=3&per_page=100&sort=created")
	}
}

func BenchmarkFingerprint(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		testRedactor.Fingerprint("0123456789abcdef0123456789abcdef")
	}
}
