package api

import (
	"context"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"
)

// server answers with each handler in turn, and with the last one from then on.
func server(t *testing.T, handlers ...http.HandlerFunc) (c *Client, asked *int, waits *[]time.Duration) {
	t.Helper()
	asked, waits = new(int), new([]time.Duration)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "Bearer xga_quite" {
			t.Errorf("Authorization is %q", got)
		}
		*asked++
		handlers[min(*asked, len(handlers))-1](w, r)
	}))
	t.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	c, err := New(Config{Endpoint: s.URL, Token: "xga_quite", CA: ca, Sleep: func(_ context.Context, d time.Duration) error {
		*waits = append(*waits, d)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return c, asked, waits
}

func problem(status int, detail string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		w.Write([]byte(`{"status":1,"title":"t","detail":"` + detail + `"}`))
	}
}

func ok(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"name":"build"}`)) }

func TestRetries(t *testing.T) {
	busy, full := problem(503, "the store does not answer"), problem(429, "too many", "Retry-After", "7")
	for _, c := range []struct {
		name     string
		handlers []http.HandlerFunc
		asked    int
		waits    []time.Duration
		want     string // of the error; "" none
	}{
		{"at once", []http.HandlerFunc{ok}, 1, nil, ""},
		{"twice as long each time", []http.HandlerFunc{busy, busy, busy, ok}, 4, []time.Duration{time.Second, 2 * time.Second, 4 * time.Second}, ""},
		{"as long as the gateway says", []http.HandlerFunc{full, ok}, 2, []time.Duration{7 * time.Second}, ""},
		{"not longer than it likes", []http.HandlerFunc{problem(429, "", "Retry-After", "86400"), ok}, 2, []time.Duration{maxWait}, ""},
		{"a date is not read", []http.HandlerFunc{problem(503, "", "Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT"), ok}, 2, []time.Duration{time.Second}, ""},
		{"not for ever", []http.HandlerFunc{busy}, tries, []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second}, "the store does not answer (tried 5 times)"},
		{"not what is refused", []http.HandlerFunc{problem(409, "there is one")}, 1, nil, "there is one"},
		{"not what is broken", []http.HandlerFunc{problem(500, "broken")}, 1, nil, "broken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, asked, waits := server(t, c.handlers...)
			var got Class
			err := client.Add(t.Context(), "classes", Class{Name: "build"}, &got)
			if c.want == "" && (err != nil || got.Name != "build") || c.want != "" && (err == nil || err.Error() != c.want) {
				t.Errorf("%v, %v; want %q", got, err, c.want)
			}
			if *asked != c.asked || !reflect.DeepEqual(*waits, append([]time.Duration(nil), c.waits...)) {
				t.Errorf("asked %d times, waited %v; want %d, %v", *asked, *waits, c.asked, c.waits)
			}
		})
	}
}

// TestHostileAnswers holds that what is not a gateway's answer is an error that says so.
func TestHostileAnswers(t *testing.T) {
	for _, c := range []struct {
		name   string
		handle http.HandlerFunc
		want   string
	}{
		{"a page", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) }, "is https://"},
		{"no body", func(http.ResponseWriter, *http.Request) {}, "read the gateway's answer"},
		{"an error without words", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) }, "the gateway answered 502 Bad Gateway"},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://example.org/", http.StatusTemporaryRedirect)
		}, "where the token is not sent"},
		{"too much", func(w http.ResponseWriter, _ *http.Request) {
			b := []byte(strings.Repeat(" ", 1<<20))
			for range maxAnswer>>20 + 1 {
				w.Write(b)
			}
		}, "larger than"},
		{"cut off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("{"))
		}, "read the gateway's answer"},
		{"closed", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "ask the gateway at https://"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, asked, _ := server(t, c.handle)
			err := client.Get(t.Context(), "trust", new(Trust))
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "xga_") {
				t.Errorf("%v, want one with %q", err, c.want)
			}
			if *asked != 1 {
				t.Errorf("asked %d times", *asked)
			}
		})
	}
}

// TestUnreachable holds that a gateway that is not there is tried again, and one with another certificate is not.
func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	n := 0
	c, err := New(Config{Endpoint: "https://" + l.Addr().String(), Token: "xga_quite", Sleep: func(context.Context, time.Duration) error { n++; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), "trust", new(Trust)); err == nil || n != tries-1 || !strings.Contains(err.Error(), "refused (tried 5 times)") {
		t.Errorf("%v after %d waits", err, n)
	}

	client, asked, waits := server(t, ok)
	client.http.Transport.(*http.Transport).TLSClientConfig.RootCAs = nil
	if err := client.Get(t.Context(), "trust", new(Trust)); err == nil || !strings.Contains(err.Error(), "certificate") || *asked != 0 || *waits != nil {
		t.Errorf("%v, asked %d times, waited %v", err, *asked, *waits)
	}
}

// TestInterrupted holds that waiting ends when Terraform is interrupted.
func TestInterrupted(t *testing.T) {
	client, asked, _ := server(t, problem(503, "busy"))
	client.sleep = sleep
	ctx, cancel := context.WithCancel(t.Context())
	client.http.Transport = interrupting{client.http.Transport, cancel}
	if err := client.Get(ctx, "trust", new(Trust)); !errors.Is(err, context.Canceled) || *asked != 1 {
		t.Errorf("%v, asked %d times", err, *asked)
	}
}

// interrupting cancels once an answer has come.
type interrupting struct {
	next   http.RoundTripper
	cancel func()
}

func (i interrupting) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := i.next.RoundTrip(r.WithContext(context.WithoutCancel(r.Context())))
	i.cancel()
	return res, err
}
