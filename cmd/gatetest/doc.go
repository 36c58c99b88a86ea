// Package gatetest runs the whole engine inside a test: the real pipeline between real sockets, with a policy
// that is a function, a recorder that is a list, and origins on loopback under names of example.com.
//
// It promises that what it starts ends with the test, and it fails the test when a law of the record is broken:
// a flow that ends twice, never, or without having begun. It leaves out the policy engine, the store and the CA
// of the product, so that its tests are built and run in seconds; those have their own, and meet the engine in
// the tests of cmd/exitgate.
package gatetest
