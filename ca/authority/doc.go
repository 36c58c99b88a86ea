// Package authority is the identity authority: smallstep's, embedded, with what the gateway must be able to rely on
// put around it. It gives hosts certificates that say which host they are and of which class, renews them, takes them
// back, and says who presented one.
//
// # What is promised
//
// The identity root is not the interception root, has a folder of its own, and signs nothing for servers but the
// gateway's own listeners and, when ACME is on, those of hosts. The rules of keydir hold for the folder; keys may be
// encrypted, or be elsewhere, by KMS URI; the root's key may be away for as long as the issuer lives.
//
// An identity is given for a one-time token that this gateway signed, and for no more than one request, on
// however many gateways, as long as the [KV] compares and swaps as it says. Its name and class come from the token
// alone; the request contributes its key. It lives for hours, and its end is the usual way in which it stops: whether
// the host is still allowed one ([Options.Allowed]) is asked when it is signed, when it is renewed, and at each
// connection, so a host that is disabled is out at once, whatever it had renewed before. Revoking a serial ends that
// certificate only.
//
// Whatever cannot be known refuses: a store that does not answer, a root that ended, a class that cannot be read. The
// one exception is bounded: a host that was known to be good goes on for five minutes while the store is away.
// Each refusal is one line that says what is wrong and what to do, also over smallstep's protocol.
//
// # What is not here
//
// Listeners, the enrolment protocol that hands out tokens, the list of hosts and classes, and everything about the
// interception root. The certificates of hosts are not revoked by OCSP; the list at /crl is signed by the issuer in force,
// so it is a courtesy to others during a rotation, and the gateway itself does not read it.
//
// # The shape
//
//	root.pem   0600  key and certificate of the root, ten years, path length 2; may be kept elsewhere
//	root.crt   0644  its certificate alone
//	issuer.pem 0600  key and certificate of the issuer, 90 days, path length 0
//	tokens.pem 0600  key of one-time tokens
//	next-*           during a rotation: the root and issuer in force, and next-cross.crt, the root as the old one signed it
//
//	Open ─ folder ─▶ material ─▶ generation (smallstep's authority, its provisioners, pool of roots)
//	                    ▲              │
//	  Rotate, Finish ───┘              ├─▶ Handler: sign, renew, rekey, revoke (ours), roots, crl, acme
//	                                   ├─▶ ServerCertificate, TLSConfig
//	                                   └─▶ Identify: chain ─ verified once ─ in time? ─ revoked? ─ allowed?
//
// A generation is never changed; a rotation, or an issuer that was due, puts another in its place by one atomic store.
package authority
