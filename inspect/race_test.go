//go:build race

package inspect

// allocBudget leaves room for sync.Pool, which forgets at random under the race detector.
const allocBudget = 45
