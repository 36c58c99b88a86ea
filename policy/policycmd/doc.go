// Package policycmd is the command "policy": what a person does with a policy directory before a gateway loads it.
//
// check and test are the gateway's own: they load the directory exactly as a gateway does, with the base policy,
// the same builtins and the same schema of input, so that what they accept is what a gateway accepts. fmt and eval
// are OPA's, as they are. The package stands apart from policy because OPA's commands bring its whole server with
// them, which no test of a decision should have to link.
package policycmd
