package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/exitgate/exitgate/storage"
)

// Version returns the version of the schema that the database in the file at path has, and the one that Open would bring
// it to. Where there is no log beside it, it reads the file's header (sqlite.org/fileformat2.html, section 1.3) and opens
// no database, so that it leaves no files behind; else the version may be in the log alone, and is asked for.
func Version(ctx context.Context, path string) (have, known int, err error) {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return 0, 0, err
	}
	all, err := storage.Migrations(dir)
	if err != nil {
		return 0, 0, err
	}
	known = len(all)
	f, err := os.Open(path)
	if err != nil {
		return 0, known, err
	}
	defer f.Close()
	head := make([]byte, 100)
	if n, err := io.ReadFull(f, head); n == 0 && err == io.EOF {
		return 0, known, nil // made, and not yet written to
	} else if err != nil || !strings.HasPrefix(string(head), "SQLite format 3\x00") {
		return 0, known, fmt.Errorf("%s is not an SQLite database", path)
	}
	have = int(int32(binary.BigEndian.Uint32(head[60:])))
	if st, err := os.Stat(path + "-wal"); err == nil && st.Size() > 0 {
		if have, err = versionInLog(ctx, path); err != nil {
			return 0, known, fmt.Errorf("ask the SQLite store %s: %w", path, err)
		}
	}
	return have, known, storage.CheckVersion(have, known)
}

func versionInLog(ctx context.Context, path string) (have int, err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return 0, err
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: abs, RawQuery: "mode=ro&_pragma=busy_timeout(2000)"}).String())
	if err != nil {
		return 0, err
	}
	defer db.Close()
	err = db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have)
	return have, err
}
