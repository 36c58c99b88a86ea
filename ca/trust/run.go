package trust

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
)

// A run is one Install or Remove.
type run struct {
	h       Host
	t       tree
	dry     bool
	rec     record
	before  record // as it was when the run began
	fresh   bool   // there was no record
	changes []Change
	undos   []func(context.Context) error // take back what this run did, oldest first
	hooks   []string                      // that have to run, each once
	gone    []string                      // file names of roots that left the system's store
	dirs    []string                      // that were not empty when they were to go, deepest first
	store   *store
	unlock  func()
}

func (h Host) begin(dry bool) (*run, error) {
	rec, err := h.readRecord()
	if err != nil {
		return nil, err
	}
	x := &run{h: h, t: h.tree(), dry: dry, rec: rec, before: rec.clone(), fresh: len(rec.Acts) == 0, unlock: func() {}}
	if dry || !x.t.isDir(h.state()) {
		return x, nil
	}
	return x, x.hold()
}

// hold locks the state directory, which exists.
func (x *run) hold() error {
	r, err := x.t.real(x.h.state())
	if err != nil {
		return err
	}
	unlock, err := lock(path.Join(r, "lock"))
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s belongs to another user: run this with sudo", x.h.state())
	}
	if err == nil {
		x.unlock = unlock
	}
	return err
}

func (x *run) end() { x.unlock() }

func (x *run) say(what, path string) { x.changes = append(x.changes, Change{What: what, Path: path}) }

func (x *run) skip(path, format string, args ...any) {
	x.changes = append(x.changes, Change{"skipped", path, fmt.Sprintf(format, args...)})
}

// An item is one thing that shall be so on the host.
type item interface {
	// act says what the item is, without Backup, Mode and After.
	act() act
	// done reports whether it is so; prior is what the record has of it, or nil. An error that is a *skipped leaves
	// the item alone.
	done(ctx context.Context, x *run, prior *act) (bool, error)
	// do makes it so. It calls x.note before it changes anything, and returns what takes it back.
	do(ctx context.Context, x *run) (undo func(context.Context) error, err error)
	// word is what a report calls it: wrote, imported, enabled.
	word() string
}

// A skipped error says why an item is left alone.
type skipped struct{ why string }

func (s *skipped) Error() string { return s.why }

// converge does what is not so yet, undoes what is no longer wanted, and runs the hooks of both.
func (x *run) converge(ctx context.Context, items []item) error {
	wanted := map[string]bool{}
	for _, it := range items {
		wanted[it.act().key()] = true
		if err := x.ensure(ctx, it); err != nil {
			return err
		}
	}
	for _, a := range slices.Backward(slices.Clone(x.rec.Acts)) {
		if a.Kind == kindDir || wanted[a.key()] {
			continue
		}
		if err := x.drop(ctx, a); err != nil {
			return err
		}
	}
	return x.runHooks(ctx)
}

func (x *run) ensure(ctx context.Context, it item) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	a := it.act()
	prior := x.rec.find(a.key())
	ok, err := it.done(ctx, x, prior)
	if ok && err == nil && prior == nil && !x.dry {
		return x.adopt(a) // an earlier record was lost: it is ours all the same
	}
	if ok && err == nil {
		return nil
	}
	if err == nil && x.dry {
		x.say(it.word(), label(a))
		x.hook(a.Hook)
		return nil
	}
	var undo func(context.Context) error
	if err == nil {
		err = x.makeState()
	}
	if err == nil {
		undo, err = it.do(ctx, x)
	}
	if undo != nil {
		x.undos = append(x.undos, undo)
	}
	var s *skipped
	if errors.As(err, &s) {
		x.skip(label(a), "%s", s.why)
		return nil
	}
	if err != nil {
		return err
	}
	x.say(it.word(), label(a))
	x.hook(a.Hook)
	return nil
}

func label(a act) string {
	switch a.Kind {
	case kindKeystore, kindNSS:
		return a.Name + " into " + a.Path
	case kindUnit:
		return a.Name
	}
	return a.Path
}

