package main

// This file is the manual of exitgate.yaml: `exitgate config print` prints the comments below beside the keys, and
// the reader learns from the same source which keys there are (configschema.go). So a comment here speaks to the
// person who writes the file.

// Config is how the appliance runs. What hosts may reach is not in it: that is in grants, exemptions and the policy
// directory. Every key may be left out.
type Config struct {
	// The directory for everything that the gateway keeps: its CA, the embedded store, the journal, the policy
	// directory and the admin socket. Only one gateway can use it at a time. Relative paths in this file are
	// relative to the file.
	DataDir string `yaml:"data_dir"`
	// The name of this gateway in records and in what refused clients see: letters, digits, dot and dash. Two
	// gateways that speak to each other must not have the same name.
	Gateway string `yaml:"gateway"`
	// Where the gateway listens. A change needs a restart.
	Listen Listen `yaml:"listen"`
	// The API over TLS (listen.api).
	API API `yaml:"api"`
	// The identities that hosts get when they enrol (listen.enroll) and show (listen.tls_proxy). A change needs a
	// restart.
	Identity Identity `yaml:"identity"`
	// The name or address by which hosts and tools reach this gateway, where they are told so. Default: the name
	// of the machine.
	PublicName string `yaml:"public_name"`
	// The hosts that are known, and their classes. Everybody else is of class unknown, which the base policy
	// refuses. The most specific address wins.
	Hosts []HostEntry `yaml:"hosts"`
	// What is particular about a class. A class does not have to be listed here.
	Classes map[string]ClassEntry `yaml:"classes"`
	// The policy. A change of the directory's name needs a restart; what is in it is loaded again by a reload.
	Policy Policy `yaml:"policy"`
	// Where flows, grants and exemptions are kept. A change needs a restart.
	Store Store `yaml:"store"`
	// The journal that flows are written to before anything leaves, and from which the store is fed. A change
	// needs a restart.
	Journal Journal `yaml:"journal"`
	// The interception CA.
	CA CA `yaml:"ca"`
	// How the outside is reached. A change needs a restart.
	Upstream Upstream `yaml:"upstream"`
	// Bounds on what hosts can make the gateway hold and carry. A change needs a restart.
	Limits Limits `yaml:"limits"`
	// Bounds on the time of each step. A change needs a restart.
	Timeouts Timeouts `yaml:"timeouts"`
	// What is kept out of records, beyond Authorization, Cookie and their kind: the values become a fingerprint
	// that can be compared and not read. A change needs a restart.
	Redact Redact `yaml:"redact"`
	// Where a refused CONNECT is answered: outside (on the CONNECT itself, quick, but most clients do not show
	// why), inside (after the TLS handshake, where every client shows it), or auto (inside where the client
	// would hide the reason). A change needs a restart.
	RefuseConnect RefuseConnect `yaml:"refuse_connect"`
	// What is written to standard error. A change needs a restart.
	Log Log `yaml:"log"`

	loaded loaded
}

// Listen says where the gateway listens.
type Listen struct {
	// The explicit proxy (HTTP CONNECT and absolute-form), as address:port.
	Proxy HostPort `yaml:"proxy"`
	// The explicit proxy over TLS that asks hosts for their identity certificate, as address:port, usually with port
	// 3129; "off" (the default) for none.
	TLSProxy HostPort `yaml:"tls_proxy"`
	// Where hosts enrol, renew their identity, and fetch what they need, over TLS, as address:port, usually with port
	// 3130; "off" (the default) for none.
	Enroll HostPort `yaml:"enroll"`
	// proxy.pac, wpad.dat, the list of revoked identities and the roots in plain HTTP, for clients that can do no
	// better, as address:port; "off" (the default) for none.
	Plain HostPort `yaml:"plain"`
	// Metrics, /livez and /readyz for machines, as address:port; "off" for none.
	Admin HostPort `yaml:"admin"`
	// The API over TLS, for those who have an API token, as address:port; "off" (the default) for none. It is not
	// for the network that hosts are in.
	API HostPort `yaml:"api"`
}

// API configures the API over TLS.
type API struct {
	// The certificate that the listener shows, and the chain that leads to its root (PEM). It is read again by a
	// reload. Default: one under the gateway's identity root.
	Certificate string `yaml:"certificate"`
	// Its private key (PEM).
	Key string `yaml:"key"`
}

