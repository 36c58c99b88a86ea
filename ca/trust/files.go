package trust

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// How our part is taken out of a file that others changed since.
const (
	editWhole    = ""         // the whole file is ours
	editBlock    = "block"    // lines between two marks
	editPolicies = "policies" // entries of Firefox's policies.json
)

// A fileItem is a file that is ours, or our part of a shared one.
type fileItem struct {
	path string
	mode fs.FileMode // 0: as it is
	edit string
	name string // what the edit needs to find its part again
	hook string
	// content returns what the file shall hold, given what it holds without our part. A *skipped error leaves it.
	content func(rest []byte, found bool) ([]byte, error)
}

// whole is a file of ours.
func whole(p, content string, mode fs.FileMode) fileItem {
	return fileItem{path: p, mode: mode, content: func([]byte, bool) ([]byte, error) { return []byte(content), nil }}
}

// block is a run of lines at the end of a shared file in which "#" begins a comment.
func block(p, lines string) fileItem {
	return fileItem{path: p, edit: editBlock, content: func(rest []byte, _ bool) ([]byte, error) {
		return append(endLine(rest), marked(lines)...), nil
	}}
}

// The marks around a block.
const (
	blockBegin = "# >>> exitgate: \"exitgate unenroll\" removes these lines\n"
	blockEnd   = "# <<< exitgate\n"
)

func marked(lines string) string { return blockBegin + lines + blockEnd }

// endLine ends the last line, so that what is appended begins one.
func endLine(b []byte) []byte {
	b = bytes.Clone(b)
	if len(b) > 0 && b[len(b)-1] != '\n' {
		b = append(b, '\n')
	}
	return b
}

// withoutBlock removes the marked lines. A block that was cut off ends with the file, so nothing of others is lost but
// what stands behind a mark that somebody broke.
func withoutBlock(b []byte) []byte {
	start := bytes.Index(b, []byte(blockBegin))
	if start < 0 || start > 0 && b[start-1] != '\n' {
		return b
	}
	end := bytes.Index(b[start:], []byte(blockEnd))
	if end < 0 {
		return bytes.Clone(b[:start])
	}
	return append(bytes.Clone(b[:start]), b[start+end+len(blockEnd):]...)
}

// strip returns b without our part; name is the act's.
func strip(edit, name string, b []byte) ([]byte, error) {
	switch edit {
	case editBlock:
		return withoutBlock(b), nil
	case editPolicies:
		return withoutPolicies(b, name)
	}
	return nil, nil
}

func (f fileItem) act() act {
	return act{Kind: kindFile, Path: f.path, Edit: f.edit, Name: f.name, Hook: f.hook}
}

func (f fileItem) word() string { return "wrote" }

// wanted returns what is there, and what shall be.
func (f fileItem) wanted(x *run, prior *act) (have []byte, found bool, rest, want []byte, err error) {
	have, found, err = x.t.read(f.path)
	if err != nil {
		return nil, found, nil, nil, err
	}
	name := f.name
	if prior != nil {
		name = prior.Name
	}
	rest = have
	if f.edit != editWhole {
		if rest, err = strip(f.edit, name, have); err != nil {
			return nil, found, nil, nil, &skipped{err.Error()}
		}
	}
	want, err = f.content(rest, found)
	return have, found, rest, want, err
}

func (f fileItem) done(_ context.Context, x *run, prior *act) (bool, error) {
	have, found, _, want, err := f.wanted(x, prior)
	if err != nil || !found || !bytes.Equal(have, want) {
		return false, err
	}
	fi, err := x.t.stat(f.path)
	return err == nil && (f.mode == 0 || fi.Mode().Perm() == f.mode), err
}

