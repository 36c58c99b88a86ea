package provision

import (
	"bytes"
	"embed"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"text/template"
)

// A Format is something that Render makes.
type Format string

// The formats.
const (
	CloudInit  Format = "cloud-init" // user data that enrols a host when it first boots
	Dockerfile Format = "dockerfile" // a fragment, for builds that go through the gateway and images that do
	Kubernetes Format = "k8s"        // a trust-manager Bundle, and a ConfigMap with the variables
	Patch      Format = "k8s-patch"  // of a Deployment, that takes both
	PatchInit  Format = "k8s-init"   // the same where there is no trust-manager, with an init container
	PowerShell Format = "gpo"        // a startup script for a group policy
	Registry   Format = "gpo-reg"    // the same settings as a .reg file
	Env        Format = "env"        // variables, for a POSIX shell
)

//go:embed templates
var templates embed.FS

// Render renders facts that Check has taken.
func Render(format Format, f Facts) ([]byte, error) {
	name := string(format)
	if format == CloudInit && f.Gateway == "" {
		name = "cloud-init-trust"
	}
	b, err := execute(name, view{f})
	if err != nil {
		return nil, fmt.Errorf("render %s: %w", format, err)
	}
	if format == PowerShell || format == Registry {
		b = bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
	}
	return b, nil
}

func execute(name string, v view) ([]byte, error) {
	t, err := template.New("").Funcs(template.FuncMap{
		"sh": shell, "yaml": yamlString, "docker": docker, "ps": powershell, "reg": registry,
		"comment": comment, "literal": literal, "oneline": oneLine, "wrap": wrap, "blob": blob, "lowercase": func(s string) bool { return s == strings.ToLower(s) },
	}).ParseFS(templates, "templates/*.tmpl")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.ExecuteTemplate(&b, name+".tmpl", v)
	return b.Bytes(), err
}

// view is what templates see.
type view struct{ Facts }

// UnitFile returns the variables for systemd.
func (v view) UnitFile() string {
	out := "[Manager]\n"
	for _, x := range append(v.Trust(), v.Proxy()...) {
		out += "DefaultEnvironment=" + systemd(x.Name, x.Value) + "\n"
	}
	return out
}

// Script returns what enrols a host when it boots.
func (v view) Script() (string, error) {
	b, err := execute("enroll", v)
	return string(b), err
}

// EnvFile returns the variables for a POSIX shell.
func (v view) EnvFile() (string, error) {
	b, err := execute("env", v)
	return string(b), err
}

// No returns what is reached without the proxy as variables have it.
func (v view) No() string { return strings.Join(v.NoProxy, ",") }

// A Variable of programs' environment.
type Variable struct{ Name, Value string }

// Certificates returns the roots.
func (v view) Certificates() []root { return v.roots() }

// Trust returns the variables that name the file of roots, for programs that do not read the system's store, or not always.
func (v view) Trust() []Variable { return v.TrustIn(v.Bundle) }

// TrustIn is Trust with another file.
func (v view) TrustIn(bundle string) (out []Variable) {
	for _, name := range []string{
		"SSL_CERT_FILE",       // OpenSSL, Go, Python's ssl, Ruby
		"CURL_CA_BUNDLE",      // curl with a bundle of its own
		"REQUESTS_CA_BUNDLE",  // Python's requests
		"PIP_CERT",            // pip
		"NODE_EXTRA_CA_CERTS", // Node, npm
		"GIT_SSL_CAINFO",      // git
		"AWS_CA_BUNDLE",       // AWS's tools
		"CARGO_HTTP_CAINFO",   // cargo
	} {
		out = append(out, Variable{name, bundle})
	}
	return out
}

// Proxy returns the variables that name the proxy: none in transparent mode. Programs read one case or the other.
func (v view) Proxy() []Variable {
	if v.HTTPS == "" {
		return nil
	}
	no := strings.Join(v.NoProxy, ",")
	return []Variable{
		{"http_proxy", v.HTTP}, {"HTTP_PROXY", v.HTTP}, {"https_proxy", v.HTTPS}, {"HTTPS_PROXY", v.HTTPS},
		{"no_proxy", no}, {"NO_PROXY", no},
		{"NODE_USE_ENV_PROXY", "1"}, // else Node reads none of these
	}
}

// WindowsProxy writes the proxies as Windows does: "http=NAME:PORT;https=NAME:PORT".
func (v view) WindowsProxy() string {
	var out []string
	for _, p := range []Variable{{"http", v.HTTP}, {"https", v.HTTPS}} {
		if u, err := url.Parse(p.Value); err == nil && u.Host != "" {
			out = append(out, p.Name+"="+u.Host)
		}
	}
	return strings.Join(out, ";")
}

// WindowsBypass writes what is reached without a proxy as Windows does. It knows no ranges of addresses: those whose length
// is a multiple of eight become a wildcard, and others are left out.
func (v view) WindowsBypass() string {
	var out []string
	for _, s := range v.NoProxy {
		switch p, err := netip.ParsePrefix(s); {
		case err == nil && p.Addr().Is4() && p.Bits() > 0 && p.Bits()%8 == 0 && p.Bits() < 32:
			octets := strings.Split(p.Addr().String(), ".")
			s = strings.Join(octets[:p.Bits()/8], ".") + ".*"
		case err == nil && !p.IsSingleIP():
			continue
		case err == nil:
			s = p.Addr().String()
		case strings.HasPrefix(s, "."):
			s = "*" + s
		}
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return strings.Join(append(out, "<local>"), ";")
}
