// Package storagetest is what every store is tested with: one suite, the flows that it uses, and benchmarks that can be
// compared. A store's own test is five lines:
//
//	func TestStore(t *testing.T) {
//		storagetest.Test(t, func(t *testing.T) storage.Store { return openEmptyStore(t) })
//	}
//
// and as many for [TestShared], which opens one database twice. They promise that a store which passes keeps what package
// storage says of stores: fidelity, idempotence, order, the same answers to queries as [storage.Filter.Match], one winner
// where only one may win, no change that is skipped by who follows them, and no harm from hostile values.
package storagetest
