// Package storage keeps what the gateway must not lose: the record of every crossing, and the grants and
// exemptions that were made while it ran, with who made them and why.
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
//	                          └─ Tail ─▶ flows --follow
package storage
