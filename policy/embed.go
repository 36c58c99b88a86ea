package policy

import (
	"bytes"
	"embed"
)

// base holds the policy that is shipped, with its tests.
//
//go:embed rego/*.rego
var base embed.FS

//go:embed rego/schema/input.json
var inputSchema []byte

// InputSchema returns the JSON Schema (draft 07) of input, the document that rules look at. Metadata names it
// schema.input, and WriteExample puts it where editors look for that.
func InputSchema() []byte { return bytes.Clone(inputSchema) }

// baseDir is how the files of the base policy are named in rules and errors.
const baseDir = "base/"
