package main

import (
	"context"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/web"
)

// openMetrics lists what each part tells of itself when metrics are scraped; flows are counted as they end.
func (g *gateway) openMetrics(context.Context) error {
	m := web.NewMetrics(build(), func(c exitgate.Class) bool { return (*g.classes.Load())[c] })
	m.Gauge("connections_active", "Accepted connections that are open.", func() float64 { return float64(g.proxy.Connections()) })
	m.Gauge("ca_not_after_timestamp_seconds", "When the issuer of leaves ends.", func() float64 { return float64(g.issuer.IssuerNotAfter().Unix()) })
	m.Gauge("ca_root_not_after_timestamp_seconds", "When the root that hosts trust ends.", func() float64 { return float64(g.issuer.RootCertificate().NotAfter.Unix()) })
	g.caMeters(m)
	m.Counter("ca_leaf_issued_total", "Leaves signed.", func() float64 { return float64(g.issuer.Stats().Minted) })
	m.Counter("ca_leaf_cache_hits_total", "Leaves served from memory.", func() float64 { return float64(g.issuer.Stats().Hits) })
	m.Gauge("ca_leaf_cache_entries", "Leaves in memory.", func() float64 { return float64(g.issuer.Stats().Entries) })
	j := g.journal
	m.Gauge("journal_bytes", "Bytes of the journal on disk.", func() float64 { return float64(j.Stats().Bytes) })
	m.Gauge("journal_max_bytes", "Bytes of the journal at which nothing more is carried.", func() float64 { return float64(j.Stats().MaxBytes) })
	m.Gauge("store_queue_depth", "Ended flows that the store has not taken.", func() float64 { return float64(j.Stats().Waiting) })
	m.Gauge("store_oldest_unflushed_seconds", "Age of the oldest ended flow that the store has not taken.", func() float64 {
		if oldest := j.Stats().Oldest; !oldest.IsZero() {
			return time.Since(oldest).Seconds()
		}
		return 0
	})
	m.Counter("store_rows_total", "Flows that the store took.", func() float64 { return float64(j.Stats().Stored) })
	m.Counter("store_errors_total", "Failed writes to the store, each tried again.", func() float64 { return float64(j.Stats().StoreErrors) })
	m.Counter("journal_errors_total", "Failed writes to the journal.", func() float64 { return float64(j.Stats().DiskErrors) })
	m.Counter("journal_refused_total", "Flows that were refused because their record could not be begun.", func() float64 { return float64(j.Stats().Refused) })
	m.Counter("journal_quarantined_total", "Flows that the store cannot take and that were put aside.", func() float64 { return float64(j.Stats().Quarantined) })
	m.Counter("journal_interrupted_total", "Flows that were open when an earlier gateway died.", func() float64 { return float64(j.Stats().Interrupted) })
	m.Gauge("policy_reload_failed", "Whether the last reload failed, so that an older policy is in force: 1 or 0.", func() float64 {
		if g.failed.Load() != nil {
			return 1
		}
		return 0
	})
	m.Reloaded(g.since, nil)
	g.metrics = m
	return nil
}
