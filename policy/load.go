package policy

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/exitgate/exitgate"
)

// Data is what a policy is told by the store and the configuration.
type Data struct {
	Grants     []exitgate.Grant
	Exemptions []exitgate.Exemption
	// AuditClasses are carried where policy would refuse them, and recorded as such.
	AuditClasses []exitgate.Class
}

// bounds of a policy directory: what is larger is a mistake in the path.
const (
	maxFile  = 64 << 20
	maxFiles = 10_000
)

// A file is one input of a revision.
type file struct {
	name string // slash-separated, relative to the policy directory, or below baseDir
	text []byte
}

// sources is all that a revision is made of.
type sources struct {
	files      []file // all, as they were read
	rego       []file // base and directory, tests left out
	tests      []file
	grants     []exitgate.Grant
	exemptions []exitgate.Exemption
	audit      []exitgate.Class
	data       map[string]any // data.yaml or data.json
	dropped    []error        // grants and exemptions of the store that are not valid (any more)
	lists      []run          // what the revision is made of beside the files
	revision   string
	last       *table // of the revision before, whose checked grants are checked; nil: none
}

// load reads the base policy (base, where it is not nil, instead of the one that is shipped), the directory (unless
// it is "") and data.
func load(dir string, d Data, base []file) (*sources, error) { return loadAfter(nil, dir, d, base) }

// loadAfter is load after a revision whose table was last: what has not changed is not worked out again.
func loadAfter(last *table, dir string, d Data, base []file) (*sources, error) {
	s := &sources{audit: slices.Clone(d.AuditClasses), last: last}
	files, err := base, error(nil)
	if base == nil {
		files, err = baseFiles()
	}
	if err != nil {
		return nil, err
	}
	if dir != "" {
		own, err := readDir(dir)
		if err != nil {
			return nil, fmt.Errorf("read the policy directory: %w", err)
		}
		files = append(files, own...)
	}
	s.files = files
	for _, f := range files {
		if err := s.take(f); err != nil {
			return nil, err
		}
	}
	s.fromStore(d)
	slices.Sort(s.audit)
	return s, s.sum()
}

func baseFiles() ([]file, error) {
	var out []file
	names, err := fs.Glob(base, "rego/*.rego")
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		b, err := base.ReadFile(n)
		if err != nil {
			return nil, err
		}
		out = append(out, file{baseDir + path.Base(n), b})
	}
	return out, nil
}

// readDir reads what a policy directory holds: every .rego below it, and the lists and data at its top. Names that
// start with a dot are left out. A file may be a symbolic link, as in a mounted volume.
func readDir(dir string) ([]file, error) {
	var out []file
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	err := filepath.WalkDir(dir, func(full string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, full)
		name = filepath.ToSlash(name)
		switch {
		case err != nil || name == ".":
			return err
		case strings.HasPrefix(d.Name(), ".") && d.IsDir():
			return fs.SkipDir
		case d.IsDir() || strings.HasPrefix(d.Name(), ".") || !isPolicyFile(name):
			return nil
		case strings.HasPrefix(name, baseDir):
			return fmt.Errorf("%s: files below %s are the shipped policy's; name the folder otherwise", full, baseDir)
		case len(out) == maxFiles:
			return fmt.Errorf("%s: it has more than %d files", dir, maxFiles)
		}
		b, err := readFile(full)
		out = append(out, file{name, b})
		return err
	})
	return out, err
}

func isPolicyFile(name string) bool {
	switch name {
	case "grants.yaml", "exemptions.yaml", "data.yaml", "data.json":
		return true
	}
	return strings.HasSuffix(name, ".rego")
}

func readFile(name string) ([]byte, error) {
	st, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s: it is no regular file", name)
	case st.Size() > maxFile:
		return nil, fmt.Errorf("%s: it has %d bytes, more than %d", name, st.Size(), maxFile)
	}
	return os.ReadFile(name)
}

func (s *sources) take(f file) (err error) {
	switch {
	case strings.HasSuffix(f.name, "_test.rego"):
		s.tests = append(s.tests, f)
	case strings.HasSuffix(f.name, ".rego"):
		s.rego = append(s.rego, f)
	case f.name == "grants.yaml":
		s.grants, err = readGrants(f)
	case f.name == "exemptions.yaml":
		s.exemptions, err = readExemptions(f)
	default:
		err = s.readData(f)
	}
	return err
}

// fromStore adds what the store holds. What is not valid there (any more: the list of public suffixes grows) is left out and reported,
// because it must not keep the gateway from starting; a grant less refuses more.
func (s *sources) fromStore(d Data) {
	s.grants = slices.Grow(s.grants, len(d.Grants))
	for _, g := range d.Grants {
		g.Source = cmp.Or(g.Source, "store")
		if e := s.last.same(&g); e != nil {
			s.grants = append(s.grants, *e.grant)
			continue
		}
		if err := CheckGrant(&g); err != nil {
			s.dropped = append(s.dropped, err)
			continue
		}
		s.grants = append(s.grants, g)
	}
	for _, x := range d.Exemptions {
		if err := CheckExemption(&x); err != nil {
			s.dropped = append(s.dropped, err)
			continue
		}
		x.Source = cmp.Or(x.Source, "store")
		s.exemptions = append(s.exemptions, x)
	}
}
