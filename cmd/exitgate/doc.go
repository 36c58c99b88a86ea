// Exitgate is the gateway and everything that operates it, in one binary: run starts it, the other verbs talk to the
// running one through its admin socket, or work on files.
//
// Only this command joins the rooms. Gateway.go opens the parts in the order in which they need each other and
// closes them in the opposite order; pipeline.go holds the one list of the steps that requests and responses pass;
// seams.go states once that each part fits its seam. There is one file for each verb.
//
// # What is promised
//
// A start that fails says in one line what, where and why, exits with 1 and leaves nothing half-written. A reload
// that fails changes nothing. A change that a verb reports holds from the next request on. What is printed for
// people never passes on control characters that a host or an upstream sent.
//
// # Exit codes
//
//	0  done
//	1  it failed, and standard error says why
//	2  the command line is wrong
package main
