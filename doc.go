// Package exitgate holds the nouns of the gateway: what every other room means when it says host, class,
// destination, grant, question, verdict, flow, refusal or fault.
//
// # What is promised here
//
// One word has one meaning. The JSON names of the types in this package are the names that a policy reads in
// Rego input, that a column carries in the store, that a key carries in the log and that the console shows.
// The zero value of a [Verdict] refuses. A [Question] holds everything that a policy may look at and nothing
// that it may not (secrets enter it only as fingerprints), so that a stored question can be asked again later,
// of any policy, with the same answer.
//
// # What is not here
//
// No I/O, no goroutines, no dependency outside the standard library, and no behaviour beyond a type's own
// value. The rooms (mitm, inspect, policy, ca, storage, web) import this package and never one another; only
// cmd/exitgate joins them.
//
//	cmd ──▶ mitm  ca  inspect  policy  storage  web
//	          └─────┴──────┴───────┴───────┴──────┴──▶ exitgate
//
// # The life of a question
//
// A connection is accepted and its [Host] is identified. What the host wants becomes a [Question]; a policy
// answers with a [Verdict]; the crossing, carried or refused, is a [Flow]. While a request passes through the
// pipeline it travels in an [Exchange], which modifiers find with [ExchangeOf].
package exitgate
