package main

import (
	"github.com/exitgate/exitgate/ca"
	"github.com/exitgate/exitgate/inspect"
	"github.com/exitgate/exitgate/mitm"
	"github.com/exitgate/exitgate/policy"
	"github.com/exitgate/exitgate/storage/journal"
	"github.com/exitgate/exitgate/web"
)

// Each part satisfies its seam.
var (
	_ mitm.Decider    = (*policy.Engine)(nil)
	_ mitm.Issuer     = (*ca.Issuer)(nil)
	_ mitm.Recorder   = (*journal.Journal)(nil)
	_ mitm.Identifier = (*mitm.Hosts)(nil)
	_ mitm.Screen     = (*inspect.Screen)(nil)
	_ mitm.Resolver   = connectTo(nil)

	_ web.Recorder = (*journal.Journal)(nil)
	_ web.Flows    = flowFinder{}
)
