// Package keydir keeps the keys of a certificate authority in a folder of files.
//
// # What is promised
//
// Others than the owner may neither enter the folder (mode 0700) nor read a file with a key (mode 0600); what is
// wider is refused, with the command that mends it. A file is the old one or the new one, never part of one,
// whenever the process or the machine dies. Two processes that open one folder take turns. A key and the
// certificate that certifies it are in one file, a [Pair], so that they can never be of two minds; the key may be
// encrypted with a passphrase.
//
// # What is not here
//
// What the files are called, what a certificate in them must be, and when a key is made: that is the business of the
// packages that own a folder.
//
//	Dir.Open ─ make, refuse or lock ─ Read, ReadPair, Write, WritePair ─ unlock
package keydir
