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
// new issuer is made. A list of domains that alone are read works alike, the other way round.
//
// # Rotation
//
// A root is followed by the next without a host that is left behind. [Issuer.Rotate] makes the next root and publishes
// it beside the current one; [Issuer.Switch], or the end of an overlap that was set, lets leaves chain to it;
// [Issuer.Finish] retires the old one, which stays known for ever ([Issuer.IsOwn]). From the switch on leaves carry a
// bridge, the new root's certificate signed by the old root, by which hosts that know only that one accept them.
//
//	steady ──Rotate──▶ overlap ──Switch──▶ leaving ──Finish──▶ steady
//	   ▲                  │
//	   └──────Cancel──────┘
//
// One file, rotation.json, says where a rotation stands, with both roots and the bridge in it: its writing begins the
// rotation and is the switch. A root in past.crt that it still names is one whose end was begun: the next start
// completes it. So a process that dies in a step has done it or not, and nobody has to mend anything.
//
// # Where keys are
//
// A file of the folder holds a key, which a passphrase may encrypt, or the URI of a key in an HSM or TPM. Of a root
// that is offline the folder holds root.crt alone: issuers come by [Request], [SignIssuer] where the root's key is, and
// [Install]. What waits for a person is said weeks ahead, in the log and by [Issuer.State].
//
// # What is not here
//
// Serving TLS, tickets, and what to do about the upstream's own certificate are the engine's business. Host
// identities come from another root, which hosts do not trust and which never meets this one. There is no
// revocation: a leaf ends within a day, and its key with the process.
//
// # The shape
//
//	root.pem         0600  key and certificate of the root, ten years, path length 2: a bridge, an issuer, a leaf
//	root.crt         0644  its certificate alone
//	roots.crt        0644  the certificates of all roots that hosts should trust now: what hosts are given
//	issuer.pem       0600  key and certificate of the issuer, thirty days, path length 0, servers only, name constraints
//	rotation.json    0600  the rotation that is under way
//	next.pem         0600  key and certificate of the next root, until Finish makes it root.pem
//	next-issuer.pem  0600  an issuer under the next root that was installed ahead of the switch
//	request.pem      0600  the key of an issuer that was asked for
//	past.crt         0644  the certificates of roots that were retired or taken back
//
//	Open ─ lock folder ─ roots: read, or make; switch when due ─ issuer: read, or make when it is due ─┐
//	                                              ▲                                                     ▼
//	                                              └── due, a step, or the list changed ── generation ◀── Leaf(name)
//	                                                                                  │ cached, or signed once
//	                                                                                  ▼
//	                                                          leaf + issuer (+ bridge), key of the generation
//
// One generation is one issuer with its leaf key, under what the folder said of roots; it is never changed, and a new one takes its place by one
// atomic store. A leaf remembers the generation that it comes from and is not served under another.
package ca
