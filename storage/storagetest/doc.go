// Package storagetest is what every store is tested with: one suite, the flows that it uses, and benchmarks that can be
// compared. A store's own test is five lines:
//
//	func TestStore(t *testing.T) {
//		storagetest.Test(t, func(t *testing.T) storage.Store { return openEmptyStore(t) })
//	}
//
// It promises that a store which passes keeps what package storage says of stores: fidelity, idempotence, order, the
// same answers to queries as [storage.Filter.Match], and no harm from hostile values.
package storagetest
