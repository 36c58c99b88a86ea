// Package trust makes a host trust the gateway, and undoes it: the interception roots go into every trust store that
// is found on the host, the variables of programs that read none of them point at the system's bundle, and the proxy
// settings of the gateway are written where programs look for them.
//
// # What is promised
//
// [Host.Install] makes the host as a [Want] says. What is right already is left alone, so a second run changes
// nothing, and says so; what an earlier run did and is no longer wanted (a retired root) is undone. It is all or
// nothing: a step that fails takes back what the run did before. A file is the old one or the new one, never part of
// one, and keeps its owner and mode.
//
// Before each act stands in the undo record (undo.json in the state directory) what undoes it, so [Host.Remove]
// undoes exactly what was done, also after the process was killed half-way. A file that nobody else touched since
// becomes what it was, byte for byte; in one that was changed since, only our part goes.
//
// What belongs to one user or one Java (a database with a password, a keystore with another password than Java's
// default) can never stop a host from being provisioned: it is skipped, and the report says why. Everything else that
// cannot be written is an error.
//
// Values that come from a gateway (names of proxies) go into files that shells and package managers read. They are
// checked against a narrow alphabet first ([Proxy.Check]); nothing is quoted its way past it.
//
// # What is not here
//
// Whether programs really accept the gateway is tried by [Checker], which looks at no store: it runs them. Getting the
// roots, and an identity, is the business of package enroll. Windows and macOS are command lines ([Foreign]) which were
// never run by us.
//
// # The shape
//
//	Want ─▶ items: files, blocks in shared files, keystores, NSS databases, units
//	          │ each: is it so? ── yes ──▶ nothing
//	          ▼ no
//	        record what undoes it ─▶ do it ─▶ hooks (update-ca-certificates, systemctl daemon-reload) ─▶ verify the bundle
//	          └── any error: take back what this run did
//
// Everything lies below a root directory, "/" unless tests or image builders say otherwise; symbolic links are followed
// inside it, and commands run in it.
package trust
