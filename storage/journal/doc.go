// Package journal stands between the engine and a store: it makes the record of a flow durable before the flow's
// first byte leaves, without the data path ever waiting for a database.
//
// # What is promised
//
// Begin returns after the flow was written to a file, so that it survives the death of the process (kill -9, a panic, the
// out-of-memory killer). It survives the death of the machine once it was synced: within Options.SyncEvery (100 ms), or
// before Begin returns with Options.Sync. Every flow that Begin accepted reaches the store with exactly one end: its own,
// or, after a death of the process, one that says Interrupted. While the store is down, hung or slow, flows
// wait on the disk, up to Options.MaxBytes; then Begin refuses, with an error that names the cause, and so the engine
// carries nothing that it could not account for.
//
// The store sees each flow once in steady state, and possibly again after a crash; [storage.FlowWriter] is idempotent.
//
// # What is asked
//
// Between Begin and End, what the TLS and the HTTP of the question point to is not changed: End compares the pointers and
// not what they point to, and writes the subject of the question (host, destination, TLS, HTTP header) again only if one
// of them is another, or if host or destination are. A request that did change is a new Request.
//
// After End returned, nothing that the flow points to (its maps, slices, request, response) is changed any more by
// anybody: tails are handed the flow as it is.
//
// # The files
//
// A folder (0700) belongs to one process at a time (a lock file). Segments, 0000000000000001.journal and on (0600), are
// only ever appended to, and given up oldest first. A segment is a row of frames, see frame.go: a Begin frame holds the
// flow as it began; an End frame holds it as it ended, without the subject of its question when that is what it was but
// for the address that was dialled, and says where the Begin frame is. The file cursor says up to where every End
// has been stored; it is a hint, and losing it means that some flows are stored twice over. What cannot be read is kept in
// the folder quarantine and reported, and its neighbours are not affected.
//
// A file whose segment has been stored becomes a spare, and the next segment is written over it: its pages are in memory
// and its blocks on the disk, which halves the cost of a write and of a sync. Each frame says which segment it was
// written to, so that what is left of a file's earlier life is never read. An eighth of MaxBytes is kept so.
//
//	Begin, End ─▶ segment files ─▶ drainer: decodes, encodes rows, retries for ever ─▶ store
//	     └──────▶ tails, bounded, dropping
//
// There is one way from the disk to the store, in steady state and after a crash. A flow that stays open pins its
// segment; when nothing else does, its Begin frame is copied forward.
package journal
