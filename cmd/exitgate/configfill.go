package main

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// loaded is what the files hold that the configuration names.
type loaded struct {
	storeURL     StoreURL // from store.url_file
	roots        [][]byte // PEM, from upstream.roots
	certificates map[string]*tls.Certificate

	apiCertificate *tls.Certificate // from api.certificate and api.key; nil: none
}

// starterConfig is the configuration without a file: the machine itself is host localhost, of class local, which has
// no grants.
func starterConfig() *Config {
	c := &Config{Hosts: []HostEntry{{Name: "localhost", Class: "local", Addresses: []Prefix{"127.0.0.0/8", "::1"}}}}
	return c.complete(".")
}

// defaultData is the data directory when neither flag, environment nor configuration name one.
func defaultData() string {
	if os.Getuid() == 0 {
		return "/var/lib/exitgate"
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "exitgate")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "exitgate-data"
	}
	return filepath.Join(home, ".local", "share", "exitgate")
}

// complete fills in what was left out and makes paths absolute; dir is the configuration file's.
func (c *Config) complete(dir string) *Config {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	if env := os.Getenv("EXITGATE_DATA"); c.DataDir == "" && env != "" {
		c.DataDir = env
	}
	c.DataDir = relativeTo(dir, cmp.Or(c.DataDir, defaultData()))
	c.Gateway = cmp.Or(c.Gateway, "exitgate")
	c.Listen.Proxy = cmp.Or(c.Listen.Proxy, "127.0.0.1:3128")
	c.Listen.Admin = cmp.Or(c.Listen.Admin, "127.0.0.1:9128")
	c.Listen.API = cmp.Or(c.Listen.API, "off")
	c.Listen.TLSProxy = cmp.Or(c.Listen.TLSProxy, "off")
	c.Listen.Enroll = cmp.Or(c.Listen.Enroll, "off")
	c.Listen.Plain = cmp.Or(c.Listen.Plain, "off")
	c.Identity.TrustDomain = cmp.Or(c.Identity.TrustDomain, "exitgate.internal")
	c.Identity.Lifetime = cmp.Or(c.Identity.Lifetime, "8h")
	c.Identity.Mode = cmp.Or(c.Identity.Mode, "proxy")
	c.Identity.Passphrase = c.Identity.Passphrase.relativeTo(dir)
	c.API.Certificate, c.API.Key = relativeTo(dir, c.API.Certificate), relativeTo(dir, c.API.Key)
	c.Policy.Dir = cmp.Or(relativeTo(dir, c.Policy.Dir), filepath.Join(c.DataDir, "policy"))
	c.Store.URLFile = relativeTo(dir, c.Store.URLFile)
	if path, ok := strings.CutPrefix(string(c.Store.URL), "sqlite:"); ok {
		c.Store.URL = StoreURL("sqlite:" + relativeTo(dir, path))
	} else if c.Store.URL == "" && c.Store.URLFile == "" {
		c.Store.URL = StoreURL("sqlite:" + filepath.Join(c.DataDir, "flows.db"))
	}
	c.Journal.Dir = cmp.Or(relativeTo(dir, c.Journal.Dir), filepath.Join(c.DataDir, "journal"))
	c.Journal.MaxBytes = cmp.Or(c.Journal.MaxBytes, "1GiB")
	c.Journal.Sync = cmp.Or(c.Journal.Sync, "os")
	c.RefuseConnect = cmp.Or(c.RefuseConnect, "auto")
	c.Log.Level = cmp.Or(c.Log.Level, "info")
	c.Log.Format = cmp.Or(c.Log.Format, "auto")
	for i := range c.Hosts {
		c.Hosts[i].TokenFile = relativeTo(dir, c.Hosts[i].TokenFile)
	}
	for i := range c.Upstream.Roots {
		c.Upstream.Roots[i] = relativeTo(dir, c.Upstream.Roots[i])
	}
	for i := range c.Upstream.ClientCertificates {
		cc := &c.Upstream.ClientCertificates[i]
		cc.Cert, cc.Key = relativeTo(dir, cc.Cert), relativeTo(dir, cc.Key)
	}
	c.CA.RootPassphrase, c.CA.IssuerPassphrase = c.CA.RootPassphrase.relativeTo(dir), c.CA.IssuerPassphrase.relativeTo(dir)
	c.Limits.fill()
	c.Timeouts.fill()
	return c
}

func (l *Limits) fill() {
	l.Connections = cmp.Or(l.Connections, "20000")
	l.ConnectionsPerHost = cmp.Or(l.ConnectionsPerHost, "2000")
	l.Streams = cmp.Or(l.Streams, "250")
	l.HeaderBytes = cmp.Or(l.HeaderBytes, "64KiB")
	l.RequestBody = cmp.Or(l.RequestBody, "0")
	l.ResponseBody = cmp.Or(l.ResponseBody, "0")
	l.SpliceBytes = cmp.Or(l.SpliceBytes, "0")
}

func (t *Timeouts) fill() {
	t.FirstBytes = cmp.Or(t.FirstBytes, "10s")
	t.Handshake = cmp.Or(t.Handshake, "10s")
	t.RequestHeader = cmp.Or(t.RequestHeader, "20s")
	t.Idle = cmp.Or(t.Idle, "2m")
	t.Resolve = cmp.Or(t.Resolve, "5s")
	t.Connect = cmp.Or(t.Connect, "10s")
	t.UpstreamTLS = cmp.Or(t.UpstreamTLS, "10s")
	t.ResponseHeader = cmp.Or(t.ResponseHeader, "5m")
	t.BodyIdle = cmp.Or(t.BodyIdle, "10m")
	t.StreamIdle = cmp.Or(t.StreamIdle, "1h")
	t.SpliceIdle = cmp.Or(t.SpliceIdle, "1h")
	t.Drain = cmp.Or(t.Drain, "30s")
}

func mapKeys[K comparable, V any](m map[K]V) iter.Seq[K] { return maps.Keys(m) }

// storeURL returns where the store is, from whichever key names it.
func (c *Config) storeURL() string { return string(cmp.Or(c.Store.URL, c.loaded.storeURL)) }

// print writes the configuration with its comments, as a file that means the same. Passwords are left out.
func (c *Config) print(w io.Writer) error {
	shown := *c
	shown.Upstream.Proxy = ProxyURL(withoutPassword(string(c.Upstream.Proxy)))
	shown.Store.URL = StoreURL(withoutPassword(string(c.Store.URL)))
	shown.Hosts = append([]HostEntry(nil), c.Hosts...)
	for i := range shown.Hosts {
		if h := &shown.Hosts[i]; h.TokenFile != "" {
			h.TokenSHA256 = ""
		}
	}
	var n yaml.Node
	if err := n.Encode(&shown); err != nil {
		return fmt.Errorf("print the configuration: %w", err)
	}
	annotate(configSchema(), &n, "Config")
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&n); err != nil {
		return fmt.Errorf("print the configuration: %w", err)
	}
	_, err := w.Write(b.Bytes())
	return err
}

// annotate sets each key's comment from the manual: in a list on its first element only.
func annotate(s schema, n *yaml.Node, typ string) {
	if elem, ok := element(typ, "[]"); ok {
		if len(n.Content) > 0 {
			annotate(s, n.Content[0], elem)
		}
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if k, ok := s.key(typ, n.Content[i].Value); ok {
			n.Content[i].HeadComment = k.doc
			annotate(s, n.Content[i+1], k.typ)
		}
	}
}

func withoutPassword(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.User == nil {
		return s
	}
	return u.Redacted()
}
