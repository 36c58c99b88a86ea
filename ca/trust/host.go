package trust

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
)

// A Host is the machine, or the file tree of one, that is provisioned.
type Host struct {
	// Root is the directory that the host sees as "/". Empty: "/".
	Root string
	// Home, when it is set, is the home directory of a user who has no root rights: only what belongs to this
	// user is changed, and the user's programs are pointed at a bundle of their own. A path below Root.
	Home string
	// State is the directory of the undo record, a path below Root. Empty: /var/lib/exitgate-host, or
	// .local/state/exitgate-host in Home.
	State string
	// Run runs commands. Nil: on this machine, with Root as their root directory, which needs root rights when
	// it is not "/".
	Run Runner
}

// A Want is how a host shall be.
type Want struct {
	Roots []Root
	// Proxy is written where programs look for it; the zero Proxy (transparent mode) writes nothing.
	Proxy Proxy
	// Files are written as they are; an existing one is replaced, and comes back with Remove.
	Files []File
	// Confirm, when it is set, is called when all is done, with the stores that hold the roots. Its error takes
	// everything back.
	Confirm func(ctx context.Context, stores []string) error
	// Units are systemd units, among Files or already there, that are enabled, and started when systemd runs.
	Units []string
}

// A File is a whole file that belongs to the provisioning.
type File struct {
	Path    string // below Root
	Content []byte
	Mode    fs.FileMode
}

// A Change is something that was done, or would be, or was left alone for a reason.
type Change struct {
	What string `json:"what"`          // wrote, made, removed, restored, imported, enabled, ran, skipped
	Path string `json:"path"`          // or the command
	Why  string `json:"why,omitempty"` // of skipped
}

// String returns the change as one line.
func (c Change) String() string {
	s := c.What + " " + c.Path
	if c.Why != "" {
		s += ": " + c.Why
	}
	return s
}

// Changed reports whether any of the changes is one: not a mere "skipped".
func Changed(list []Change) bool {
	return slices.ContainsFunc(list, func(c Change) bool { return c.What != "skipped" })
}

func (h Host) tree() tree {
	if h.Root == "" {
		return "/"
	}
	return tree(path.Clean(h.Root))
}

func (h Host) state() string {
	switch {
	case h.State != "":
		return h.State
	case h.Home != "":
		return path.Join(h.Home, ".local/state/exitgate-host")
	}
	return "/var/lib/exitgate-host"
}

func (h Host) runner() Runner {
	if h.Run != nil {
		return h.Run
	}
	return localRunner{string(h.tree()), cmp.Or(h.Home, "/")}
}

// Preflight returns an error when Install is bound to fail: no root rights, no store, a directory that cannot be
// written. It changes nothing.
func (h Host) Preflight() error {
	x, err := h.begin(true)
	if err != nil {
		return err
	}
	if h.Home != "" {
		if !x.t.isDir(h.Home) {
			return fmt.Errorf("the home directory %s does not exist", h.Home)
		}
		return nil
	}
	s, err := x.findStore()
	if err != nil {
		return err
	}
	for _, dir := range []string{h.state(), "/etc", s.anchors} {
		if err := x.writable(dir); err != nil {
			return err
		}
	}
	return nil
}

// writable tries to make a file in dir, or in the first parent that exists.
func (x *run) writable(dir string) error {
	for ; !x.t.isDir(dir); dir = path.Dir(dir) {
		if dir == "/" {
			return fmt.Errorf("the root directory %s does not exist", x.t)
		}
	}
	r, err := x.t.real(dir)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(r, ".exitgate-*")
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s cannot be written: run this with sudo, or with --user to change your own account only", dir)
	}
	if err != nil {
		return fmt.Errorf("%s cannot be written: %w", dir, plainPath(err, r, dir))
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// Install makes the host as w says. What it returns is what was done (or would be, when dry is set), in order; it is
// empty when all was as it shall be. After an error the host is as it was before the call.
func (h Host) Install(ctx context.Context, w Want, dry bool) ([]Change, error) {
	if err := w.Proxy.Check(); err != nil {
		return nil, err
	}
	if len(w.Roots) == 0 {
		return nil, errors.New("there is no root to trust")
	}
	x, err := h.begin(dry)
	if err != nil {
		return nil, err
	}
	defer x.end()
	items, err := x.plan(w)
	if err != nil {
		return nil, err
	}
	err = x.converge(ctx, items)
	if err == nil {
		err = x.verify(w.Roots)
	}
	if err == nil && w.Confirm != nil && !dry {
		err = w.Confirm(ctx, x.rec.stores())
	}
	if err == nil {
		err = x.save()
	}
	if err != nil {
		return nil, x.rollback(ctx, err)
	}
	return x.changes, nil
}

// Remove undoes all that Install did, newest first, and forgets it. It goes on past what cannot be undone, keeps that
// in the record, and returns what it was.
func (h Host) Remove(ctx context.Context, dry bool) ([]Change, error) {
	x, err := h.begin(dry)
	if err != nil {
		return nil, err
	}
	defer x.end()
	var wrong []error
	for _, a := range slices.Backward(slices.Clone(x.rec.Acts)) {
		if err := x.drop(ctx, a); err != nil {
			wrong = append(wrong, err)
		}
	}
	if err := x.runHooks(ctx); err != nil {
		wrong = append(wrong, err)
	}
	if len(wrong) == 0 && !dry {
		wrong = append(wrong, x.forget())
	}
	return x.changes, errors.Join(wrong...)
}

// Variables returns the variables that Install wrote, so that a program can be run as a new session would run it.
func (h Host) Variables() ([]Variable, error) {
	r, err := h.readRecord()
	return r.Vars, err
}

// Stores lists where the roots are, as Install recorded it: files, keystores, databases.
func (h Host) Stores() ([]string, error) {
	r, err := h.readRecord()
	return r.stores(), err
}
