package storage

import (
	"fmt"
	"io/fs"
	"strings"
)

// Migrations reads the schema changes of a database: the files NNNN_words.sql of fsys, numbered from 0001 without a
// gap. The version of a schema is how many of them were applied; they are only ever added.
func Migrations(fsys fs.FS) ([]string, error) {
	names, err := fs.Glob(fsys, "*.sql") // in lexical order
	if err != nil {
		return nil, err
	}
	var all []string
	for i, name := range names {
		if !strings.HasPrefix(name, fmt.Sprintf("%04d_", i+1)) {
			return nil, fmt.Errorf("migration %s: its number should be %04d", name, i+1)
		}
		b, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		all = append(all, string(b))
	}
	return all, nil
}

// CheckVersion refuses a schema that is newer than this program knows.
func CheckVersion(have, known int) error {
	if have > known {
		return fmt.Errorf("its schema has version %d, and this program knows only up to %d: "+
			"a newer exitgate has used it, so run that one, or restore a backup from before", have, known)
	}
	return nil
}