// Identity configures the identity authority: smallstep's, with a root of its own in data_dir/identity.
type Identity struct {
	// Where hosts reach the enrolment listener. Default: https://, public_name and the listener's port.
	URL string `yaml:"url"`
	// Further names and addresses under which hosts reach it.
	Names []string `yaml:"names"`
	// Begins the identifiers of hosts (spiffe://). A change makes every identity that was given invalid.
	TrustDomain string `yaml:"trust_domain"`
	// How long an identity is valid: 5m to 7d. Hosts renew theirs at half of it.
	Lifetime Duration `yaml:"lifetime"`
	// Refuse hosts that show no identity on listen.tls_proxy. Otherwise they are known by address or token.
	Required bool `yaml:"required"`
	// What hosts are told when they enrol: proxy (they set the proxy), or transparent (they set nothing).
	Mode HostMode `yaml:"mode"`
	// Names for which hosts get server certificates by ACME: a name, or *. and one for all names one label below it.
	// None: no ACME.
	ACME []string `yaml:"acme"`
	// Where the key of the identity root lives, as ca.root_key.
	RootKey KeyURI `yaml:"root_key"`
	// Where keys of its issuers live.
	IssuerKey KeyURI `yaml:"issuer_key"`
	// What encrypts keys that are files, as ca.root_passphrase.
	Passphrase Secret `yaml:"passphrase"`
}

// HostEntry is one known host.
type HostEntry struct {
	// Its name; unique.
	Name Name `yaml:"name"`
	// The class that it was provisioned into.
	Class Name `yaml:"class"`
	// The addresses and ranges (CIDR) that its connections come from.
	Addresses []Prefix `yaml:"addresses"`
	// A file with the token that it presents in Proxy-Authorization, when an address cannot tell it; spaces and
	// line ends around the token are left out.
	TokenFile string `yaml:"token_file"`
	// Or, instead of the file, the SHA-256 of the token in hex, so that the token itself is not kept here.
	TokenSHA256 Digest `yaml:"token_sha256"`
}

// ClassEntry is what is particular about a class.
type ClassEntry struct {
	// Carry what policy would refuse for this class, and record that it would have been refused: to learn what
	// a class needs before it is enforced.
	Audit bool `yaml:"audit"`
}

// Policy says where the policy directory is.
type Policy struct {
	// The directory with Rego, grants and exemptions, best kept in git. Default: policy in data_dir.
	Dir string `yaml:"dir"`
}

// Store says where flows are kept, and what was changed at run time.
type Store struct {
	// sqlite:PATH for the embedded store, or postgres://... Default: flows.db in data_dir.
	URL StoreURL `yaml:"url"`
	// A file that holds the URL, for one with a password in it; instead of url.
	URLFile string `yaml:"url_file"`
}

// Journal bounds the journal.
type Journal struct {
	// Its directory. Default: journal in data_dir.
	Dir string `yaml:"dir"`
	// The size at which nothing more is carried, because a record of it could not be kept: how long the store
	// may be away. About 2 KiB a flow.
	MaxBytes Size `yaml:"max_bytes"`
	// When a record is safe: "disk" after it was flushed to the disk (survives a power failure), "os" after the
	// operating system has it (survives the death of the gateway; quicker).
	Sync Sync `yaml:"sync"`
}

// CA configures the interception CA.
type CA struct {
	// Names that must never be read, with all below them: they become excluded name constraints of the issuer,
	// so that hosts themselves refuse a leaf for them. A change makes a new issuer, under the same root.
	NeverIntercept []string `yaml:"never_intercept"`
	// Where it is set, the names that alone are read, with all below them: hosts refuse a leaf for any other name,
	// and for an address. A change makes a new issuer, under the same root.
	OnlyIntercept []string `yaml:"only_intercept"`
	// Where the key of a root that is made from now on lives: left out for the data directory, the URI of a key
	// (pkcs11:... where the build has cgo, tpmkms:...), or "offline" when it is not on this machine at all. Then
	// ca/root.crt in data_dir is the root, and issuers are signed elsewhere: exitgate ca issuer-request says
	// how. Of several gateways that share a root, at most one has its key. A change needs a restart.
	RootKey KeyURI `yaml:"root_key"`
	// Where keys of issuers that are made from now on live, likewise. Every leaf is signed with it, so it wants
	// to be near. A change needs a restart.
	IssuerKey KeyURI `yaml:"issuer_key"`
	// What encrypts the key of the root where it is a file: file:PATH, env:NAME, or credential:NAME (of systemd,
	// LoadCredential). A key that is there in clear is encrypted at the next start. A change needs a restart.
	RootPassphrase Secret `yaml:"root_passphrase"`
	// The same for the key of the issuer.
	IssuerPassphrase Secret `yaml:"issuer_passphrase"`
}

