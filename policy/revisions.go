package policy

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/exitgate/exitgate"
)

// Revisions keeps what each revision was made of, Rego and data, so that a question can be asked again of any of them. It
// is a directory with one small file a revision, and the parts, compressed and named by what is in them: revisions that
// differ in one grant share all others. It is safe for concurrent use; one process writes, any number may read.
type Revisions struct {
	dir   string
	bound RevisionBounds

	mu    sync.Mutex      // held while a revision is put
	known map[string]bool // parts that are there; nil before the first is put
	count int             // revisions that are there
	bytes int64           // of all files
}

// RevisionBounds say how much is kept. What was loaded last is always kept.
type RevisionBounds struct {
	Count int   // revisions; 0: 1,000
	Bytes int64 // of all files together, compressed; 0: 256 MiB
}

// ErrNoRevision says that a revision is not kept, or not any more.
var ErrNoRevision = errors.New("it is not kept")

// NewRevisions keeps revisions in dir, which is made when the first is put.
func NewRevisions(dir string, b RevisionBounds) *Revisions {
	b.Count, b.Bytes = cmp.Or(b.Count, 1000), cmp.Or(b.Bytes, 256<<20)
	return &Revisions{dir: dir, bound: b}
}

// A KeptRevision is one that can be loaded.
type KeptRevision struct {
	Revision   string    `json:"revision"`
	At         time.Time `json:"at"` // when it came into force last
	Grants     int       `json:"grants"`
	Exemptions int       `json:"exemptions"`
}

// A manifest is the file of a revision.
type manifest struct {
	KeptRevision
	Files []manifestFile   `json:"files"`
	Lists []manifestList   `json:"lists"`
	Audit []exitgate.Class `json:"audit"`
}

type manifestFile struct {
	Name string `json:"name"`
	Part string `json:"part"`
}

type manifestList struct {
	Kind string `json:"kind"`
	Part string `json:"part"`
}

var revisionName = regexp.MustCompile(`^[0-9a-f]{12}$`)

func (r *Revisions) manifest(revision string) string { return filepath.Join(r.dir, revision+".json") }
func (r *Revisions) part(sum string) string          { return filepath.Join(r.dir, "parts", sum+".gz") }

// put keeps a revision that comes into force at now.
func (r *Revisions) put(s *sources, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.open(); err != nil {
		return fmt.Errorf("keep revision %s: %w", s.revision, err)
	}
	m := manifest{KeptRevision: KeptRevision{s.revision, now.UTC(), len(s.grants), len(s.exemptions)}, Audit: s.audit}
	for _, f := range s.files {
		sum := sumOf(f.text)
		m.Files = append(m.Files, manifestFile{f.name, sum})
		if err := r.putPart(sum, func() ([]byte, error) { return f.text, nil }); err != nil {
			return fmt.Errorf("keep revision %s: %w", s.revision, err)
		}
	}
	for _, l := range s.lists {
		m.Lists = append(m.Lists, manifestList{l.kind, l.sum})
		if err := r.putPart(l.sum, func() ([]byte, error) { return s.listJSON(l) }); err != nil {
			return fmt.Errorf("keep revision %s: %w", s.revision, err)
		}
	}
	if err := r.putManifest(m); err != nil {
		return fmt.Errorf("keep revision %s: %w", s.revision, err)
	}
	if r.count <= r.bound.Count && r.bytes <= r.bound.Bytes {
		return nil
	}
	return r.prune()
}

func (r *Revisions) putManifest(m manifest) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if _, err := os.Stat(r.manifest(m.Revision)); err != nil {
		r.count, r.bytes = r.count+1, r.bytes+int64(len(b))
	}
	return replaceFile(r.manifest(m.Revision), b)
}

// open finds the parts that are there. An empty one is what a crash left.
func (r *Revisions) open() error {
	if r.known != nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(r.dir, "parts"), 0o700); err != nil {
		return err
	}
	list, err := os.ReadDir(filepath.Join(r.dir, "parts"))
	if err != nil {
		return err
	}
	r.known = make(map[string]bool, len(list))
	for _, e := range list {
		if st, err := e.Info(); err == nil && st.Size() > 0 {
			r.known[strings.TrimSuffix(e.Name(), ".gz")] = true
			r.bytes += st.Size()
		}
	}
	all, err := filepath.Glob(filepath.Join(r.dir, "*.json"))
	for _, name := range all {
		r.count, r.bytes = r.count+1, r.bytes+fileSize(name)
	}
	return err
}

func fileSize(name string) int64 {
	st, err := os.Stat(name)
	if err != nil {
		return 0
	}
	return st.Size()
}

