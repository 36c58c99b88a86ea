// Package enrolltest is a gateway's enrolment listener for tests of the host's side, and a proxy that intercepts every
// name, so that what was enrolled can be tried by real programs. It keeps to the routes and answers of the real listener,
// holds everything in memory, binds to loopback, and can be told to fail at any route.
package enrolltest