func (x *run) hook(name string) {
	if name != "" && !slices.Contains(x.hooks, name) {
		x.hooks = append(x.hooks, name)
	}
}

// adopt records something that is as it shall be, and was not done by a run that the record knows.
func (x *run) adopt(a act) error {
	if a.Kind == kindFile && a.Edit == "" {
		b, _, err := x.t.read(a.Path)
		if err != nil {
			return err
		}
		a.After = digest(b)
	}
	return x.note(a)
}

// note writes a into the record, before it is done. What the record says about the time before us stays.
func (x *run) note(a act) error {
	if old := x.rec.find(a.key()); old != nil {
		a.Backup, a.Mode = old.Backup, old.Mode
		*old = a
	} else {
		x.rec.Acts = append(x.rec.Acts, a)
	}
	return x.save()
}

func (x *run) save() error {
	if x.dry {
		return nil
	}
	if len(x.rec.Acts) == 0 && x.fresh {
		return nil
	}
	if err := x.makeState(); err != nil {
		return err
	}
	return x.h.writeRecord(x.rec)
}

// makeState makes the state directory with mode 0700, and locks it when it is new.
func (x *run) makeState() error {
	if x.t.isDir(x.h.state()) {
		return nil
	}
	if err := x.makeDir(x.h.state(), 0o700); err != nil {
		return err
	}
	return x.hold()
}

// makeDir makes dir and its parents; what it makes is in the record, so that it goes when it is empty again.
func (x *run) makeDir(dir string, mode fs.FileMode) error {
	if x.t.isDir(dir) {
		return nil
	}
	if parent := path.Dir(dir); parent != dir {
		if err := x.makeDir(parent, mode|0o055); err != nil {
			return err
		}
	}
	r, err := x.t.real(dir)
	if err != nil {
		return err
	}
	if err := os.Mkdir(r, mode); err != nil {
		return plainPath(err, r, dir)
	}
	if err := os.Chmod(r, mode); err != nil { // whatever the umask is
		return plainPath(err, r, dir)
	}
	x.rec.Acts = append(x.rec.Acts, act{Kind: kindDir, Path: dir})
	x.undos = append(x.undos, func(context.Context) error { return x.removeDir(dir) })
	return nil
}

// removeDir removes a directory when it is empty.
func (x *run) removeDir(dir string) error {
	r, err := x.t.real(dir)
	if err != nil {
		return err
	}
	if entries, err := os.ReadDir(r); err == nil && len(entries) > 0 {
		x.dirs = append(x.dirs, dir)
		return nil
	}
	return x.t.remove(dir)
}

// rollback takes back what the run did, and returns the error that made it, with what could not be taken back.
func (x *run) rollback(ctx context.Context, cause error) error {
	if x.dry {
		return cause
	}
	ctx = context.WithoutCancel(ctx)
	x.hooks, x.gone = nil, nil // those that ran already run again, by their own undo
	var wrong []error
	for _, undo := range slices.Backward(x.undos) {
		wrong = append(wrong, undo(ctx))
	}
	wrong = append(wrong, x.runHooks(ctx))
	x.rec = x.before
	if x.fresh {
		wrong = append(wrong, x.forget())
	} else {
		wrong = append(wrong, x.save())
	}
	if err := errors.Join(wrong...); err != nil {
		return fmt.Errorf("%w\nand it could not be taken back whole: %w", cause, err)
	}
	return cause
}

// forget removes the record and, when nothing else is in it, the state directory and the parents that were made.
func (x *run) forget() error {
	t := x.t
	for _, p := range t.glob(path.Join(x.h.backupDir(), "*")) {
		if err := t.remove(p); err != nil {
			return err
		}
	}
	for _, p := range []string{x.h.backupDir(), x.h.recordPath(), path.Join(x.h.state(), "lock")} {
		if err := t.remove(p); err != nil {
			return err
		}
	}
	for _, p := range slices.Clone(x.dirs) {
		if err := x.removeDir(p); err != nil {
			return err
		}
	}
	return nil
}
