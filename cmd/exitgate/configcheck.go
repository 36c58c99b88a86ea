package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/exitgate/exitgate"
)

// check finds what the types of the values cannot say: what contradicts, is double, or is missing. It reads the
// files that the configuration names, so that a reload finds a bad one before anything is changed.
func (f *configFile) check(c *Config) {
	f.checkTop(c)
	f.checkHosts(c)
	f.checkUpstream(c)
	for name := range c.Classes {
		if err := checkName(name); err != nil || name == "" {
			f.add("classes."+name, "classes: %.80q: a name is 1 to 64 letters, digits, dots, dashes and underscores", name)
		}
	}
	f.checkCA(c)
	f.checkIdentity(c)
}

func (f *configFile) checkIdentity(c *Config) {
	i := c.Identity
	if u, err := url.Parse(i.URL); i.URL != "" && (err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "") {
		f.add("identity.url", "identity.url: %.100q is not the URL of a listener, such as https://gate.example.com:3130", i.URL)
	}
	for n, name := range i.Names {
		if checkDomain(name) != nil && net.ParseIP(name) == nil {
			f.add(fmt.Sprintf("identity.names[%d]", n), "identity.names: %.80q is neither a name nor an address", name)
		}
	}
	for n, name := range i.ACME {
		if checkDomain(strings.TrimPrefix(name, "*.")) != nil {
			f.add(fmt.Sprintf("identity.acme[%d]", n), "identity.acme: %.80q is neither a name nor *. and a name", name)
		}
	}
	if i.TrustDomain != "" && checkDomain(i.TrustDomain) != nil {
		f.add("identity.trust_domain", "identity.trust_domain: %.80q is not a DNS name", i.TrustDomain)
	}
	if d := i.Lifetime.value(); i.Lifetime != "" && (d < 5*time.Minute || d > 7*24*time.Hour) {
		f.add("identity.lifetime", "identity.lifetime: %s is not between 5m and 7d", i.Lifetime)
	}
	if i.Required && (c.Listen.TLSProxy == "" || c.Listen.TLSProxy == "off") {
		f.add("identity.required", "identity.required: listen.tls_proxy is off, so that nobody would be asked")
	}
}

func (f *configFile) checkCA(c *Config) {
	for _, list := range []struct {
		key   string
		names []string
	}{{"ca.never_intercept", c.CA.NeverIntercept}, {"ca.only_intercept", c.CA.OnlyIntercept}} {
		for i, name := range list.names {
			if err := checkDomain(name); err != nil {
				f.add(fmt.Sprintf("%s[%d]", list.key, i), "%s: %.80q: %v", list.key, name, err)
			}
		}
	}
	if c.CA.IssuerKey == "offline" {
		f.add("ca.issuer_key", "ca.issuer_key: it cannot be offline: every leaf is signed with it")
	}
}

func (f *configFile) checkTop(c *Config) {
	if strings.Trim(c.Gateway, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") != "" || len(c.Gateway) > 64 {
		f.add("gateway", "gateway: %.80q: a gateway's name is 1 to 64 letters, digits, dots and dashes", c.Gateway)
	}
	if c.Listen.Proxy == "off" {
		f.add("listen.proxy", "listen.proxy: it cannot be off: a gateway without a way in carries nothing")
	}
	f.checkAPI(c)
	if c.PublicName != "" && checkDomain(c.PublicName) != nil && net.ParseIP(c.PublicName) == nil {
		f.add("public_name", "public_name: %.80q is neither a name nor an address", c.PublicName)
	}
	if c.Store.URL != "" && c.Store.URLFile != "" {
		f.add("store.url_file", "store.url_file: store.url is set as well; set one of them")
	}
	if c.Store.URLFile == "" {
		return
	}
	b, err := os.ReadFile(f.path(c.Store.URLFile))
	if err != nil {
		f.add("store.url_file", "store.url_file: %v", err)
		return
	}
	c.loaded.storeURL = StoreURL(bytes.TrimSpace(b))
	if err := checkStoreURL(string(c.loaded.storeURL)); err != nil {
		f.add("store.url_file", "store.url_file: what is in %s is not the URL of a store: %v", c.Store.URLFile, err)
	}
}

func (f *configFile) checkAPI(c *Config) {
	if (c.API.Certificate == "") != (c.API.Key == "") {
		f.add("api", "api: certificate and key belong together; set both or neither")
	} else if c.API.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(f.path(c.API.Certificate), f.path(c.API.Key))
		if err != nil {
			f.add("api.certificate", "api.certificate: %v", err)
		}
		c.loaded.apiCertificate = &pair
	}
}

// path returns the path that name means: relative to the configuration file.
func (f *configFile) path(name string) string { return relativeTo(filepath.Dir(f.name), name) }

func relativeTo(dir, name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}

