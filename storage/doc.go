// Package storage keeps what the gateway must not lose: the record of every crossing, and all that people and machines
// changed while it ran, with who changed it and why.
//
// # What is promised
//
// Durability. A call that writes and returned nil survives the death of the process and of the database server;
// how far it survives the death of the machine is the database's own promise (Postgres: synchronous_commit;
// sqlite: see its package). A call that returned an error may or may not have been done; doing it again is
// always safe, because a flow is found again by its id.
//
// Consistency. What a write returned nil for is seen by every read that starts later, in every process that uses
// the same store. A flow has one row. Its ended version replaces its open one, whatever the order in which they
// arrive, and nothing replaces an ended version. WriteRows is one transaction: all of a batch or none of it.
//
// Fidelity. A flow comes back equal in every field, to the nanosecond and in UTC, with one exception: a byte that is not
// UTF-8 comes back as U+FFFD, as encoding/json has it. The byte itself is kept in the stored JSON, as the lone surrogate
// \udcHH (the convention of PEP 383), so that the evidence is complete. No value of a flow can make its row, or a
// neighbour's, fail.
//
// # What changes at run time
//
// A [Ledger] holds documents: grants, exemptions, classes, hosts, tokens, requests. The store does not know what they
// mean; it knows a kind, an id, a version and JSON. Each change is numbered, and the number is three things at once: the
// line of the audit trail, the version of the document, and the revision that gateways poll for. Who sees a number sees
// all that came before it, so that a gateway follows the changes of all the others by asking for what is new:
//
//	seen ◀─ Revision              cheap, a few times a second
//	news ◀─ Audit{After: have}    which documents were changed, each in the order of its number
//	each ◀─ Document              as it is now, or ErrNotFound
//
// Two that change the same document never undo each other's work unseen: an edit says which version it was made from.
// [Update] does that for a document that is read as a Go value.
//
// Secrets are not for documents: the audit trail keeps every value and cannot forget. Their hashes may be there.
//
// [Uses] count what was used, and when last. They change all the time and nobody decided them, so they are not audited
// and raise no revision. [KV] is for what must be decided once among all gateways, in the words of who needs it: the
// certificate authority keeps the tokens that it has seen there.
//
// # The shape of a row
//
// Two columns hold the flow: question, the exact JSON of what was judged, and record, the JSON of everything else.
// Every other column is a copy to search by, see [Columns]: cut to a length, times in microseconds, and with
// control characters and bytes that are not UTF-8 written as \xHH, so that a row can be shown on a terminal.
//
// # What is not here
//
// The bodies of requests (nobody stores them), the decision what a flow means, retention, and rendering.
// A store does not buffer and does not retry: package journal stands between the engine and a store, so that the
// data path never waits for a database.
//
//	engine ─ Begin, End ─▶ journal (disk) ─ batches ─▶ Store ◀─ Flows, Flow ─ console, command line
//	                          └─ Tail ─▶ flows --follow  ▲ ▲
//	administrative API, enrolment ─ Apply, Documents ────┘ │
//	certificate authority ─ KV ────────────────────────────┘
package storage
