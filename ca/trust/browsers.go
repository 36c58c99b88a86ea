package trust

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
)

// browserItems writes the policies of the browsers that are on the host: they read neither the system's store nor, all
// of them, its variables.
func (x *run) browserItems(w Want) ([]item, error) {
	var items []item
	policy, err := chromePolicy(w)
	if err != nil {
		return nil, err
	}
	for _, b := range []struct{ dir, program string }{
		{"/etc/chromium", "chromium"}, {"/etc/chromium-browser", "chromium-browser"}, {"/etc/opt/chrome", "google-chrome-stable"},
		{"/etc/opt/edge", "microsoft-edge-stable"}, {"/etc/brave", "brave-browser"},
	} {
		if _, ok := x.t.look(b.program); ok || x.t.isDir(b.dir) {
			items = append(items, whole(b.dir+"/policies/managed/exitgate.json", policy, 0o644))
		}
	}
	if x.hasFirefox() {
		items = append(items, x.firefoxItem(w))
	}
	return items, nil
}

func (x *run) hasFirefox() bool {
	for _, program := range []string{"firefox", "firefox-esr"} {
		if _, ok := x.t.look(program); ok {
			return true
		}
	}
	return x.t.isDir("/etc/firefox") || x.t.isDir("/snap/firefox") || x.t.isDir("/opt/firefox") || x.t.isDir("/var/lib/flatpak/app/org.mozilla.firefox")
}

// chromePolicy is a policy file of Chrome and its kin. CACertificates is known from Chrome 128 on; older ones read
// the NSS database of the user.
func chromePolicy(w Want) (string, error) {
	var certs []string
	for _, r := range w.Roots {
		certs = append(certs, base64.StdEncoding.EncodeToString(r.Cert.Raw))
	}
	policy := map[string]any{"CACertificates": certs}
	if w.Proxy.HTTPS != "" {
		http, https := w.Proxy.address()
		policy["ProxySettings"] = map[string]any{"ProxyMode": "fixed_servers", "ProxyServer": "http=" + http + ";https=" + https,
			"ProxyBypassList": strings.Join(w.Proxy.NoProxy, ";")}
	}
	b, err := json.MarshalIndent(policy, "", "  ")
	return string(b) + "\n", err
}

// address returns the proxies as browsers write them: a proxy that speaks TLS has its scheme.
func (p Proxy) address() (http, https string) {
	list := [2]string{p.HTTP, p.HTTPS}
	for i, s := range list {
		if u, err := proxyURL(s); err == nil && u.Scheme == "http" {
			list[i] = u.Host
		}
	}
	return list[0], list[1]
}

// firefoxItem is our part of Firefox's policy file, which has room for one file only.
func (x *run) firefoxItem(w Want) item {
	http, https := w.Proxy.address()
	return fileItem{path: "/etc/firefox/policies/policies.json", edit: editPolicies, name: http, content: func(rest []byte, _ bool) ([]byte, error) {
		all, policies, err := readPolicies(rest)
		if err != nil {
			return nil, &skipped{err.Error()}
		}
		certs, _ := policies["Certificates"].(map[string]any)
		if certs == nil {
			certs = map[string]any{}
		}
		list, _ := certs["Install"].([]any)
		for _, r := range w.Roots {
			list = append(list, x.anchor(r))
		}
		certs["Install"], policies["Certificates"] = list, certs
		if _, taken := policies["Proxy"]; !taken && http != "" {
			policies["Proxy"] = map[string]any{"Mode": "manual", "HTTPProxy": http, "SSLProxy": https, "Passthrough": strings.Join(w.Proxy.NoProxy, ", ")}
		}
		all["policies"] = policies
		return writePolicies(all)
	}}
}

func readPolicies(b []byte) (all, policies map[string]any, err error) {
	all = map[string]any{}
	if len(bytes.TrimSpace(b)) > 0 {
		d := json.NewDecoder(bytes.NewReader(b))
		d.UseNumber()
		if err := d.Decode(&all); err != nil {
			return nil, nil, fmt.Errorf("it cannot be read: %w", err)
		}
	}
	policies, ok := all["policies"].(map[string]any)
	if !ok && all["policies"] != nil || all == nil {
		return nil, nil, errors.New("it has no object of policies")
	}
	if policies == nil {
		policies = map[string]any{}
	}
	return all, policies, nil
}

func writePolicies(all map[string]any) ([]byte, error) {
	b, err := json.MarshalIndent(all, "", "  ")
	return append(b, '\n'), err
}

// withoutPolicies removes our roots, and the proxy when it is ours. What then holds nothing is empty; what never held
// anything of ours stays as it was written.
func withoutPolicies(b []byte, proxy string) ([]byte, error) {
	all, policies, err := readPolicies(b)
	if err != nil {
		return nil, err
	}
	ours := false
	certs, _ := policies["Certificates"].(map[string]any)
	list, _ := certs["Install"].([]any)
	var rest []any
	for _, v := range list {
		if s, ok := v.(string); ok && strings.HasPrefix(path.Base(s), "exitgate-") {
			ours = true
			continue
		}
		rest = append(rest, v)
	}
	if !ours {
		return b, nil
	}
	if certs["Install"] = rest; len(rest) == 0 {
		delete(certs, "Install")
	}
	if len(certs) == 0 {
		delete(policies, "Certificates")
	}
	if p, _ := policies["Proxy"].(map[string]any); p != nil && proxy != "" && p["HTTPProxy"] == proxy {
		delete(policies, "Proxy")
	}
	if len(policies) == 0 {
		delete(all, "policies")
	}
	if len(all) == 0 {
		return nil, nil
	}
	return writePolicies(all)
}
