// Package pipeline holds the one list of steps that a request and its response pass, in order. It is the place to
// read what the gateway does with a request, and the place to add a step: the program and its tests run the same list.
package pipeline

import (
	"github.com/google/martian/v3"

	"github.com/exitgate/exitgate/inspect"
	"github.com/exitgate/exitgate/mitm"
)

// Options are what the steps need besides the engine.
type Options struct {
	Redact       *inspect.Redactor
	RequestBody  int64 // bytes, where a verdict has no limit; 0: none
	ResponseBody int64 // bytes, where a verdict has no limit; 0: none
}

// Set gives the engine its pipelines.
func Set(gate *mitm.Proxy, o Options) {
	gate.Request = []martian.RequestModifier{
		&inspect.Canonical{Redact: o.Redact},          // one URL, byte for byte what goes upstream, or refused
		&inspect.Authority{},                          // CONNECT, SNI, Host and destination agree, or refused
		&inspect.Loop{Name: gate.Gateway},             // it has not been here before
		&inspect.Headers{Redact: o.Redact},            // the header as policy and record may see it
		gate.Ask(),                                    // the policy allows it
		inspect.NewHopByHop(),                         // what concerned the host's connection stays here
		&inspect.Rewrite{Redact: o.Redact},            // changed as the policy says, behind the host's last word
		gate.Begin(),                                  // the record is begun
		&inspect.Via{Name: gate.Gateway},              // so that a loop is known
		&inspect.RequestMeter{Default: o.RequestBody}, // counted, hashed, held to its limit
	}
	gate.Response = []martian.ResponseModifier{
		&inspect.ResponseFacts{Redact: o.Redact}, // the header as policy and record may see it
		gate.AskResponse(),                       // the policy allows it in
		inspect.NewResponseHopByHop(),            // what concerned the upstream connection stays here
		&inspect.Via{Name: gate.Gateway},         // RFC 9110, section 7.6.3
		&inspect.ResponseMeter{Default: o.ResponseBody, DefaultRequest: o.RequestBody},
	}
}
