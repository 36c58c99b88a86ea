package policy

import "embed"

// base holds the policy that is shipped, with its tests.
//
//go:embed rego/*.rego
var base embed.FS

//go:embed rego/schema/input.json
var inputSchema []byte

// baseDir is how the files of the base policy are named in rules and errors.
const baseDir = "base/"
