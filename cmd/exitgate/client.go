package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate/web"
)

// A client talks to the gateway that runs on a data directory.
type client struct {
	dir  string
	http *http.Client
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

func dial(c *cobra.Command) *client {
	dir := dataDir(c)
	return &client{dir, &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", adminSocket(dir))
		},
	}}}
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
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("write the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://gateway/v1/"+path, body)
	if err != nil {
		return nil, fmt.Errorf("write the request: %w", err)
	}
	r.Header.Set("Accept", accept)
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(r)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if res.StatusCode < 300 {
		return res.Body, nil
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
