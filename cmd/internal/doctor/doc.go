// Package doctor finds out why something does not work: on a host, by comparing what the host sees of a URL with what
// the gateway sees of it ([Host.Examine]), and on a gateway, by looking at everything that it stands on ([Appliance.Check]).
//
// # What is promised
//
// Every step has a bound of five seconds, and one that fails, hangs or panics hides no other: what could be found is
// found, and what could not says why. Nothing is changed, on either side. No request is sent to the destination: the
// host opens a connection as a program would, and the gateway does the same.
//
// A [Report] is the two views, a table of them side by side, and a list of what is wrong in the order in which it should be
// seen to, each with the side that is off and the one thing to do. What is unusual and may be right is marked as a note;
// answers of DNS that differ are no fault by themselves, since large sites answer each resolver differently.
//
// # What is believed
//
// The gateway's view comes over TLS under the identity root that the host was given. When only the clocks disagree, the
// gateway's certificate is checked at a time at which it is valid, because a doctor that needs a good clock cannot find a
// bad one; what is at stake is a view, not access. All else that a host is shown may be hostile (names, certificates,
// answers of proxies): it is bounded here, and whoever prints it makes it printable.
//
// # The shape
//
//	             ┌─ Lookup ──┐
//	Enrolment ───┼─ Ask ─────┼─▶ Views ─▶ rows ─▶ advice
//	             └─ Route, Reach, Probe
//
// The arrows to the left are [Probes], which tests replace one by one.
package doctor
