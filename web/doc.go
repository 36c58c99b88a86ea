// Package web serves what people and machines ask of a running gateway: the JSON API, the metrics, and whether it is
// alive and ready.
//
// # What is promised
//
// A change that the API answered with success holds from the next request on, on this gateway: it was checked, written to
// the ledger and put in force, in this order, and when one of them fails nothing has changed. On every other gateway that
// shares the ledger it holds within a second. Who makes a change is the user of the connecting process as the kernel says
// it, or the name of the token that was presented, never what a client says of itself. Of two changes to one thing that
// were made from the same state, one is refused, whichever gateways were asked. The same again changes nothing, and is
// not in the audit trail.
//
// A body is read strictly: unknown members, members that are there twice, a second value, what is not UTF-8, or more than
// [MaxBody] bytes are errors. Every error is a problem document (RFC 9457) whose detail says what was attempted, on what
// and why it failed. Secrets are in the answer that made them, and nowhere else: the ledger has their SHA-256.
//
// The metrics have a bounded number of series: a class that nobody knows counts as "other", and no label ever holds a
// name, an address or a URL.
//
// # The shape
//
// What people and machines change is one [Ledger] of documents. A [Mirror] has it in memory and follows its audit trail;
// the policy, the list of hosts and the API's own checks read the mirror, never the database. Beside the ledger stand
// files, which the API lists and does not change ([Files]). What changes all the time and decides nothing (uses,
// sightings, certificates) is in neither, so that nothing is loaded again because of it.
//
//	socket, TLS ─▶ who ─▶ may ─▶ resource ─ check ─▶ Ledger.Apply ─▶ Mirror.Sync ─▶ Load ─▶ policy, hosts
//	                                                     ▲                │ every 250 ms
//	                               other gateways ───────┴────────────────┘
//
// # What is not here
//
// Policy, stores and certificates are behind small interfaces and functions that cmd/exitgate fills in. What hosts ask of
// the gateway about themselves is package hostapi.
//
// # The API
//
// openapi.yaml is its description; a test holds routes, members and answers to it. It is served on the admin socket, which
// only the gateway's user (and root) can open, and over TLS to those who present an API token ([Role]).
package web
