package trust

import (
	"fmt"
	"path"
	"strings"
)

// A Variable of programs' environment.
type Variable struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// trustVariables name the file of roots for programs that do not read the system's store, or not always.
func trustVariables(bundle string) []Variable {
	var list []Variable
	for _, name := range []string{
		"SSL_CERT_FILE",                      // OpenSSL, Go, Python's ssl, Ruby, PHP, Rust's native roots, .NET
		"CURL_CA_BUNDLE",                     // curl with its own bundle; requests
		"REQUESTS_CA_BUNDLE",                 // Python's requests and pip
		"PIP_CERT",                           // pip
		"NODE_EXTRA_CA_CERTS",                // Node, npm, yarn
		"GIT_SSL_CAINFO",                     // git
		"AWS_CA_BUNDLE",                      // AWS's SDKs and command line
		"CARGO_HTTP_CAINFO",                  // cargo
		"CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", // gcloud
		"HTTPLIB2_CA_CERTS",                  // Python's httplib2
		"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",   // gRPC in C, Python, Ruby
		"NIX_SSL_CERT_FILE",                  // Nix
		"BUNDLE_SSL_CA_CERT",                 // Ruby's bundler
		"PERL_LWP_SSL_CA_FILE",               // Perl's LWP
		"HEX_CACERTS_PATH",                   // Elixir's hex
		"COMPOSER_CAFILE",                    // PHP's composer
		"DENO_CERT",                          // Deno
	} {
		list = append(list, Variable{name, bundle})
	}
	return append(list, Variable{"DENO_TLS_CA_STORE", "system,mozilla"})
}

// proxyVariables are read by most programs, in one case or the other.
func proxyVariables(p Proxy) []Variable {
	if p.HTTPS == "" {
		return nil
	}
	no := strings.Join(p.NoProxy, ",")
	return []Variable{
		{"http_proxy", p.HTTP}, {"https_proxy", p.HTTPS}, {"HTTPS_PROXY", p.HTTPS}, {"HTTP_PROXY", p.HTTP},
		{"no_proxy", no}, {"NO_PROXY", no},
		{"NODE_USE_ENV_PROXY", "1"}, // Node from 22.21 and 24.0: else it reads none of these
	}
}

// render writes variables with one format for each.
func render(note, format string, vars []Variable) string {
	var b strings.Builder
	b.WriteString(note)
	for _, v := range vars {
		fmt.Fprintf(&b, format, v.Name, v.Value)
	}
	return b.String()
}

// systemdConf sets the variables for every service. A "%" would be a specifier.
func systemdConf(vars []Variable) string {
	return ownedNote("#") + render("[Manager]\n", "DefaultEnvironment=\"%s=%s\"\n", vars)
}

// envItems writes the variables for login shells, for sessions that PAM opens (ssh, cron, sudo where it reads them), for
// users' services and for the system's.
func (x *run) envItems(vars []Variable) []item {
	shell := ownedNote("#") + render("", "export %s='%s'\n", vars)
	if x.h.Home != "" {
		return x.userEnv(shell, vars)
	}
	items := []item{
		whole("/etc/profile.d/exitgate.sh", shell, 0o644),
		whole("/etc/environment.d/60-exitgate.conf", render(ownedNote("#"), "%s=\"%s\"\n", vars), 0o644),
	}
	if x.t.isFile("/etc/environment") || x.t.isDir("/etc/pam.d") {
		items = append(items, block("/etc/environment", render("", "%s=\"%s\"\n", vars)))
	}
	if x.t.isDir("/etc/fish") {
		items = append(items, whole("/etc/fish/conf.d/exitgate.fish", ownedNote("#")+render("", "set -gx %s '%s'\n", vars), 0o644))
	}
	if x.hasSystemd() {
		conf := whole("/etc/systemd/system.conf.d/60-exitgate.conf", systemdConf(vars), 0o644)
		conf.hook = hookSystemd
		items = append(items, conf)
	}
	return items
}

// userEnv does the same for one user. Shells that read no profile (a terminal in a desktop) read it from their own file.
func (x *run) userEnv(shell string, vars []Variable) []item {
	file := path.Join(x.h.Home, ".config/exitgate/env.sh")
	items := []item{
		whole(file, shell, 0o644),
		whole(path.Join(x.h.Home, ".config/environment.d/60-exitgate.conf"), render(ownedNote("#"), "%s=\"%s\"\n", vars), 0o644),
		block(path.Join(x.h.Home, ".profile"), ". \"$HOME/.config/exitgate/env.sh\"\n"),
	}
	for _, rc := range []string{".bashrc", ".bash_profile", ".zshenv"} {
		if p := path.Join(x.h.Home, rc); x.t.isFile(p) {
			items = append(items, block(p, ". \"$HOME/.config/exitgate/env.sh\"\n"))
		}
	}
	return items
}
