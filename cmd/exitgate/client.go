package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate/web"
)

// A client talks to a gateway: through the admin socket in its data directory, or through its API over TLS.
type client struct {
	dir   string // of the socket
	base  string // URL of the API, without a slash at its end
	token string
	http  *http.Client
	err   error // why there is none
}

// dataDir returns the data directory that a verb means: flag, environment, default.
func dataDir(c *cobra.Command) string {
	dir, _ := c.Flags().GetString("data")
	dir = cmp.Or(dir, os.Getenv("EXITGATE_DATA"), defaultData())
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}

func adminSocket(dir string) string { return filepath.Join(dir, "admin.sock") }

// dial returns the client for what the command line and the environment name; it connects when it is used.
func dial(c *cobra.Command) *client {
	if api := flagOr(c, "api", "EXITGATE_API"); api != "" {
		return dialAPI(c, api)
	}
	return dialData(dataDir(c))
}

// dialData talks to the gateway that runs on a data directory.
func dialData(dir string) *client {
	return &client{dir: dir, base: "http://gateway", http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", adminSocket(dir))
		},
	}}}
}

// flagOr returns a flag of the root, or else an environment variable.
func flagOr(c *cobra.Command, flag, env string) string {
	s, _ := c.Flags().GetString(flag)
	return cmp.Or(s, os.Getenv(env))
}

// dialAPI talks to a gateway over TLS. The token is sent to nobody who does not show a certificate for the URL's name.
func dialAPI(c *cobra.Command, api string) *client {
	u, err := url.Parse(api)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return &client{err: fmt.Errorf("--api %q: it is a URL such as https://gate.example.com:3131, without a token in it", plain(api))}
	}
	file := flagOr(c, "api-token-file", "EXITGATE_TOKEN_FILE")
	if file == "" {
		return &client{err: errors.New("the API needs a token: name the file that holds it with --api-token-file or EXITGATE_TOKEN_FILE (exitgate token add makes one)")}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return &client{err: fmt.Errorf("read the API token: %w", err)}
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil // the API is not reached through what it is the API of
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if ca := flagOr(c, "api-ca", "EXITGATE_API_CA"); ca != "" {
		pem, err := os.ReadFile(ca)
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if err == nil && !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			err = fmt.Errorf("there is no certificate in %s", ca)
		}
		if err != nil {
			return &client{err: fmt.Errorf("read the API's CA certificate: %w", err)}
		}
	}
	never := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client{base: strings.TrimSuffix(api, "/"), token: strings.TrimSpace(string(b)), http: &http.Client{Transport: t, CheckRedirect: never}}
}

// listAll reads a list, all pages of it.
func listAll[T any](c *cobra.Command, path string) ([]T, error) {
	gateway, all := dial(c), []T{}
	for path != "" {
		res, err := gateway.send(c.Context(), http.MethodGet, path, nil, "application/json")
		if err != nil {
			return nil, err
		}
		var page []T
		err = json.NewDecoder(res.Body).Decode(&page)
		res.Body.Close()
		if err != nil {
			return nil, fmt.Errorf("read the gateway's answer: %w", err)
		}
		all = append(all, page...)
		_, path, _ = strings.Cut(res.Header.Get("Link"), "</v1/")
		path, _, _ = strings.Cut(path, ">")
	}
	return all, nil
}

// call sends in as JSON, when it is not nil, and reads the answer into out, when that is not nil.
func (c *client) call(ctx context.Context, method, path string, in, out any) error {
	body, err := c.open(ctx, method, path, in, "application/json")
	if err != nil {
		return err
	}
	defer body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(body).Decode(out); err != nil {
		return fmt.Errorf("read the gateway's answer: %w", err)
	}
	return nil
}

// open sends in and returns the body of the answer, of the type accepted, which the caller closes.
func (c *client) open(ctx context.Context, method, path string, in any, accept string) (io.ReadCloser, error) {
	res, err := c.send(ctx, method, path, in, accept)
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

// send sends in, with headers given as name and value, and returns an answer that is no error, whose body the caller
// closes.
func (c *client) send(ctx context.Context, method, path string, in any, accept string, header ...string) (*http.Response, error) {
	if c.err != nil {
		return nil, c.err
	}
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("write the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base+"/v1/"+path, body)
	if err != nil {
		return nil, fmt.Errorf("write the request: %w", err)
	}
	r.Header.Set("Accept", accept)
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := c.http.Do(r)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if res.StatusCode < 300 {
		return res, nil
	}
	defer res.Body.Close()
	var p web.Problem
	if err := json.NewDecoder(io.LimitReader(res.Body, web.MaxBody)).Decode(&p); err != nil || p.Detail == "" {
		return nil, fmt.Errorf("the gateway answered %s", res.Status)
	}
	return nil, errors.New(plain(p.Detail))
}

// unreachable says what to do when the gateway does not answer.
func (c *client) unreachable(err error) error {
	socket := adminSocket(c.dir)
	switch {
	case c.dir == "":
		return fmt.Errorf("ask the gateway at %s: %w", c.base, errors.Unwrap(err))
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no gateway is running on %s\nstart one with: exitgate run%s\nor name the data directory of the one that is running with --data or EXITGATE_DATA", c.dir, dataFlag(c.dir))
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the admin socket %s belongs to another user\nrun this as the user that the gateway runs as, or with sudo", socket)
	}
	return fmt.Errorf("ask the gateway on %s: %w", socket, err)
}

// dataFlag returns " --data DIR" unless dir is what is meant without it.
func dataFlag(dir string) string {
	if dir == cmp.Or(os.Getenv("EXITGATE_DATA"), defaultData()) {
		return ""
	}
	return " --data " + shellQuote(dir)
}
