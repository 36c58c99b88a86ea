// Package mitm carries every byte between hosts and upstreams: it accepts, identifies, peeks, asks, dials,
// splices, speaks TLS and HTTP with both sides, and refuses.
//
// # What is promised
//
// Nothing is dialled before a verdict allowed it, and only in dial.go, and only to an address that was checked.
// Nothing is written upstream before Recorder.Begin returned. Every connection that sent a byte yields a flow,
// and every flow ends once. The names under which a destination is named agree, or the request is refused. A
// step that fails, panics or is missing refuses: the zero Verdict does. Who a host is holds for no longer than it is
// true: it is looked at before each request, on connections that are open as on new ones, and what a host that may no
// longer pass has under way is cut.
//
// # What is not here
//
// Policy, SQL, certificates' making: they are behind the seams in proxy.go, which cmd/exitgate fills in. How
// requests are read into facts, how bodies are metered and headers rewritten is the business of modifiers (room
// inspect), which stand in Proxy.Request and Proxy.Response in the order in which they run.
//
// # The life of a connection
//
//	accept ─ who is it ─ TLS to the proxy? ─┬─ absolute-form request ──────────────────┐
//	                                        └─ CONNECT ─ ask(connect) ─ 200 ─ peek ─┐  │
//	     ┌───────────────────────────────────────────────────────────────────────────┘  │
//	     ├─ TLS, exempt ─ begin ─ dial ─ splice ─ end                                   │
//	     ├─ TLS ─ leaf ─ handshake ─┐                                                   │
//	     ├─ HTTP ───────────────────┴──▶ for each request ◀─────────────────────────────┘
//	     └─ anything else: refused, or spliced when an exemption says raw
//
//	for each request: read ─ canonicalise ─ ask(request) ─ begin ─ forward ─ ask(response) ─ stream ─ end
//
// The ways in differ only in how they fill the first Question. On the TLS proxy the host's certificate says who it is; one
// that is not valid does not fail the handshake, as each request can then be refused with the reason. One name is the
// engine's own: see ProbeName.
package mitm