func (f *configFile) checkHosts(c *Config) {
	names, ranges, tokens := map[Name]bool{}, map[netip.Prefix]Name{}, map[Digest]Name{}
	for i := range c.Hosts {
		h, at := &c.Hosts[i], fmt.Sprintf("hosts[%d]", i)
		switch {
		case h.Name == "":
			f.add(at, "hosts: this host has no name")
		case names[h.Name]:
			f.add(at+".name", "hosts: the name %s is taken by another host", h.Name)
		case h.Class == "":
			f.add(at, "hosts: host %s has no class", h.Name)
		case exitgate.Class(h.Class) == exitgate.ClassUnknown:
			f.add(at+".class", "hosts: host %s cannot be of class unknown: that is what hosts are that nobody lists", h.Name)
		case len(h.Addresses) == 0 && h.TokenFile == "" && h.TokenSHA256 == "":
			f.add(at, "hosts: nothing tells which connections are host %s: give it addresses, token_file or token_sha256", h.Name)
		}
		names[h.Name] = true
		for j, p := range h.Addresses {
			if other, ok := ranges[p.value()]; ok {
				f.add(fmt.Sprintf("%s.addresses[%d]", at, j), "hosts: %s belongs to host %s already", p, other)
			}
			ranges[p.value()] = h.Name
		}
		f.checkToken(h, at)
		if d := h.TokenSHA256; d != "" {
			if other, ok := tokens[d]; ok {
				f.add(at, "hosts: host %s has the token of host %s", h.Name, other)
			}
			tokens[d] = h.Name
		}
	}
}

// checkToken reads the token's file into its digest: the token itself is not kept.
func (f *configFile) checkToken(h *HostEntry, at string) {
	h.TokenSHA256 = Digest(strings.ToLower(string(h.TokenSHA256)))
	if h.TokenFile == "" {
		return
	}
	if h.TokenSHA256 != "" {
		f.add(at+".token_sha256", "hosts: host %s has token_file as well; set one of them", h.Name)
		return
	}
	b, err := os.ReadFile(f.path(h.TokenFile))
	if err != nil {
		f.add(at+".token_file", "hosts: the token of host %s: %v", h.Name, err)
		return
	}
	if b = bytes.TrimSpace(b); len(b) < 16 {
		f.add(at+".token_file", "hosts: the token of host %s in %s is shorter than 16 characters", h.Name, h.TokenFile)
		return
	}
	sum := sha256.Sum256(b)
	h.TokenSHA256 = Digest(hex.EncodeToString(sum[:]))
}

func (f *configFile) checkUpstream(c *Config) {
	for i, name := range c.Upstream.Roots {
		b, err := os.ReadFile(f.path(name))
		if err == nil && !x509.NewCertPool().AppendCertsFromPEM(b) {
			err = fmt.Errorf("there is no certificate in %s", name)
		}
		if err != nil {
			f.add(fmt.Sprintf("upstream.roots[%d]", i), "upstream.roots: %v", err)
		}
		c.loaded.roots = append(c.loaded.roots, b)
	}
	c.loaded.certificates = map[string]*tls.Certificate{}
	for i, cc := range c.Upstream.ClientCertificates {
		f.checkClientCertificate(c, fmt.Sprintf("upstream.client_certificates[%d]", i), cc)
	}
	for i, s := range c.Upstream.NoProxy {
		if _, err := parsePrefix(s); err != nil && checkDomain(strings.TrimPrefix(s, ".")) != nil {
			f.add(fmt.Sprintf("upstream.no_proxy[%d]", i), "upstream.no_proxy: %.80q is neither a name, nor .example.com for all below it, nor a range", s)
		}
	}
	for _, target := range slices.Sorted(mapKeys(c.Upstream.ConnectTo)) {
		if err := checkHostPort(target); err != nil {
			f.add("upstream.connect_to."+target, "upstream.connect_to: %.80q: %v", target, err)
		}
	}
}

func (f *configFile) checkClientCertificate(c *Config, at string, cc ClientCertificate) {
	if checkDomain(strings.TrimPrefix(cc.To, "*.")) != nil {
		f.add(at, "upstream.client_certificates: %.80q is neither a name nor *.example.com for all below it", cc.To)
		return
	}
	pair, err := tls.LoadX509KeyPair(f.path(cc.Cert), f.path(cc.Key))
	if err != nil {
		f.add(at, "upstream.client_certificates: the certificate for %s: %v", cc.To, err)
		return
	}
	c.loaded.certificates[strings.ToLower(cc.To)] = &pair
}

// checkDomain says what is wrong with a DNS name.
func checkDomain(s string) error {
	if s == "" || len(s) > 253 {
		return fmt.Errorf("a name has 1 to 253 characters")
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			return fmt.Errorf("it is not a name such as bank.example.com (all names below it are meant too)")
		}
	}
	return nil
}
