// Package enrolltest is a gateway's enrolment listener for tests of the host's side, and a proxy that intercepts every
// name, so that what was enrolled can be tried by real programs. Signing, renewal and roots are the identity authority's own;
// tokens and registrations are in memory. It binds to loopback, and can be told to fail at any route.
package enrolltest
