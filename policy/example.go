package policy

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

//go:embed example
var example embed.FS

// WriteExample writes a commented policy directory, which grants nothing, into dir, making it (0700) where it is
// missing. A file that exists is left as it is.
func WriteExample(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the policy directory: %w", err)
	}
	files, err := fs.ReadDir(example, "example")
	if err != nil {
		return err
	}
	for _, f := range files {
		b, err := example.ReadFile("example/" + f.Name())
		if err != nil {
			return err
		}
		if err := writeNew(filepath.Join(dir, f.Name()), b); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("write the example of a policy: %w", err)
		}
	}
	return WriteSchema(dir)
}

// WriteSchema writes the schema of input to schemas/input.json below dir, over one of another version: OPA ("opa check
// -s schemas") and editors know it from there as schema.input.
func WriteSchema(dir string) error {
	name := filepath.Join(dir, "schemas", "input.json")
	if b, err := os.ReadFile(name); err == nil && bytes.Equal(b, inputSchema) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("write the schema of input: %w", err)
	}
	if err := os.WriteFile(name, inputSchema, 0o600); err != nil {
		return fmt.Errorf("write the schema of input: %w", err)
	}
	return nil
}

// writeNew writes a file that does not exist yet, whole or not at all.
func writeNew(name string, b []byte) (err error) {
	if _, err := os.Lstat(name); err == nil {
		return fs.ErrExist
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	defer func() { os.Remove(f.Name()) }()
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), name) // never over a file that came in between
}
