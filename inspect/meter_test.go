package inspect

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/exitgate/exitgate"
)

func upload(t testing.TB, body string, length int64, limit int64) (*http.Request, *exitgate.Exchange, error) {
	req, x := visit{method: "POST", body: "0\r\n\r\n", length: length}.request(t)
	req.Body = io.NopCloser(strings.NewReader(body))
	x.Flow.Verdict.Limits.RequestBody = limit
	return req, x, run(req, &RequestMeter{Default: 50})
}

func hexSum(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func TestRequestMeter(t *testing.T) {
	ten := "0123456789"
	for name, c := range map[string]struct {
		length, limit int64
		body          string
		passed        string
		state         exitgate.BodyState
		refused       bool
	}{
		"declared, below":          {10, 11, ten, ten, exitgate.BodyComplete, false},
		"declared, exactly":        {10, 10, ten, ten, exitgate.BodyComplete, false},
		"chunked, below":           {-1, 11, ten, ten, exitgate.BodyComplete, false},
		"chunked, exactly":         {-1, 10, ten, ten, exitgate.BodyComplete, false},
		"chunked, one over":        {-1, 9, ten, ten[:9], exitgate.BodyOverLimit, true},
		"chunked, over default":    {-1, 0, strings.Repeat("x", 51), strings.Repeat("x", 50), exitgate.BodyOverLimit, true},
		"chunked, exactly default": {-1, 0, strings.Repeat("x", 50), strings.Repeat("x", 50), exitgate.BodyComplete, false},
		"chunked, empty":           {-1, 10, "", "", exitgate.BodyComplete, false},
	} {
		for kind, wrap := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "bytewise": iotest.OneByteReader, "data with EOF": iotest.DataErrReader} {
			req, x, err := upload(t, "", c.length, c.limit)
			if err != nil {
				t.Fatal(name, err)
			}
			req.Body.(*meter).body = io.NopCloser(wrap(strings.NewReader(c.body)))
			got, err := io.ReadAll(req.Body)
			if c.refused {
				wantRefusal(t, name, err, 413, exitgate.RuleLimit, "request")
				if _, again := req.Body.Read(make([]byte, 9)); again != err {
					t.Errorf("%s, %s: after the refusal: %v", name, kind, again)
				}
			} else if err != nil {
				t.Errorf("%s, %s: %v", name, kind, err)
			}
			x.Settle()
			f := x.Flow
			if string(got) != c.passed || f.Sent.Body != int64(len(c.passed)) || f.RequestBody != c.state || f.RequestSHA256 != hexSum(c.passed) {
				t.Errorf("%s, %s: passed %q, counted %d, %s", name, kind, got, f.Sent.Body, f.RequestBody)
			}
		}
	}
}

func TestRequestMeterDeclaredOver(t *testing.T) {
	for _, c := range [][2]int64{{11, 10}, {51, 0}, {1 << 60, 10}} {
		req, x, err := upload(t, "x", c[0], c[1])
		wantRefusal(t, "declared", err, 413, exitgate.RuleLimit, "declares")
		x.Settle()
		if _, metered := req.Body.(*meter); metered || x.Flow.Sent.Body != 0 || x.Flow.RequestBody != exitgate.BodyOverLimit {
			t.Errorf("%+v", x.Flow)
		}
	}
}

// TestRequestMeterNoBody shows that a request without a body keeps none: net/http's HTTP/2 server gives an empty
// body that is not NoBody, which a transport would send in chunks.
func TestRequestMeterNoBody(t *testing.T) {
	for _, body := range []io.ReadCloser{nil, http.NoBody, io.NopCloser(strings.NewReader(""))} {
		req, x := visit{}.request(t)
		req.Body = body
		if err := run(req, &RequestMeter{}); err != nil || req.Body != http.NoBody {
			t.Errorf("%T became %T: %v", body, req.Body, err)
		}
		x.Settle()
		if f := x.Flow; f.RequestBody != exitgate.BodyNone || f.RequestSHA256 != "" || f.Sent.Body != 0 {
			t.Errorf("%+v", f)
		}
	}
}

func TestRequestMeterCut(t *testing.T) {
	req, x, err := upload(t, "", 10, 100)
	if err != nil {
		t.Fatal(err)
	}
	gone := errors.New("the host is gone")
	req.Body.(*meter).body = io.NopCloser(io.MultiReader(strings.NewReader("0123"), iotest.ErrReader(gone)))
	if _, err := io.ReadAll(req.Body); err != gone {
		t.Error(err)
	}
	x.Settle()
	if f := x.Flow; f.RequestBody != exitgate.BodyCut || f.Sent.Body != 4 || f.RequestSHA256 != hexSum("0123") {
		t.Errorf("%+v", f)
	}

	req, x, _ = upload(t, "0123456789", 10, 100) // the transport reads as much as was declared, and not the end
	if _, err := io.ReadFull(req.Body, make([]byte, 10)); err != nil {
		t.Error(err)
	}
	x.Settle()
	if f := x.Flow; f.RequestBody != exitgate.BodyComplete {
		t.Errorf("%+v", f)
	}
}