// Upstream says how the outside is reached.
type Upstream struct {
	// Files with CA certificates (PEM) that upstreams may chain to, besides the system's.
	Roots []string `yaml:"roots"`
	// Ranges (CIDR) that may be dialled although they are not of the public Internet: loopback, private,
	// link-local, metadata services and the like are refused otherwise, whatever name leads to them.
	Allow []Prefix `yaml:"allow"`
	// Certificates that are presented to upstreams that ask for one.
	ClientCertificates []ClientCertificate `yaml:"client_certificates"`
	// A parent proxy, as http://[user:password@]address:port.
	Proxy ProxyURL `yaml:"proxy"`
	// What is reached without the parent proxy: names, .example.com for all below it, CIDRs.
	NoProxy []string `yaml:"no_proxy"`
	// Dial another address for a name and port, as curl's --connect-to does: "name:port": "address:port". The
	// address needs to be in allow if it is not of the public Internet.
	ConnectTo map[string]AddrPort `yaml:"connect_to"`
	// Speak HTTP/1.1 to every upstream.
	DisableHTTP2 bool `yaml:"disable_http2"`
	// Offer no post-quantum key exchange (ML-KEM), on either side; it costs about a third of a handshake.
	DisableMLKEM bool `yaml:"disable_mlkem"`
}

// ClientCertificate is presented to one upstream, or to all below a name.
type ClientCertificate struct {
	// The destination's name, or *.example.com for all below it.
	To string `yaml:"to"`
	// The certificate and the chain that leads to its root (PEM).
	Cert string `yaml:"cert"`
	// Its private key (PEM).
	Key string `yaml:"key"`
}

// Limits bound what hosts can make the gateway hold and carry.
type Limits struct {
	// Connections accepted at one time.
	Connections Count `yaml:"connections"`
	// Connections accepted at one time from one source address.
	ConnectionsPerHost Count `yaml:"connections_per_host"`
	// Requests open at one time on one HTTP/2 connection.
	Streams Count `yaml:"streams"`
	// The head of one request.
	HeaderBytes Size `yaml:"header_bytes"`
	// The body of a request, where the grant names no limit; 0: no bound.
	RequestBody Size `yaml:"request_body"`
	// The body of a response, where the grant names no limit; 0: no bound.
	ResponseBody Size `yaml:"response_body"`
	// Both directions of a spliced flow together, where the exemption names no limit; 0: no bound.
	SpliceBytes Size `yaml:"splice_bytes"`
}

// Timeouts bound each step.
type Timeouts struct {
	// From accept, or from the answer to CONNECT, to a whole first message.
	FirstBytes Duration `yaml:"first_bytes"`
	// The TLS handshake with a host.
	Handshake Duration `yaml:"handshake"`
	// From a request's first byte to the end of its head.
	RequestHeader Duration `yaml:"request_header"`
	// A host's connection between two requests.
	Idle Duration `yaml:"idle"`
	// Finding the addresses of a name.
	Resolve Duration `yaml:"resolve"`
	// All addresses of a name together.
	Connect Duration `yaml:"connect"`
	// The TLS handshake with an upstream.
	UpstreamTLS Duration `yaml:"upstream_tls"`
	// From the request sent to the head of the response.
	ResponseHeader Duration `yaml:"response_header"`
	// A body of which nothing moves.
	BodyIdle Duration `yaml:"body_idle"`
	// An upgraded connection (WebSocket), or a response of events (SSE, gRPC), on which nothing moves.
	StreamIdle Duration `yaml:"stream_idle"`
	// A spliced flow on which nothing moves.
	SpliceIdle Duration `yaml:"splice_idle"`
	// How long flows may go on after SIGTERM before they are cut.
	Drain Duration `yaml:"drain"`
}

// Redact names what is kept out of records.
type Redact struct {
	// Header names.
	Headers []string `yaml:"headers"`
	// Keys of the URL's query.
	QueryKeys []string `yaml:"query_keys"`
}

// Log says what is written to standard error.
type Log struct {
	// debug, info, warn or error. With info, each flow that ends is one line.
	Level LogLevel `yaml:"level"`
	// text for people, json for machines, or auto: text on a terminal and json otherwise.
	Format LogFormat `yaml:"format"`
}
