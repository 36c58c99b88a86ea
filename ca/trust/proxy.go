package trust

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// A Proxy is what programs of the host are told about the gateway. The zero Proxy is none: transparent mode.
type Proxy struct {
	HTTP    string   `json:"http,omitempty"`  // URL of the proxy for http, such as http://gate.example.com:3128
	HTTPS   string   `json:"https,omitempty"` // for https
	NoProxy []string `json:"no_proxy,omitempty"`
}

// The bounds of what a gateway may say.
const (
	maxNoProxy      = 256
	maxNoProxyEntry = 253
)

// Check returns an error when a value is no proxy, or could mean something else in one of the files that it goes into.
// Empty is allowed: both URLs, or none.
func (p Proxy) Check() error {
	if p.HTTP == "" && p.HTTPS == "" {
		return nil
	}
	if p.HTTP == "" || p.HTTPS == "" {
		return errors.New("proxy: one of the URLs for http and https is missing")
	}
	for _, s := range []string{p.HTTP, p.HTTPS} {
		if _, err := proxyURL(s); err != nil {
			return fmt.Errorf("proxy %.80q: %w", s, err)
		}
	}
	if len(p.NoProxy) > maxNoProxy {
		return fmt.Errorf("no_proxy has more than %d entries", maxNoProxy)
	}
	for _, s := range p.NoProxy {
		if err := checkNoProxy(s); err != nil {
			return fmt.Errorf("no_proxy %.80q: %w", s, err)
		}
	}
	return nil
}

// proxyURL reads scheme, host and port, and nothing else.
func proxyURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, errors.New("it is not a URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("its scheme is not http or https")
	case u.User != nil:
		return nil, errors.New("it holds a password, which everybody on the host could read")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("it has more than a host and a port")
	case u.Hostname() == "" || u.Port() == "":
		return nil, errors.New("give a host and a port")
	case strings.TrimSuffix(s, "/") != u.Scheme+"://"+u.Host:
		return nil, errors.New("it is not written as http://HOST:PORT")
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil && a.Zone() == "" {
		return u, nil
	}
	return u, checkHostname(u.Hostname())
}

func checkHostname(s string) error {
	if s == "" || len(s) > maxNoProxyEntry || strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") != "" || s[0] == '-' {
		return errors.New("it is not the name of a host")
	}
	return nil
}

// checkNoProxy accepts names, names with a leading dot or "*.", addresses, ranges, and each with a port.
func checkNoProxy(s string) error {
	if _, err := netip.ParsePrefix(s); err == nil {
		return nil
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return nil
	}
	if ap, err := netip.ParseAddrPort(s); err == nil && ap.Addr().Zone() == "" {
		return nil
	}
	if s == "*" {
		return errors.New("it would keep everything from the gateway")
	}
	name, port, found := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(s, "*"), "."), ":")
	if found && (port == "" || len(port) > 5 || strings.Trim(port, "0123456789") != "") {
		return errors.New("its port is not a number")
	}
	return checkHostname(name)
}

func hostPort(s string) (host, port string) {
	u, err := proxyURL(s)
	if err != nil {
		return "", ""
	}
	return u.Hostname(), u.Port()
}

// netProperties is what Java's net.properties needs, which reads no variable.
func (p Proxy) netProperties() string {
	var b strings.Builder
	for _, v := range []struct{ scheme, url string }{{"http", p.HTTP}, {"https", p.HTTPS}} {
		host, port := hostPort(v.url)
		fmt.Fprintf(&b, "%s.proxyHost=%s\n%s.proxyPort=%s\n", v.scheme, host, v.scheme, port)
	}
	fmt.Fprintf(&b, "http.nonProxyHosts=%s\n", strings.Join(p.javaBypass(), "|"))
	return b.String()
}

// javaBypass writes no_proxy as Java has it: "*" for the rest of a name; ranges are not known there.
func (p Proxy) javaBypass() []string {
	var list []string
	for _, s := range p.NoProxy {
		if _, err := netip.ParsePrefix(s); err == nil {
			continue
		}
		if a, err := netip.ParseAddr(s); err == nil {
			if a.Is6() {
				s = "[" + a.String() + "]"
			}
			list = append(list, s)
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(s, "*"), ":")
		if rest, dotted := strings.CutPrefix(name, "."); dotted {
			list = append(list, "*."+rest)
			continue
		}
		list = append(list, name, "*."+name)
	}
	return list
}

// aptConf is what apt needs: it runs from timers and sudo, which drop variables.
func (p Proxy) aptConf() string {
	var b strings.Builder
	b.WriteString(ownedNote("//"))
	fmt.Fprintf(&b, "Acquire::http::Proxy %q;\nAcquire::https::Proxy %q;\n", p.HTTP, p.HTTPS)
	for _, s := range p.NoProxy {
		if strings.ContainsAny(s, "*/:") || strings.HasPrefix(s, ".") {
			continue // apt knows whole hosts only
		}
		fmt.Fprintf(&b, "Acquire::http::Proxy::%s \"DIRECT\";\nAcquire::https::Proxy::%s \"DIRECT\";\n", s, s)
	}
	return b.String()
}

func ownedNote(comment string) string {
	return comment + " Written by exitgate; \"exitgate unenroll\" removes this file.\n"
}

// proxyItems writes the proxy where programs look that read no variables.
func (x *run) proxyItems(p Proxy) []item {
	if p.HTTPS == "" {
		return nil
	}
	var items []item
	if x.t.isDir("/etc/apt/apt.conf.d") {
		items = append(items, whole("/etc/apt/apt.conf.d/95exitgate", p.aptConf(), 0o644))
	}
	for _, conf := range []string{"/etc/dnf/dnf.conf", "/etc/yum.conf"} {
		if x.t.isFile(conf) {
			items = append(items, fileItem{path: conf, edit: editBlock, content: func(rest []byte, _ bool) ([]byte, error) { return p.dnfConf(rest) }})
			break
		}
	}
	return items
}

// dnfConf puts the proxy at the head of the section [main]. A proxy that somebody else set there stays.
func (p Proxy) dnfConf(rest []byte) ([]byte, error) {
	lines := strings.SplitAfter(string(rest), "\n")
	main, at := false, -1
	for i, line := range lines {
		s := strings.TrimSpace(line)
		if strings.HasPrefix(s, "[") {
			if main = s == "[main]"; main {
				at = i + 1
			}
		}
		if key, _, ok := strings.Cut(s, "="); main && ok && strings.TrimSpace(key) == "proxy" {
			return nil, &skipped{"it has a proxy already"}
		}
	}
	if at < 0 {
		return append(endLine(rest), marked("[main]\nproxy="+p.HTTPS+"\n")...), nil
	}
	lines[at-1] = string(endLine([]byte(lines[at-1])))
	return []byte(strings.Join(lines[:at], "") + marked("proxy="+p.HTTPS+"\n") + strings.Join(lines[at:], "")), nil
}