// gate gives its one piece when it is told to.
type gate struct {
	reading, give chan struct{}
}

func (g gate) Read(p []byte) (int, error) {
	g.reading <- struct{}{}
	<-g.give
	return copy(p, "late"), nil
}

// TestMeterAfterSettle shows that a transport which still reads when the flow has ended gets no byte that nobody
// counts, and does not hold up the end.
func TestMeterAfterSettle(t *testing.T) {
	req, x, _ := upload(t, "", -1, 100)
	g := gate{make(chan struct{}), make(chan struct{})}
	req.Body.(*meter).body = io.NopCloser(io.MultiReader(strings.NewReader("abc"), g))
	done := make(chan struct{})
	var got []byte
	var err error
	go func() {
		got, err = io.ReadAll(req.Body)
		close(done)
	}()
	<-g.reading
	x.Settle() // returns while the read is blocked
	g.give <- struct{}{}
	<-done
	if f := x.Flow; string(got) != "abc" || !errors.Is(err, errSettled) || f.Sent.Body != 3 || f.RequestBody != exitgate.BodyCut || f.RequestSHA256 != hexSum("abc") {
		t.Errorf("passed %q, %v; %+v %s", got, err, f.Sent, f.RequestBody)
	}
}

// TestRequestMeterTransport shows that an upstream never gets a complete request that is over its limit, and that the
// transport's error is the refusal.
func TestRequestMeterTransport(t *testing.T) {
	complete := make(chan bool, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		complete <- err == nil
	}))
	defer srv.Close()
	for limit, whole := range map[int64]bool{1 << 20: true, 1<<20 - 1: false} {
		req, x, err := upload(t, strings.Repeat("x", 1<<20), -1, limit)
		if err != nil {
			t.Fatal(err)
		}
		req.RequestURI = ""
		req.URL, _ = url.Parse(srv.URL)
		res, err := srv.Client().Transport.RoundTrip(req)
		var r *exitgate.Refusal
		if whole != (err == nil) || !whole && !errors.As(err, &r) {
			t.Errorf("limit %d: %v", limit, err)
		}
		if got := <-complete; got != whole {
			t.Errorf("limit %d: the upstream got a complete request: %v", limit, got)
		}
		if res != nil {
			res.Body.Close()
		}
		x.Settle()
		if x.Flow.Sent.Body != limit {
			t.Errorf("limit %d: %d bytes left", limit, x.Flow.Sent.Body)
		}
	}
}

func TestHeaderSizes(t *testing.T) {
	req, x := visit{method: "POST", target: "/a?b", length: 5, fields: http.Header{"User-Agent": {"x"}, "Content-Length": {"5"}}}.request(t)
	req.Body = io.NopCloser(strings.NewReader("hello"))
	if err := run(req, append(front(), &RequestMeter{})...); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	req.Write(&b)
	want := int64(b.Len() - len("hello"))
	x.Settle()
	if x.Flow.Sent.Header != want || x.Flow.Sent.Body != 5 {
		t.Errorf("counted %+v, net/http writes %d: %q", x.Flow.Sent, want, b.String())
	}
}

func respond(t testing.TB, res *http.Response) (*http.Response, *exitgate.Exchange) {
	req, x := visit{}.request(t)
	if err := run(req, front()...); err != nil {
		t.Fatal(err)
	}
	res.Request = req
	if res.Header == nil {
		res.Header = http.Header{}
	}
	return res, x
}

