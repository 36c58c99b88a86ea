// Package hostapi serves what hosts ask of the gateway about themselves, as JSON below /enroll/v1/ of the enrolment
// listener: to be enrolled, to register their addresses, to ask for access, to see a URL as the gateway sees it.
//
// # What is promised
//
// A host is who its identity certificate says, and only while it is registered, enabled and of the class that the
// certificate names; each request asks anew. What a host says of itself never gives it another name or class. A token
// enrols as often as it says and not once more, whichever gateways are asked at the same time. Nothing is looked up
// or dialled for a host that the policy would not carry for it.
//
// Every source address may ask a bounded number of times, and fail a smaller one. A token or a key is in bodies only:
// never in a URL, an error or a log.
//
// # What is not here
//
// Certificates (the authority signs them, with the one-time token that Enrol returns), TLS (the listener is
// cmd/exitgate's), and what a host does with what it gets.
//
//	host ─ token ─▶ POST token ─ one-time token ─▶ authority /1.0/sign
//	host ─ certificate ─▶ POST register, POST leave, POST requests, GET requests/{id}, GET view
package hostapi
