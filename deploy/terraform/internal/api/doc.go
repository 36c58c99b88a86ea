// Package api speaks to the API of a gateway for the Terraform provider.
//
// # What is promised
//
// The token is sent only over TLS, only to a server that shows a certificate for the endpoint's name, and never
// follows a redirect; no error holds it. An error is what the gateway said, in its own words (the detail of its
// problem document), as a [*Problem] whose status tells what kind it is, or says which step towards the gateway failed.
//
// A request that the gateway could not take (429, 503) or that never reached it is sent again, at most [tries] times in
// all, after the time that the gateway names or else twice as long as the time before. Entries have ids that the
// provider chose before it asked, so that a request that was carried out although its answer was lost ends as an error
// that names the entry, not as a second entry that nobody knows of.
package api
