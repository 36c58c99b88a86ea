// Package web serves what people and machines ask of a running gateway: the administrative JSON API, the metrics,
// and whether it is alive and ready.
//
// # What is promised
//
// A change that the API answered with success holds from the next request on: it was checked, written to the store
// and loaded into the policy, in this order, and when one of them fails nothing has changed. Who made it is the user
// of the connecting process as the kernel says it, never what the client says of itself. A body is read strictly:
// unknown members, a second value, or more than [MaxBody] bytes are errors. Every error is a problem document
// (RFC 9457) whose detail says what was attempted, on what and why it failed.
//
// The metrics have a bounded number of series: a class that no configuration names counts as "other", and no label
// ever holds a name, an address or a URL.
//
// # What is not here
//
// Policy, stores and certificates are behind small interfaces and functions that cmd/exitgate fills in. There is no
// authentication of its own: the API listens on a Unix socket that only the gateway's user (and root) can open.
//
// # The API
//
// All paths begin with /v1. Lists are JSON arrays; a stream is one JSON value on each line.
//
//	GET    /v1/status
//	POST   /v1/reload
//	GET    /v1/grants          POST /v1/grants          DELETE /v1/grants/{id}?reason=
//	GET    /v1/exemptions      POST /v1/exemptions      DELETE /v1/exemptions/{id}?reason=
//	GET    /v1/flows?query=&limit=&before=              newest first
//	GET    /v1/flows?query=&follow=true                 as they end, until the client leaves
//	GET    /v1/flows/{id}
//	POST   /v1/explain         {"flow": ID} or {"host" or "class", "method", "url"}
//	GET    /v1/audit?limit=                             newest first
//
// Explain answers in plain text when the client accepts only that.
package web