func (r *Revisions) putPart(sum string, text func() ([]byte, error)) error {
	if r.known[sum] {
		return nil
	}
	b, err := text()
	if err != nil {
		return err
	}
	var zipped bytes.Buffer
	w, err := gzip.NewWriterLevel(&zipped, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if _, err = w.Write(b); err == nil {
		err = w.Close()
	}
	if err == nil {
		err = replaceFile(r.part(sum), zipped.Bytes())
	}
	if err == nil {
		r.known[sum], r.bytes = true, r.bytes+int64(zipped.Len())
	}
	return err
}

// replaceFile writes a file of which a reader sees all or nothing.
func replaceFile(name string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// List returns the revisions that are kept, newest first. One whose file cannot be read is left out.
func (r *Revisions) List() ([]KeptRevision, error) {
	all, err := r.manifests()
	out := make([]KeptRevision, len(all))
	for i, m := range all {
		out[i] = m.KeptRevision
	}
	return out, err
}

func (r *Revisions) manifests() (out []manifest, err error) {
	files, err := os.ReadDir(r.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the revisions: %w", err)
	}
	for _, f := range files {
		if name := strings.TrimSuffix(f.Name(), ".json"); revisionName.MatchString(name) {
			if m, err := r.read(name); err == nil {
				out = append(out, m)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b manifest) int { return b.At.Compare(a.At) })
	return out, nil
}

func (r *Revisions) read(revision string) (m manifest, err error) {
	b, err := os.ReadFile(r.manifest(revision))
	if errors.Is(err, fs.ErrNotExist) {
		return m, fmt.Errorf("revision %s: %w", revision, ErrNoRevision)
	}
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err == nil && m.Revision != revision {
		err = errors.New("it names another revision")
	}
	if err != nil {
		return m, fmt.Errorf("read revision %s: %w", revision, err)
	}
	return m, nil
}

// prune forgets the oldest revisions until the rest take nine tenths of the bounds, and the parts that none of them has.
func (r *Revisions) prune() error {
	all, err := r.manifests()
	if err != nil {
		return err
	}
	keep, total := map[string]bool{}, int64(0)
	for i, m := range all {
		var more []string
		grown := total + fileSize(r.manifest(m.Revision))
		for _, sum := range m.parts() {
			if !keep[sum] {
				more, grown = append(more, sum), grown+fileSize(r.part(sum))
			}
		}
		if i > 0 && (i >= r.bound.Count*9/10 || grown > r.bound.Bytes/10*9) {
			r.count, r.bytes = i, total
			return r.forget(all[i:], keep)
		}
		total = grown
		for _, sum := range more {
			keep[sum] = true
		}
	}
	return nil
}

func (r *Revisions) forget(old []manifest, keep map[string]bool) (err error) {
	for _, m := range old {
		err = errors.Join(err, os.Remove(r.manifest(m.Revision)))
		for _, sum := range m.parts() {
			if !keep[sum] && r.known[sum] {
				err = errors.Join(err, os.Remove(r.part(sum)))
				delete(r.known, sum)
			}
		}
	}
	return err
}

func (m *manifest) parts() []string {
	seen := map[string]bool{}
	for _, f := range m.Files {
		seen[f.Part] = true
	}
	for _, l := range m.Lists {
		seen[l.Part] = true
	}
	out := make([]string, 0, len(seen))
	for sum := range seen {
		out = append(out, sum)
	}
	return out
}

// Find returns the one revision that starts with prefix, of at least four digits.
func (r *Revisions) Find(prefix string) (string, error) {
	if len(prefix) < 4 || strings.Trim(prefix, "0123456789abcdef") != "" {
		return "", fmt.Errorf("%.40q is no revision: give at least its first four digits", prefix)
	}
	if revisionName.MatchString(prefix) {
		_, err := r.read(prefix)
		return prefix, err
	}
	found, err := filepath.Glob(r.manifest(prefix + "*"))
	switch {
	case err != nil || len(found) == 0:
		return "", fmt.Errorf("revision %s: %w", prefix, ErrNoRevision)
	case len(found) > 1:
		return "", fmt.Errorf("revision %s: %d revisions start so", prefix, len(found))
	}
	return strings.TrimSuffix(filepath.Base(found[0]), ".json"), nil
}

// Load makes an engine that answers as the one did whose revision it was: from the same Rego, grants, exemptions and
// classes in audit mode. What was damaged since is an error. Of o only the bounds matter.
func (r *Revisions) Load(ctx context.Context, revision string, o Options) (*Engine, error) {
	s, err := r.sources(revision)
	if err != nil {
		return nil, err
	}
	return newEngine(ctx, o, s)
}

func (r *Revisions) sources(revision string) (*sources, error) {
	m, err := r.read(revision)
	if err != nil {
		return nil, err
	}
	s := &sources{audit: m.Audit}
	for _, f := range m.Files {
		text, err := r.readPart(f.Part)
		if err != nil {
			return nil, fmt.Errorf("read revision %s: %s: %w", revision, f.Name, err)
		}
		one := file{f.Name, text}
		s.files = append(s.files, one)
		if f.Name == "grants.yaml" || f.Name == "exemptions.yaml" {
			continue // what they say is in the lists
		}
		if err := s.take(one); err != nil {
			return nil, fmt.Errorf("read revision %s: %w", revision, err)
		}
	}
	for _, l := range m.Lists {
		if err := r.readList(s, l); err != nil {
			return nil, fmt.Errorf("read revision %s: its %s: %w", revision, l.Kind, err)
		}
	}
	if err := s.sum(); err != nil {
		return nil, err
	}
	if s.revision != revision {
		return nil, fmt.Errorf("read revision %s: what is kept of it makes revision %s", revision, s.revision)
	}
	return s, nil
}

func (r *Revisions) readList(s *sources, l manifestList) error {
	b, err := r.readPart(l.Part)
	if err != nil {
		return err
	}
	switch l.Kind {
	case listGrants:
		var more []exitgate.Grant
		err = json.Unmarshal(b, &more)
		s.grants = append(s.grants, more...)
	case listExemptions:
		var more []exitgate.Exemption
		err = json.Unmarshal(b, &more)
		s.exemptions = append(s.exemptions, more...)
	default:
		err = errors.New("there is no such list")
	}
	return err
}

func (r *Revisions) readPart(sum string) ([]byte, error) {
	if len(sum) != 64 || strings.Trim(sum, "0123456789abcdef") != "" {
		return nil, fmt.Errorf("%.80q names no part", sum)
	}
	f, err := os.Open(r.part(sum))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("part %.12s is damaged: %w", sum, err)
	}
	b, err := io.ReadAll(io.LimitReader(z, maxFile+1))
	if err != nil || sumOf(b) != sum {
		return nil, errors.Join(fmt.Errorf("part %.12s is damaged", sum), err)
	}
	return b, nil
}
