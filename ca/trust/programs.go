package trust

import (
	_ "embed"
	"regexp"
)

// A program is one that can be tried, and what is known of it.
type program struct {
	name      string
	names     []string // of the file; the first that is found is tried
	version   []string
	args      func(probe) []string
	env       []string       // beside the checker's; DIR is the scratch directory
	ok        *regexp.Regexp // in the output of one that trusts the gateway; nil: it exits with 0
	absent    *regexp.Regexp // in the output when there is nothing to try, such as a module that is not installed
	reads     []string       // variables that name its roots, the strongest first
	otherwise string         // where it has its roots from without them
	fix       string
	far       string // what to do when it could not connect; "": see whether the gateway can be reached
	untried   string // why it is not tried
}

//go:embed probe/Probe.class
var probeClass string

func probeFiles() map[string][]byte { return map[string][]byte{"Probe.class": []byte(probeClass)} }

// systemStore is where most programs have their roots from.
const systemStore = "the system's store"

// again is what to do about variables that were written and not read.
const again = "; log in again, or restart the service, so that variables are read"

// programs lists what is looked for, but for Java. Those that need a server of their own kind ask the probe for something
// that it does not have: an answer about that shows that TLS was accepted.
func programs() []program {
	v := []string{"--version"}
	return []program{
		{name: "curl", names: []string{"curl"}, version: v, reads: []string{"CURL_CA_BUNDLE", "SSL_CERT_FILE"}, otherwise: systemStore,
			args: func(p probe) []string { return []string{"-sS", "-o", p.dir + "/curl.out", "--max-time", "9", p.url} },
			fix:  "let CURL_CA_BUNDLE name the system's bundle, or unset it" + again},
		{name: "wget", names: []string{"wget"}, version: v, otherwise: systemStore,
			args: func(p probe) []string {
				return []string{"-nv", "-O", p.dir + "/wget.out", "--tries=1", "--timeout=9", p.url}
			},
			fix: "look for ca_certificate in /etc/wgetrc and ~/.wgetrc, and run exitgate enroll again"},
		{name: "openssl", names: []string{"openssl"}, version: []string{"version"}, reads: []string{"SSL_CERT_FILE"}, otherwise: systemStore,
			args: func(p probe) []string {
				return []string{"s_client", "-connect", "127.0.0.1:" + p.port, "-servername", p.host, "-verify_hostname", p.host, "-verify_return_error", "-brief"}
			},
			fix: "let SSL_CERT_FILE name the system's bundle, or unset it" + again},
		{name: "gnutls", names: []string{"gnutls-cli"}, version: v, otherwise: systemStore,
			args: func(p probe) []string {
				return []string{"--port", p.port, "--sni-hostname", p.host, "--verify-hostname", p.host, "127.0.0.1"}
			},
			fix: "run exitgate enroll again: the system's store lacks the root"},
		{name: "python ssl", names: []string{"python3", "python"}, version: v, reads: []string{"SSL_CERT_FILE"}, otherwise: systemStore,
			args: func(p probe) []string {
				return []string{"-c", "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=9).read()", p.url}
			},
			fix: "let SSL_CERT_FILE name the system's bundle" + again},
		{name: "python requests", names: []string{"python3", "python"}, reads: []string{"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}, otherwise: "certifi, a bundle of its own",
			args: func(p probe) []string {
				return []string{"-c", "import sys, requests; print(requests.__version__); requests.get(sys.argv[1], timeout=9)", p.url}
			},
			absent: regexp.MustCompile(`No module named '?requests`),
			fix:    "let REQUESTS_CA_BUNDLE name the system's bundle" + again},
		{name: "pip", names: []string{"pip3", "pip"}, version: v, reads: []string{"PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}, otherwise: "certifi, or from 24.2 on " + systemStore,
			args: func(p probe) []string {
				return []string{"--disable-pip-version-check", "--no-cache-dir", "--retries", "0", "--timeout", "9", "download", "--no-deps", "--index-url", p.url + "simple/", "exitgate-probe"}
			},
			ok:  regexp.MustCompile(`No matching distribution|Could not find a version`),
			fix: "let PIP_CERT name the system's bundle, or run pip config set global.cert FILE" + again},
		{name: "node", names: []string{"node", "nodejs"}, version: v, reads: []string{"NODE_EXTRA_CA_CERTS"}, otherwise: "a bundle of its own",
			args: func(p probe) []string {
				return []string{"-e", `const [port, host] = process.argv.slice(-2), tls = require('tls');
const s = tls.connect({host: '127.0.0.1', port, servername: host, checkServerIdentity: (_, c) => tls.checkServerIdentity(host, c)}, () => s.end());
s.setTimeout(9000, () => s.destroy(new Error('timed out')));
s.on('error', e => { console.log(e.code, e.message); process.exit(1); });`, p.port, p.host}
			},
			fix: "let NODE_EXTRA_CA_CERTS name the system's bundle" + again},
		{name: "npm", names: []string{"npm"}, version: v, reads: []string{"npm_config_cafile", "NODE_EXTRA_CA_CERTS"}, otherwise: "Node's own bundle",
			args: func(p probe) []string {
				return []string{"view", "exitgate-probe", "--registry", p.url, "--fetch-retries", "0", "--fetch-timeout", "9000", "--cache", p.dir + "/npm", "--no-update-notifier"}
			},
			ok:  regexp.MustCompile(`E404|EJSONPARSE|Unexpected token|invalid json|is not valid JSON|No match found|E40[0-9]|ETARGET|packument|Cannot read properties|ENOVERSIONS`),
			fix: "let NODE_EXTRA_CA_CERTS name the system's bundle, and remove cafile from npm's settings, which keeps it from being read" + again},
		{name: "git", names: []string{"git"}, version: v, reads: []string{"GIT_SSL_CAINFO"}, otherwise: systemStore,
			args: func(p probe) []string { return []string{"ls-remote", p.url + "probe.git"} },
			env:  []string{"GIT_TERMINAL_PROMPT=0"},
			ok:   regexp.MustCompile(`\A\s*\z|not found|not valid: is this a git repository|unexpected|expected|HTTP (code|error)|returned error: [1-9]`),
			fix:  "let GIT_SSL_CAINFO name the system's bundle, or remove http.sslCAInfo from git's settings" + again},
		{name: "go", names: []string{"go"}, version: []string{"version"}, reads: []string{"SSL_CERT_FILE"}, otherwise: systemStore,
			args: func(p probe) []string { return []string{"list", "-m", "exitgate-probe.test/x@latest"} },
			env:  []string{"GOFLAGS=-mod=mod", "GOTOOLCHAIN=local", "GO111MODULE=on", "GOWORK=off", "GOMODCACHE=DIR/mod", "GOCACHE=DIR/gocache", "GONOSUMDB=*", "GONOSUMCHECK=1", "GONOPROXY=none", "GOPRIVATE=", "GOPROXY=PROBE"},
			ok:   regexp.MustCompile(`no matching versions|not found|invalid|unexpected|40[0-9]|reading|malformed|decod|parsing|unrecognized`),
			fix:  "let SSL_CERT_FILE name the system's bundle, or unset it" + again},
		{name: "ruby", names: []string{"ruby"}, version: v, reads: []string{"SSL_CERT_FILE"}, otherwise: systemStore,
			args: func(p probe) []string {
				return []string{"-e", `require "net/http"; u = URI(ARGV[0]); Net::HTTP.start(u.host, u.port, use_ssl: true, open_timeout: 9, read_timeout: 9) { |h| h.get(u.path) }`, p.url}
			},
			fix: "let SSL_CERT_FILE name the system's bundle" + again},
		{name: "perl", names: []string{"perl"}, version: v, reads: []string{"SSL_CERT_FILE"}, otherwise: systemStore,
			args: func(p probe) []string {
				return []string{"-e", `use HTTP::Tiny; my $h = HTTP::Tiny->new(verify_SSL => 1, timeout => 9); my ($can, $why) = $h->can_ssl; print("no TLS: $why"), exit 1 unless $can; my $r = $h->get($ARGV[0]); print $r->{content} if $r->{status} == 599; exit($r->{status} == 599)`, p.url}
			},
			absent: regexp.MustCompile(`^no TLS: `),
			fix:    "let SSL_CERT_FILE (LWP: PERL_LWP_SSL_CA_FILE) name the system's bundle" + again},
		{name: "php", names: []string{"php"}, version: v, reads: []string{"SSL_CERT_FILE"}, otherwise: systemStore,
			args: func(p probe) []string {
				return []string{"-r", `$s = stream_socket_client("ssl://127.0.0.1:" . $argv[1], $n, $e, 9, STREAM_CLIENT_CONNECT, stream_context_create(["ssl" => ["peer_name" => $argv[2]]])); if (!$s) { echo $e; exit(1); }`, "--", p.port, p.host}
			},
			fix: "set openssl.cafile and curl.cainfo in php.ini to the system's bundle"},
		{name: "chromium", names: []string{"chromium", "chromium-browser", "google-chrome"}, version: v, otherwise: "its policy, and ~/.pki/nssdb",
			args: func(p probe) []string {
				return []string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
					"--no-first-run", "--user-data-dir=" + p.dir + "/chromium", "--dump-dom", p.url}
			},
			ok:  regexp.MustCompile(`(?s)<html.*<body`),
			fix: "run exitgate enroll again with certutil (package libnss3-tools) installed; Chrome before 128 reads no other place than ~/.pki/nssdb"},
		{name: "apt", names: []string{"/usr/lib/apt/apt-helper"}, version: v, otherwise: systemStore,
			args: func(p probe) []string {
				return []string{"-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=0", "download-file", p.url, p.dir + "/apt.out"}
			},
			fix: "look for Acquire::https::CAInfo in apt-config dump, and run exitgate enroll again"},
		{name: "dotnet", names: []string{"dotnet"}, version: v, reads: []string{"SSL_CERT_FILE"}, otherwise: systemStore,
			args:    func(probe) []string { return nil },
			untried: "it is there, and trying it needs a project: it reads what OpenSSL reads"},
	}
}

// java is how each Java runtime is tried.
func java() program {
	return program{name: "java", otherwise: "its cacerts", ok: regexp.MustCompile(` answered \d`),
		args: func(p probe) []string { return []string{"-XX:TieredStopAtLevel=1", "-cp", p.dir, "Probe", p.url} },
		fix:  "run exitgate enroll again: the root is not in the cacerts of this Java; a keystore with its own password needs keytool by hand",
		far:  "see whether net.properties of this Java names the proxy, since it reads no variable: exitgate enroll writes it"}
}
