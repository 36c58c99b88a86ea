package doctor

import (
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// chooseProxy says which proxy programs of this session use for u: the one of the variables, or else the one that the
// enrolment names, as a session has it that began after the host enrolled.
func chooseProxy(env []string, e Enrolment, file string, u *url.URL) (c ProxyChoice) {
	names := []string{"http_proxy", "HTTP_PROXY"}
	given := e.HTTP
	if u.Scheme == "https" {
		names, given = []string{"https_proxy", "HTTPS_PROXY"}, e.HTTPS
	}
	if e.Mode == "transparent" {
		given = ""
	}
	no := strings.Join(e.NoProxy, ",")
	for _, name := range append(names, "all_proxy", "ALL_PROXY") {
		if c.URL = variable(env, name); c.URL != "" {
			c.From = name
			no = variable(env, "no_proxy")
			if no == "" {
				no = variable(env, "NO_PROXY")
			}
			break
		}
	}
	switch {
	case c.URL == "" && given != "":
		c.URL, c.From, c.Unset = given, file, variable(env, "SUDO_USER") == "" // sudo drops such variables
	case c.URL != "" && given != "" && !sameProxy(c.URL, given):
		c.Differs = given
	}
	if c.URL != "" {
		if c.Bypass = bypass(no, u); c.Bypass != "" {
			c.URL = ""
		}
	}
	return c
}

func sameProxy(a, b string) bool {
	x, err := parseProxy(a)
	y, err2 := parseProxy(b)
	return err == nil && err2 == nil && x.Scheme == y.Scheme && strings.EqualFold(x.Host, y.Host)
}

func variable(env []string, name string) string {
	for _, v := range slices.Backward(env) {
		if s, ok := strings.CutPrefix(v, name+"="); ok {
			return s
		}
	}
	return ""
}

// bypass returns the entry of no_proxy by which u goes around a proxy; "" none does.
func bypass(no string, u *url.URL) string {
	goes := func(entry string) bool {
		c := httpproxy.Config{HTTPProxy: "http://proxy.invalid:1", HTTPSProxy: "http://proxy.invalid:1", NoProxy: entry}
		p, err := c.ProxyFunc()(u)
		return err == nil && p == nil
	}
	if goes("") {
		return "(loopback)" // never goes through a proxy
	}
	for entry := range strings.SplitSeq(no, ",") {
		if entry = strings.TrimSpace(entry); entry != "" && goes(entry) {
			return entry
		}
	}
	return ""
}

// parseProxy reads the URL of a proxy as programs do: without a scheme it is http.
func parseProxy(s string) (*url.URL, error) {
	if s == "" {
		return nil, nil
	}
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "":
		return nil, failed(KindDamaged, "the proxy setting is no URL of a proxy")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, failed(KindDamaged, "the proxy setting is for %s, which no exitgate speaks", clip(u.Scheme))
	case u.Port() == "":
		u.Host += map[string]string{"http": ":80", "https": ":443"}[u.Scheme]
	}
	return u, nil
}
