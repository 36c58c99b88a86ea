//go:build !race

package inspect

// allocBudget is what the request steps may allocate for a usual GET.
const allocBudget = 25
