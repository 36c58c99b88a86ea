package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"

	"github.com/exitgate/exitgate"
)

// A run is some grants or exemptions, few enough to be written again when one of them changes. Where runs end is
// decided by the ids in them, so that one more grant changes one run.
type run struct {
	kind     string // grants or exemptions
	from, to int    // of the sources' grants or exemptions, which are sorted by id
	sum      string // of the JSON of the run
}

const (
	listGrants     = "grants"
	listExemptions = "exemptions"
	listMean       = 256  // entries in a run, on the average
	listMost       = 2048 // entries in a run
)

// sum names the revision: 12 hex digits that differ where any input does.
func (s *sources) sum() error {
	slices.SortStableFunc(s.grants, func(a, b exitgate.Grant) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortStableFunc(s.exemptions, func(a, b exitgate.Exemption) int { return cmp.Compare(a.ID, b.ID) })
	s.lists = append(runs(listGrants, len(s.grants), func(i int) string { return s.grants[i].ID }),
		runs(listExemptions, len(s.exemptions), func(i int) string { return s.exemptions[i].ID })...)
	all := sha256.New()
	for _, f := range s.files {
		fmt.Fprintf(all, "%q %s\n", f.name, sumOf(f.text))
	}
	for i := range s.lists {
		b, err := s.listJSON(s.lists[i])
		if err != nil {
			return fmt.Errorf("sum up the grants for a revision: %w", err)
		}
		s.lists[i].sum = sumOf(b)
		fmt.Fprintf(all, "%s %s\n", s.lists[i].kind, s.lists[i].sum)
	}
	fmt.Fprintf(all, "audit %q\n", s.audit)
	s.revision = hex.EncodeToString(all.Sum(nil))[:12]
	return nil
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func (s *sources) listJSON(l run) ([]byte, error) {
	if l.kind == listGrants {
		return json.Marshal(s.grants[l.from:l.to])
	}
	return json.Marshal(s.exemptions[l.from:l.to])
}

func runs(kind string, n int, id func(int) string) (out []run) {
	from := 0
	for i := range n {
		h := fnv.New32a()
		h.Write([]byte(id(i)))
		if h.Sum32()%listMean == 0 || i-from+1 == listMost || i == n-1 {
			out = append(out, run{kind: kind, from: from, to: i + 1})
			from = i + 1
		}
	}
	return out
}
