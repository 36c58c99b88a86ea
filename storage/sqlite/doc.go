// Package sqlite is the store that needs nothing installed: one file, beside its write-ahead log.
//
// # What is promised
//
// What [storage.Store] promises. A write that returned has been synced to the disk (synchronous=FULL), so that it
// survives the death of the machine, as far as the disk tells the truth.
//
// # What is not
//
// One gateway process writes; others may read the file meanwhile. It is made for one machine: up to some ten thousand
// flows a second and some ten million rows. Beyond that use Postgres.
//
// # Two kinds of column
//
// Binding sixty values a row would cost more than all else that a flow costs. So the table flow has the columns that a
// query can name, and the view flows has every column of [storage.Columns], computed from the record when somebody
// reads it, as it stands there (not cut, control characters unescaped, address and port together). Read the view.
//
// One connection writes, since SQLite has one writer anyway and waiting in Go is fair and can be cancelled; a few others
// read, and neither waits for the other (WAL). Every transaction that writes takes the file's lock first, so that what it
// reads cannot change before it ends: it is what makes versions, numbers of changes and compare-and-swap hold, between
// processes as well.
package sqlite
