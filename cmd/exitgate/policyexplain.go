package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/web"
)

// explainUnder explains under another policy than the one that is loaded. It asks the gateway only for the flow.
func explainUnder(c *cobra.Command, name string, h web.Hypothesis, output string) error {
	if output != "text" && output != "json" {
		return usage(c, fmt.Errorf("-o %q: it is text or json", output))
	}
	q, recorded, err := questionOf(c, h)
	if err != nil {
		return err
	}
	if name == "recorded" {
		if recorded == "" {
			return usage(c, errors.New("--revision recorded is for a flow: its own revision"))
		}
		name = recorded
	}
	e, err := openPolicy(c, name, nil)
	if err != nil {
		return err
	}
	x, err := e.Explain(c.Context(), q)
	if err != nil {
		return fmt.Errorf("explain: %w", err)
	}
	if output == "json" {
		return json.NewEncoder(c.OutOrStdout()).Encode(x)
	}
	var b bytes.Buffer
	if err := x.WriteText(&b); err != nil {
		return err
	}
	for line := range strings.Lines(b.String()) {
		fmt.Fprintln(c.OutOrStdout(), plain(strings.TrimSuffix(line, "\n")))
	}
	return nil
}

// questionOf returns the question of a flow, with the revision that it was judged under, or an imagined one.
func questionOf(c *cobra.Command, h web.Hypothesis) (*exitgate.Question, string, error) {
	if h.Flow != "" {
		f := new(exitgate.Flow)
		if err := dial(c).call(c.Context(), http.MethodGet, "flows/"+url.PathEscape(h.Flow), nil, f); err != nil {
			return nil, "", err
		}
		return &f.Question, f.Verdict.Revision, nil
	}
	q, err := imagined(h)
	return q, "", err
}

// imagined is the question of a request that has not happened, of a host of which nothing but its name or class is known.
func imagined(h web.Hypothesis) (*exitgate.Question, error) {
	u, err := url.Parse(h.URL)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("explain: %.100q is not an absolute http or https URL", h.URL)
	}
	if h.Host != "" {
		return nil, errors.New("explain: under another revision, name the class instead of the host: --class NAME")
	}
	port := uint64(map[string]int{"http": 80, "https": 443}[u.Scheme])
	if p := u.Port(); p != "" {
		if port, err = strconv.ParseUint(p, 10, 16); err != nil || port == 0 {
			return nil, fmt.Errorf("explain: the port of %.100q is not a number from 1 to 65535", h.URL)
		}
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	return &exitgate.Question{
		Stage: exitgate.StageRequest, At: time.Now().UTC(), Way: exitgate.WayProxy,
		Host: exitgate.Host{Class: h.Class, Addr: netip.IPv4Unspecified(), By: exitgate.ByAddress},
		Dest: exitgate.Destination{Host: strings.ToLower(u.Hostname()), Port: uint16(port)},
		HTTP: &exitgate.Request{
			Method: h.Method, Scheme: u.Scheme, URL: h.URL, Path: path, Query: u.RawQuery, Headers: map[string][]string{}, Length: -1, Proto: "HTTP/1.1",
			EncodedSlash: strings.Contains(strings.ToLower(path), "%2f"),
		},
	}, nil
}
