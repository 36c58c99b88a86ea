package sqlite

import (
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/exitgate/exitgate/storage"
)

// Version returns the version of the schema that the database in the file at path has, and the one that Open would bring
// it to. It reads the file's header (sqlite.org/fileformat2.html, section 1.3) and nothing else: it opens no database, so
// that it leaves no files behind and waits for nobody. What is only in the log of a gateway that died is not seen.
func Version(path string) (have, known int, err error) {
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
	return have, known, storage.CheckVersion(have, known)
}
