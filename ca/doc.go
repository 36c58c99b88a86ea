// Package ca makes the certificates with which the gateway reads TLS: an interception root that hosts are given
// while they are provisioned, an issuer under it that lives for weeks, and leaves under that one which live for
// hours and carry one name each.
//
// # What is promised
//
// A root is made once, at first start, and never again over anything that is there: a folder that lost its root,
// or holds one that is damaged, expired or foreign, stops the start with one line that says which file and what
// to do. A file is the old one or the new one, never part of one, whenever the process dies. Keys are in files
// of mode 0600 in a folder of mode 0700, and anything wider is refused. The key of the root signs issuers, the
// key of an issuer signs leaves, and neither is ever the key of a leaf: that one lives in memory only and goes
// with its issuer.
//
// Domains that must never be read stand in the issuer as excluded name constraints (RFC 5280, section 4.2.1.10),
// so a leaf for one of them, or for a name below it, is refused twice: by [Issuer.Leaf], and by the TLS stack
// of every host, which does not ask the gateway. The list is read back from the issuer itself; when it changes, a
// new issuer is made.
//
// # What is not here
//
// Serving TLS, tickets, and what to do about the upstream's own certificate are the engine's business. Host
// identities come from another root, which hosts do not trust and which never meets this one. There is no
// revocation: a leaf ends within a day, and its key with the process.
//
// # The shape
//
//	root.pem   0600  key and certificate of the root, ten years, path length 1
//	root.crt   0644  its certificate alone, for hosts
//	issuer.pem 0600  key and certificate of the issuer, thirty days, path length 0, servers only, name constraints
//
//	Open ─ lock folder ─ root: read, or make ─ issuer: read, or make when it is due ─┐
//	                                              ▲                                   ▼
//	                                              └── due, or the list changed ── generation ◀── Leaf(name)
//	                                                                                  │ cached, or signed once
//	                                                                                  ▼
//	                                                                     leaf + issuer, key of the generation
//
// One generation is one issuer with its leaf key; it is never changed, and a new one takes its place by one
// atomic store. A leaf remembers the generation that it comes from and is not served under another.
package ca