func (f fileItem) do(_ context.Context, x *run) (func(context.Context) error, error) {
	a := f.act()
	prior := x.rec.find(a.key())
	have, found, rest, want, err := f.wanted(x, prior)
	if err != nil {
		return nil, err
	}
	if err := x.makeDir(path.Dir(f.path), 0o755); err != nil {
		return nil, err
	}
	var mode fs.FileMode
	if found {
		fi, err := x.t.stat(f.path)
		if err != nil {
			return nil, err
		}
		mode = fi.Mode().Perm()
	}
	if prior == nil && found {
		a.Mode = mode
		if a.Backup, err = x.keep(rest); err != nil {
			return nil, err
		}
	}
	if prior == nil || prior.After == digest(have) {
		a.After = digest(want) // else others changed it since, and what they did shall stay
	}
	if err := x.note(a); err != nil {
		return nil, err
	}
	if err := x.t.write(f.path, want, f.mode); err != nil {
		return nil, err
	}
	undo := x.putBack(f.path, have, found, mode)
	return func(ctx context.Context) error {
		if f.hook == hookStore && !found {
			x.gone = append(x.gone, path.Base(f.path))
		}
		return undo(ctx)
	}, nil
}

// putBack returns what makes a file as it was.
func (x *run) putBack(p string, old []byte, found bool, mode fs.FileMode) func(context.Context) error {
	return func(context.Context) error {
		if !found {
			return x.t.remove(p)
		}
		return x.t.write(p, old, mode)
	}
}

// undoFile takes a file, or our part of it, back, and says what it did.
func (x *run) undoFile(a act) (word string, err error) {
	have, found, err := x.t.read(a.Path)
	if err != nil || !found {
		return "", err
	}
	fi, err := x.t.stat(a.Path)
	if err != nil {
		return "", err
	}
	var rest []byte
	switch exact := a.After != "" && digest(have) == a.After; {
	case (exact || a.Edit == editWhole) && a.Backup == "":
		return "removed", x.act(func() error { return x.t.remove(a.Path) }, x.putBack(a.Path, have, true, fi.Mode().Perm()))
	case exact || a.Edit == editWhole:
		rest, err = x.kept(a)
	default:
		if rest, err = strip(a.Edit, a.Name, have); err == nil && len(rest) == 0 && a.Backup == "" {
			return "removed", x.act(func() error { return x.t.remove(a.Path) }, x.putBack(a.Path, have, true, fi.Mode().Perm()))
		}
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", a.Path, err)
	}
	return "restored", x.act(func() error { return x.t.write(a.Path, rest, a.Mode) }, x.putBack(a.Path, have, true, fi.Mode().Perm()))
}

// act does something unless the run is dry, and remembers what takes it back.
func (x *run) act(do func() error, undo func(context.Context) error) error {
	if x.dry {
		return nil
	}
	if err := do(); err != nil {
		return err
	}
	x.undos = append(x.undos, undo)
	return nil
}

// drop undoes one act, and takes it out of the record.
func (x *run) drop(ctx context.Context, a act) error {
	word, err := "", error(nil)
	switch a.Kind {
	case kindDir:
		err = x.act(func() error { return x.removeDir(a.Path) }, nothing)
	case kindFile:
		word, err = x.undoFile(a)
	case kindKeystore:
		word, err = x.undoKeystore(ctx, a)
	case kindNSS:
		word, err = x.undoNSS(ctx, a)
	case kindUnit:
		word, err = x.undoUnit(ctx, a)
	default:
		err = fmt.Errorf("the undo record has an act of a kind %q that this program does not know", a.Kind)
	}
	if err != nil {
		return err
	}
	if word != "" {
		x.say(word, strings.Replace(label(a), " into ", " from ", 1))
		x.hook(a.Hook)
		if a.Hook == hookStore {
			x.gone = append(x.gone, path.Base(a.Path))
		}
	}
	x.rec.Acts = without(x.rec.Acts, a.key())
	return x.save()
}

func nothing(context.Context) error { return nil }

func without(acts []act, key string) []act {
	var rest []act
	for _, a := range acts {
		if a.key() != key {
			rest = append(rest, a)
		}
	}
	return rest
}
