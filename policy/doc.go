// Package policy answers questions: may this host reach that destination, may this request go out, may this
// response come in. The answer comes from Rego, evaluated by OPA as a library; the data are grants and exemptions.
//
// # What is promised
//
// It fails closed. A policy that does not compile, evaluates to nothing, runs into an error, a panic or its
// deadline refuses, and a reload that fails leaves the last good revision in place. A deny wins over any grant and
// any exemption. What is answered depends on the question and on the revision alone: builtins that reach outside
// or read the clock are not available, and time enters as input.at. So a stored question can be asked again, and
// answers can be kept.
//
// # What is not here
//
// No network, no store: grants that live in the store are handed in as [Data], and whoever changed them calls
// [Engine.Reload]. What the gateway refuses by its own laws (malformed requests, names that do not agree,
// addresses that may not be dialled) is the business of mitm and inspect, and no policy can allow it.
//
// # How a question becomes a verdict
//
//	            policy directory          store
//	          *.rego   *.yaml               │
//	base ────────┴──▶ compile ◀── table ◀───┘          New, Reload: a new revision, swapped in at once
//	                     │
//	question ─▶ site ─▶ key ─▶ kept? ──────────────▶ answer ─▶ verdict
//	                     │                            ▲
//	                     └──▶ input ─▶ deny, grants, exemptions, rewrite
//
// A site is what is known of one class (or host) at one destination: which grants could apply. The key holds
// everything that the compiled policy can read of the question: for the rules of the policy directory that is
// found by walking them for references to input, and for the base policy it is less, because of a path, of
// headers and of the time it only matters which conditions of the site's grants they meet. Two questions with one
// key have one answer, so it is kept.
//
// The sets combine in Go: a reason to deny refuses; else, at connect, an exemption splices; else a grant allows;
// else nothing was granted, and that refuses. A response needs no grant of its own: it is carried unless denied.
// A request that is carried is changed by every element of rewrite, in the order of their text.
// Where several grants allow, limits come from the most specific one: see [Engine.Decide].
package policy
