// Package enroll is the host's side of enrolment: with the address of a gateway, the fingerprint of its identity root
// and a one-time token, a host comes to trust the gateway, has an identity certificate with its class, knows its proxy,
// and keeps all of that fresh; and it can undo it. It also has what a gateway serves for that: the scripts that fetch
// this program, the command that people paste, and proxy auto-configuration.
//
// # What is promised
//
// [Host.Enroll] is all or nothing: after an error the host is as it was. What is bound to fail (no root rights, no trust
// store, a host that is enrolled elsewhere) is found before the token is used up. A second run changes nothing, needs no
// token, and says so. [Host.Renew] is what the timer runs: it renews the identity when half of its life is over, and takes
// up roots that came and drops those that went. [Host.Leave] undoes everything, whether the gateway answers or not.
//
// Nothing is believed that was not checked: the first answer of the gateway, its identity root, is compared with the
// fingerprint, and everything else goes over TLS under that root. Nothing the gateway says is run, and what it says goes
// into files only if it is of a narrow form (see package trust).
//
// The token goes into one request body, after the gateway was checked. The key is made here and never leaves. Neither
// is ever in a URL, a log, the arguments of a program, or the environment of one that is started.
//
// # Why not smallstep's client
//
// Signing and renewing are two small JSON requests of smallstep's API. Its Go client brings some eighty modules, reads
// configuration from the user's home, and lets the token choose where to connect; this package uses the standard
// library, and works against the same API.
//
// # The shape
//
//	GET /root/F ─ compare ─▶ TLS under that root ─▶ POST /enroll/v1/token ─▶ key, CSR ─▶ POST /1.0/sign
//	   ─▶ GET /trust/roots.pem ─▶ trust.Install: stores, proxy, host.json, timer ─▶ POST /enroll/v1/register
//
// What is kept: /etc/exitgate/host.json (for all to read), and in /var/lib/exitgate-host, for root only, identity.key,
// identity.crt, root.crt and the undo record.
package enroll
