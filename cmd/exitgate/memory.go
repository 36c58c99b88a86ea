package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// garbageFloor is how much garbage may lie before it is collected, however little is alive. Go's rule (as much
// garbage as there is alive) makes a gateway with few connections and many requests collect all the time: with a
// heap of 15 MB alive it costs it a tenth of its CPU.
const garbageFloor = 64 << 20

// tendMemory holds the garbage collector to the floor while requests come, and gives the memory back to the
// system when they do not. It runs until ctx ends.
func tendMemory(ctx context.Context) {
	const every = time.Second
	tick := time.NewTicker(every)
	defer tick.Stop()
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	var allocated uint64
	quiet := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(sample)
		live, total := sample[0].Value.Uint64(), sample[1].Value.Uint64()
		debug.SetGCPercent(garbagePercent(live))
		if total-allocated > 4<<20 {
			quiet = 0
		} else if quiet++; quiet == 3 {
			debug.FreeOSMemory()
		}
		allocated = total
	}
}

// garbagePercent is the collector's percentage at which garbage reaches the floor, or what is alive, whichever is
// more.
func garbagePercent(live uint64) int {
	live = max(live, 1<<20)
	return int(max(100, garbageFloor*100/live))
}
