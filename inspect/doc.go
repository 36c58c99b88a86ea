// Package inspect turns a host's bytes into facts, and refuses bytes that two readers could take for two different
// facts. It does no network I/O: bytes and messages go in, facts, counts and refusals come out.
//
// # What is promised
//
// What a policy saw is what goes upstream: path, query, method and header fields byte for byte, but for the Via field that
// every proxy must add and what the policy itself rewrites, which is recorded beside the question. Nothing is repaired on the way; what is ambiguous is refused, as an [exitgate.Refusal] of
// rule exitgate:malformed whose reason says what was wrong and where. No secret enters a question: credentials,
// cookies and the secret keys of a query are in it as keyed fingerprints. No byte of a body passes that is not
// counted, nor one over the limit. A step that finds no exchange fails as an [exitgate.Bug]: what could not be
// recorded does not go on.
//
// # The shape
//
//	first bytes ──▶ Sniff ──▶ TLS, HTTP/1, HTTP/2 in plain text, SSH, unknown
//	HTTP/1 bytes ─▶ Screen ─▶ net/http's server
//	requests:   Canonical ─ Authority ─ Loop ─ Headers ─ (ask) ─ HopByHop ─ Rewrite ─ (begin) ─ Via ─ RequestMeter ──▶ upstream
//	responses:  ResponseFacts ─ (ask) ─ ResponseHopByHop ─ Via ─ ResponseMeter ──▶ host
//
// Every step is a martian modifier, so that they stand in one explicit list. Authority, Loop and Headers need what
// Canonical filled in; Rewrite stands behind HopByHop, so that no host has taken away what the policy set; RequestMeter stands last, because it counts the header as it leaves.
//
// # What is refused: framing of HTTP/1 (Screen)
//
// All of it is 400, but where another status is given.
//
//	line end that is not CRLF, CR inside a line      two parsers see other lines
//	empty line before a request                      some parsers skip it, some end the message
//	request line not "METHOD SP target SP version"   more blanks move the target
//	version other than HTTP/1.0 and HTTP/1.1         framing follows from it
//	target with controls, blanks, "#", non-ASCII     must be percent-encoded (RFC 3986)
//	target of another form than the method's         "*" is for OPTIONS, host:port for CONNECT
//	https URL sent to the proxy in plain text        the host's secrets would cross the network openly
//	Host missing, twice, not host[:port]             routing follows from it; an HTTP/1.0 request may leave it
//	                                                 out where its target holds the host
//	Host other than an absolute target's             net/http's parser drops the one silently
//	field line without colon, blank before the
//	colon, folded, name no token, controls           classic smuggling
//	Content-Length twice (even if equal), as list,
//	signed, with leading zeros, over 18 digits       classic smuggling
//	Transfer-Encoding twice, in HTTP/1.0, with
//	Content-Length; 501: other than "chunked"        classic smuggling
//	Connection that names Host, framing,
//	Authorization, Cookie and the like               would have them removed behind the verdict
//	Upgrade twice, or empty                          one protocol can be judged; one to h2c is ignored, as
//	                                                 RFC 9110, section 7.8 allows, and goes nowhere
//	Expect other than a single 100-continue          cannot be met
//	chunk size not 1 to 15 hex digits, blanks around
//	it, data not followed by CRLF                    classic smuggling
//	413: chunk line over 256 bytes, a body that is
//	mostly chunk overhead                            extensions carry data that nobody meters
//	trailer field for framing, routing, identity     would change what was judged
//	431: request line over 16 KiB, head over 64 KiB,
//	over 128 fields, trailer over 2 KiB              bounds memory
//	bytes after CONNECT before it was answered       they are screened as a request: a refused CONNECT must not
//	                                                 leave bytes behind that mean something else
//
// # What is refused: the URL (Canonical)
//
//	dot segments, in any encoding, however often
//	encoded, also before ";"                         servers resolve them at different times
//	backslash, %5C                                   a slash to some servers
//	"//" at the start                                some read a host after it
//	control bytes, encoded controls (%00 to %1F, %7F)
//	invalid percent-encoding, in path and query      some repair it
//	encoded letters, digits, ".", "-", "_" in the    the same path to a server and another one to policy
//	path
//	percent-encoding that is not UTF-8               overlong forms hide dots and slashes
//	characters that a URL may not hold in its path   they could not be forwarded as they came
//	method not in capitals, TRACE, CONNECT in a      one method to one server, another to the next; credentials
//	tunnel                                           in the answer
//	host with user information, trailing dot,        two spellings of one name; addresses that only some
//	non-ASCII, numbers that are no dotted address    resolvers understand
//	absolute form in a tunnel, a path to the proxy   the destination would have two sources
//	Upgrade that names several protocols             a policy could judge only one
//
// What is carried as it came, on purpose:
//
//	%2F, %252F           inside its segment; EncodedSlash tells policy, which refuses without a grant that takes it.
//	                     npm's scoped packages and Jenkins's branches need it
//	%7E                  common encoders write "~" so; a rule on a path with "~" has to name both spellings
//	"//" behind the      base URLs that end in a slash make it everywhere; an empty segment is a segment to policy.
//	start                A deny rule for a path must know that some servers merge slashes: prefer grants
//	";" parameters       a part of their segment
//	%25 before hex       data that holds a percent sign; every further decoding is checked for dots, controls and backslashes
//	[ ] in the path      and | { } ^ ` " < > \ in the query: browsers send them raw
//	empty path           "http://a.example" is "/" (RFC 9110, section 4.2.3)
//
// The host goes upstream in lower case and without the scheme's default port, IPv6 as RFC 5952 writes it.
//
// # What is refused: names and fields (Authority, Loop, Headers)
//
//	421 on HTTP/2, 403 on HTTP/1: the request's host and port, the TLS server name, the target of CONNECT and the
//	destination that was judged are not all the same, or a Host field differs from :authority
//	508: a Via field holds this gateway's name
//	400: Authorization, Content-Length, Content-Type, Content-Range, From, Max-Forwards, Origin, Referer or User-Agent
//	twice; a value that is not UTF-8; on HTTP/2 a Content-Length that is not the body's
//
// A hello without a server name is fine where the names that are left agree.
//
// # What is refused: the ClientHello (Sniff)
//
// A server name that is empty, not the only one, an IP address (RFC 6066 forbids it), ends in a dot, or holds
// anything but letters, digits, hyphen, underscore and dot; an extension twice; lists that are cut or empty; records
// that are empty, over 16 KiB or of another type; more than 64 KiB or 4096 records; other bytes behind the hello in its
// record. ECH is noted and not refused: browsers send a dummy of it always.
//
// # What is not seen
//
// Secrets in a path, in a body, or in a value that is itself an encoded URL; a query key that is encoded twice. Trailer fields
// of a request are bounded and checked, but come after the verdict.
package inspect
