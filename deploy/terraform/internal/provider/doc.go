// Package provider makes classes, hosts, host tokens, grants and exemptions of a gateway into Terraform resources, and
// what hosts have to trust and to set into data sources.
//
// # What is promised
//
// After an apply, a plan is empty. The gateway brings what it is told into one form (sorted ranges, names in lower case,
// times in UTC), and the state keeps the words of the configuration: beside it, in Terraform's private state, stands the
// form that the gateway gave back, and only what differs from that form is a change that somebody else made. So the
// provider knows nothing of the gateway's forms, and a newer gateway may have others.
//
// A change that somebody made elsewhere shows in the next plan, and an entry that was removed elsewhere is planned anew.
// An update never makes what was removed meanwhile. What the configuration leaves out and the gateway sets (the
// addresses that a host registers itself, an id, the end of a token) is read and left alone.
//
// Every error carries what the gateway said. What can be told without the gateway is told by validate.
//
// # How it is built
//
// The resources differ only in their attributes: each is an [entry], which has the life of all of them, with a model
// (the attributes), a noun of package api (what is sent), and the two functions between them.
package provider