func TestResponseMeter(t *testing.T) {
	body := func(s string) io.ReadCloser { return io.NopCloser(strings.NewReader(s)) }
	for name, c := range map[string]struct {
		res     *http.Response
		method  string
		limit   int64
		passed  int64
		state   exitgate.BodyState
		refused string // "head" or "body"
	}{
		"complete":       {&http.Response{StatusCode: 200, Body: body("hello"), ContentLength: 5}, "GET", 5, 5, exitgate.BodyComplete, ""},
		"unknown length": {&http.Response{StatusCode: 200, Body: body("hello"), ContentLength: -1}, "GET", 5, 5, exitgate.BodyComplete, ""},
		"over":           {&http.Response{StatusCode: 200, Body: body("hello!"), ContentLength: -1}, "GET", 5, 5, exitgate.BodyOverLimit, "body"},
		"declared over":  {&http.Response{StatusCode: 200, Body: body("hello!"), ContentLength: 6}, "GET", 5, 0, exitgate.BodyOverLimit, "head"},
		"HEAD":           {&http.Response{StatusCode: 200, Body: http.NoBody, ContentLength: 1 << 40}, "HEAD", 5, 0, exitgate.BodyNone, ""},
		"304":            {&http.Response{StatusCode: 304, Body: http.NoBody, ContentLength: 1 << 40}, "GET", 5, 0, exitgate.BodyNone, ""},
		"cut":            {&http.Response{StatusCode: 200, Body: io.NopCloser(io.MultiReader(strings.NewReader("he"), iotest.ErrReader(io.ErrUnexpectedEOF))), ContentLength: 5}, "GET", 5, 2, exitgate.BodyCut, ""},
	} {
		res, x := respond(t, c.res)
		res.Request.Method = c.method
		x.Flow.Verdict.Limits.ResponseBody = c.limit
		err := (&ResponseMeter{}).ModifyResponse(res)
		if c.refused == "head" {
			wantRefusal(t, name, err, 413, exitgate.RuleLimit, "declares")
		} else {
			_, err := io.Copy(io.Discard, res.Body)
			if c.refused == "body" {
				wantRefusal(t, name, err, 413, exitgate.RuleLimit, "response")
			}
		}
		x.Settle()
		if f := x.Flow; f.Received.Body != c.passed || f.ResponseBody != c.state || f.Received.Header == 0 {
			t.Errorf("%s: %v %+v %s", name, err, f.Received, f.ResponseBody)
		}
	}
}

func TestResponseSteps(t *testing.T) {
	res, x := respond(t, &http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, ContentLength: 2, Body: io.NopCloser(strings.NewReader("ok")), Header: http.Header{
		"Set-Cookie": {"a=secret; Path=/", "b=secret"}, "Alt-Svc": {`h3=":443"`}, "Connection": {"X-Hop"}, "X-Hop": {"1"},
		"Proxy-Status": {"exitgate; error=http_request_denied"}, "Proxy-Authenticate": {"Basic"}, "Keep-Alive": {"x"},
		"Content-Disposition": {"attachment; filename=caf\xe9"}, "Location": {"/x?token=secret"}, "Content-Type": {"text/plain"},
	}})
	if err := (&ResponseFacts{testRedactor}).ModifyResponse(res); err != nil {
		t.Fatal(err)
	}
	if err := NewResponseHopByHop().ModifyResponse(res); err != nil {
		t.Fatal(err)
	}
	r := x.Flow.Question.Response
	fp := testRedactor.Fingerprint("secret")
	if r.Status != 200 || r.Length != 2 || x.Flow.Status != 200 || r.Headers["set-cookie"][0] != "a="+fp+"; Path=/" || r.Headers["set-cookie"][1] != "b="+fp ||
		r.Headers["location"][0] != "/x?token="+fp || r.Headers["content-disposition"][0] != "attachment; filename=caf\uFFFD" {
		t.Errorf("%+v", r)
	}
	for _, gone := range []string{"Alt-Svc", "Connection", "X-Hop", "Proxy-Status", "Proxy-Authenticate", "Keep-Alive"} {
		if _, ok := res.Header[gone]; ok {
			t.Errorf("%s reaches the host", gone)
		}
	}
	if res.Header["Set-Cookie"][1] != "b=secret" || res.Header.Get("Content-Disposition") != "attachment; filename=caf\xe9" {
		t.Errorf("the response itself was changed: %v", res.Header)
	}
}

func TestResponseUpgrade(t *testing.T) {
	for upgrade, ok := range map[string]bool{"websocket": true, "": false, "foo": false} {
		res, x := respond(t, &http.Response{StatusCode: 101, Header: http.Header{"Connection": {"upgrade"}, "Upgrade": {"WebSocket"}}})
		x.Flow.Question.HTTP.Upgrade = upgrade
		err := NewResponseHopByHop().ModifyResponse(res)
		var f *exitgate.Fault
		if ok && (err != nil || res.Header.Get("Upgrade") != "websocket" || res.Header.Get("Connection") != "Upgrade") || !ok && !errors.As(err, &f) {
			t.Errorf("%q: %v %v", upgrade, err, res.Header)
		}
	}
	res, x := respond(t, &http.Response{StatusCode: 101})
	x.Flow.Verdict.Limits.ResponseBody = 7
	if err := (&ResponseMeter{Default: 1, DefaultRequest: 2}).ModifyResponse(res); err != nil || x.Flow.Verdict.Limits.RequestBody != 2 || x.Flow.Verdict.Limits.ResponseBody != 7 {
		t.Errorf("%v %+v", err, x.Flow.Verdict.Limits)
	}
}
