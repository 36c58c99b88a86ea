package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Bounds of a request.
const (
	tries     = 5                // of one request
	firstWait = time.Second      // before the second try; twice as long before each one after it
	maxWait   = 30 * time.Second // whatever the gateway asks for
	maxAnswer = 8 << 20          // bytes
	patience  = time.Minute      // for one try
)

// Config says where a gateway is and who asks.
type Config struct {
	Endpoint  string // https URL
	Token     string // of a role that may do what is asked
	CA        []byte // PEM that the endpoint's certificate chains to; nil: the system's
	UserAgent string

	// Sleep waits between tries; nil: on the clock.
	Sleep func(context.Context, time.Duration) error
}

// A Client talks to one gateway.
type Client struct {
	base, token, agent string
	http               *http.Client
	sleep              func(context.Context, time.Duration) error
}

// A Problem is an answer that is an error.
type Problem struct {
	Status int
	Detail string // in the gateway's words
}

func (p *Problem) Error() string { return p.Detail }

// Is reports whether err is a Problem of that status.
func Is(err error, status int) bool {
	p := new(Problem)
	return errors.As(err, &p) && p.Status == status
}

// New returns a client. It connects when it is used.
func New(c Config) (*Client, error) {
	if err := CheckEndpoint(c.Endpoint); err != nil {
		return nil, err
	}
	if err := CheckToken(c.Token); err != nil {
		return nil, err
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil // the API is not reached through what it is the API of
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != nil {
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(c.CA) {
			return nil, errors.New("there is no certificate in it (PEM, -----BEGIN CERTIFICATE-----)")
		}
	}
	never := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client := &Client{
		base: strings.TrimRight(c.Endpoint, "/") + "/v1/", token: c.Token, agent: c.UserAgent, sleep: c.Sleep,
		http: &http.Client{Transport: t, CheckRedirect: never, Timeout: patience},
	}
	if client.sleep == nil {
		client.sleep = sleep
	}
	return client, nil
}

// CheckEndpoint says what is wrong with the URL of a gateway.
func CheckEndpoint(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("it is a URL such as https://gate.example.com:3131, without a token in it")
	}
	return nil
}

// CheckToken says what is wrong with a token, and never shows it.
func CheckToken(s string) error {
	switch {
	case s == "":
		return errors.New("it is empty")
	case strings.HasPrefix(s, "xgh_"):
		return errors.New("it is a token that hosts enrol with (xgh_...); the API takes an API token (xga_..., from exitgate token add)")
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f {
			return errors.New("it holds spaces, line ends or other bytes that no token has")
		}
	}
	return nil
}

// NewID returns an id for an entry that is about to be made: 40 random bits after the prefix.
func NewID(prefix string) string { return prefix + "-" + strings.ToLower(rand.Text()[:8]) }

// Get reads what is at a path below /v1/.
func (c *Client) Get(ctx context.Context, path string, out any) error {
	return c.call(ctx, http.MethodGet, path, nil, out)
}

// Add makes an entry of a collection.
func (c *Client) Add(ctx context.Context, collection string, in, out any) error {
	return c.call(ctx, http.MethodPost, collection, in, out)
}

// Put replaces the entry at a path.
func (c *Client) Put(ctx context.Context, path string, in, out any) error {
	return c.call(ctx, http.MethodPut, path, in, out, "If-Match", "*")
}

// Delete removes the entry at a path.
func (c *Client) Delete(ctx context.Context, path, reason string) error {
	return c.call(ctx, http.MethodDelete, path+"?"+url.Values{"reason": {reason}}.Encode(), nil, nil)
}

// call sends a request, again where that may help, and reads the answer.
func (c *Client) call(ctx context.Context, method, path string, in, out any, header ...string) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("write the request: %w", err)
		}
	}
	wait := firstWait
	for n := 1; ; n++ {
		after, err := c.once(ctx, method, path, body, out, header)
		if err == nil || after < 0 || n == tries {
			return tried(err, n)
		}
		if after == 0 {
			after = wait
		}
		if serr := c.sleep(ctx, min(after, maxWait)); serr != nil {
			return tried(errors.Join(err, serr), n)
		}
		wait *= 2
	}
}

func tried(err error, n int) error {
	if err == nil || n == 1 {
		return err
	}
	return fmt.Errorf("%w (tried %d times)", err, n)
}

// never is what once returns when another try would not help.
const never = time.Duration(-1)

// once returns how long to wait for another try: never, 0 where the gateway does not say.
func (c *Client) once(ctx context.Context, method, path string, body []byte, out any, header []string) (time.Duration, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return never, fmt.Errorf("write the request: %w", err)
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", c.agent)
	r.Header.Set("Authorization", "Bearer "+c.token)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := c.http.Do(r)
	if err != nil {
		return c.unreachable(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return never, fmt.Errorf("read the gateway's answer: %w", err)
	case len(b) > maxAnswer:
		return never, fmt.Errorf("read the gateway's answer: it is larger than %d bytes", maxAnswer)
	case res.StatusCode >= 300:
		return retryAfter(res), problemOf(res, b)
	case out == nil:
		return never, nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return never, fmt.Errorf("read the gateway's answer: %w; is %s the API of a gateway?", err, c.base)
	}
	return never, nil
}

// unreachable says what went wrong on the way. Only what never left is worth another try.
func (c *Client) unreachable(err error) (time.Duration, error) {
	var failed *url.Error
	if errors.As(err, &failed) {
		err = failed.Err // without the URL, which the message has in short
	}
	after := never
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		after = 0
	}
	return after, fmt.Errorf("ask the gateway at %s: %w", strings.TrimSuffix(c.base, "/v1/"), err)
}

// retryAfter reads how long the gateway wants to be left alone.
func retryAfter(res *http.Response) time.Duration {
	if res.StatusCode != http.StatusTooManyRequests && res.StatusCode != http.StatusServiceUnavailable {
		return never
	}
	n, err := strconv.ParseUint(res.Header.Get("Retry-After"), 10, 32)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}

// problemOf reads a problem document (RFC 9457), or makes do without one.
func problemOf(res *http.Response, body []byte) *Problem {
	p := &Problem{}
	if err := json.Unmarshal(body, p); err != nil || p.Detail == "" {
		p.Detail = fmt.Sprintf("the gateway answered %s", res.Status)
		if to := res.Header.Get("Location"); to != "" {
			p.Detail += fmt.Sprintf(" to %.200q, where the token is not sent", to)
		}
	}
	p.Status = res.StatusCode
	return p
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
