package ca

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestHostileRotation lays folders that no rotation leaves.
func TestHostileRotation(t *testing.T) {
	o, strange := testOptions(t), testOptions(t)
	i, other := mustOpen(t, o), mustOpen(t, strange)
	steady := files(t, o.Dir)
	must(t, i.Rotate(Rotation{}))
	must(t, other.Rotate(Rotation{}))
	overlap, foreignOverlap := files(t, o.Dir), files(t, strange.Dir)
	must(t, i.Switch())
	leaving := files(t, o.Dir)
	with := func(m map[string][]byte, name string, b []byte) map[string][]byte {
		c := map[string][]byte{}
		for k, v := range m {
			c[k] = v
		}
		if c[name] = b; b == nil {
			delete(c, name)
		}
		return c
	}
	for name, c := range map[string]struct {
		files map[string][]byte
		want  string
	}{
		"rotation that is empty":         {with(overlap, rotationFile, []byte{}), "damaged"},
		"rotation with more":             {with(overlap, rotationFile, append(slices.Clone(overlap[rotationFile]), "{}"...)), "damaged"},
		"rotation with unknown keys":     {with(overlap, rotationFile, []byte(`{"mode":"x"}`)), "damaged"},
		"rotation of no roots":           {with(overlap, rotationFile, []byte(`{"old":"","new":"","begun":"2026-01-01T00:00:00Z"}`)), "cannot be read"},
		"another rotation":               {with(overlap, rotationFile, foreignOverlap[rotationFile]), "bring both files back"},
		"rotation that was lost":         {with(overlap, rotationFile, nil), "roots.crt"},
		"rotation that was lost, switch": {with(leaving, rotationFile, nil), "root.crt"},
		"no next root":                   {with(overlap, nextFile, nil), nextFile},
		"no next root after the switch":  {with(leaving, nextFile, nil), nextFile},
		"no old root":                    {with(overlap, rootFile, nil), rootFile},
		"another next root":              {with(overlap, nextFile, foreignOverlap[nextFile]), "bring both files back"},
		"next root that is the old":      {with(overlap, nextFile, overlap[rootFile]), "bring both files back"},
		"next root that is damaged":      {with(overlap, nextFile, overlap[nextFile][:200]), "damaged"},
		"past that is rubbish":           {with(overlap, pastFile, []byte("rubbish")), "damaged"},
		"past that is a key":             {with(overlap, pastFile, overlap[rootFile]), "certificates only"},
		"other published roots":          {with(overlap, rootsFile, foreignOverlap[rootsFile]), "consider which of the two hosts were given"},
		"key among published roots":      {with(overlap, rootsFile, overlap[nextFile]), "certificates only"},
		"issuer of another":              {with(leaving, issuerFile, foreignOverlap[issuerFile]), "another root signed it"},
		"published roots at the start":   {map[string][]byte{rootsFile: steady[rootsFile]}, "missing"},
		"next root at the start":         {map[string][]byte{nextFile: overlap[nextFile]}, "missing"},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, lay(t, c.files), c.want)
		})
	}
	t.Run("old key lost after the switch", func(t *testing.T) {
		o := lay(t, with(leaving, rootFile, nil))
		i := mustOpen(t, o)
		must(t, i.Finish())
		looks(t, o, i, Steady, i.RootCertificate())
	})
	t.Run("truncated", func(t *testing.T) {
		for n := 0; n < len(leaving[rotationFile]); n += 7 {
			o := lay(t, with(leaving, rotationFile, leaving[rotationFile][:n]))
			if i, err := Open(o); err == nil && i.State().Phase != Leaving {
				t.Fatalf("cut at %d: phase %s", n, i.State().Phase)
			}
		}
	})
	t.Run("others may read", func(t *testing.T) {
		for _, name := range []string{rotationFile, nextFile} {
			o := lay(t, overlap)
			must(t, os.Chmod(filepath.Join(o.Dir, name), 0o644))
			refused(t, o, "chmod 0600", name)
		}
	})
}

// FuzzParseTurn: bytes are refused, or they hold two roots.
func FuzzParseTurn(f *testing.F) {
	i, err := Open(Options{Dir: f.TempDir() + "/ca"})
	must(f, err)
	must(f, i.Rotate(Rotation{Overlap: time.Hour}))
	b, err := i.folder.read(rotationFile, true)
	must(f, err)
	f.Add(b)
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		turn, err := parseTurn(b)
		if err == nil && (!turn.old.IsCA || !turn.new.IsCA || turn.old.Equal(turn.new)) {
			t.Error("a rotation between what are no two roots")
		}
	})
}
