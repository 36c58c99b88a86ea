// Package postgres is the store for more than one gateway, and for more flows than one file holds.
//
// # What is promised
//
// What [storage.Store] promises; a write that returned is committed, with the server's synchronous_commit. No error
// and no log line holds the password of the database URL. A query of a person is cut off by the server after
// Options.QueryTimeout, so that a search never stops the record. What is not a flow has connections of its own, and is
// committed to the disk even where the server's synchronous_commit is off.
//
// # How flows get in
//
// A batch is copied (COPY) into a temporary table and from there inserted with ON CONFLICT, in one transaction: the
// temporary table is what makes COPY idempotent. Flows live in one partition for each day of their begin, in UTC, made
// a week ahead by whoever writes, and when a late flow needs one; days that are absurdly far from now go to flows_other, so that
// a wrong clock does not make a thousand tables. Dropping a partition is how a day is forgotten.
//
// # How changes get their numbers
//
// An identity or a sequence gives a number before the commit, so that number 8 may be seen while 7 is still to come: a
// gateway that asks for what is new since 8 would never see 7. Ledger.Apply takes an advisory lock first and holds it until
// its transaction has ended, so that a number is given when every lower one can be seen. Changes of all gateways therefore
// come one after the other, some hundreds a second; reads wait for nothing. A gateway that freezes between the lock and
// the commit is cut off by the server after ten seconds.
//
// # What is not here
//
// Retention, roll-ups, text search indexes: they are made on closed days, not on the day that is written. Nothing here
// stands in the way of Citus or TimescaleDB: the partition key is in the primary key, and there are no foreign keys
// and no sequences on flows.
package postgres
