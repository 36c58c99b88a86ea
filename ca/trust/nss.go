package trust

import (
	"context"
	"path"
	"strconv"
	"strings"
)

// nssItems puts the roots into the NSS databases that users have. None is made: a browser makes its own.
func (x *run) nssItems(roots []Root) []item {
	var items []item
	for _, home := range x.homes() {
		for _, p := range []string{".pki/nssdb", "snap/chromium/current/.pki/nssdb"} {
			dir, err := x.t.resolve(path.Join(home, p))
			if err == nil && x.t.isFile(path.Join(dir, "cert9.db")) {
				items = append(items, nssItem{dir, roots})
			}
		}
	}
	return items
}

// homes returns the home directories of root and of people.
func (x *run) homes() []string {
	if x.h.Home != "" {
		return []string{x.h.Home}
	}
	b, _, err := x.t.read("/etc/passwd")
	if err != nil {
		return nil
	}
	var list []string
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 7 {
			continue
		}
		uid, err := strconv.Atoi(f[2])
		if err == nil && (uid == 0 || uid >= 1000 && uid < 65534) && path.IsAbs(f[5]) && f[5] != "/" {
			list = append(list, f[5])
		}
	}
	return list
}

// An nssItem is the roots in one NSS database. The database belongs to a user, and so certutil runs as that user: a link
// that the user put there leads nowhere that the user could not go.
type nssItem struct {
	dir   string
	roots []Root
}

func (n nssItem) act() act {
	return act{Kind: kindNSS, Path: n.dir, Name: strings.Join(names(n.roots), ",")}
}

func (n nssItem) word() string { return "imported" }

// certutil runs certutil on a database as its owner. The error is a *skipped.
func (x *run) certutil(ctx context.Context, dir string, stdin []byte, args ...string) ([]byte, error) {
	tool, ok := x.t.look("certutil")
	if !ok {
		return nil, &skipped{"certutil is missing (package libnss3-tools or nss-tools)"}
	}
	fi, err := x.t.stat(dir)
	if err != nil {
		return nil, &skipped{err.Error()}
	}
	c := Command{Argv: append([]string{tool}, append(args, "-d", "sql:"+dir)...), Stdin: stdin}
	c.UID, c.GID = owner(fi)
	out, err := x.run(ctx, c)
	if err != nil {
		return out, &skipped{commandError(c, out, err).Error()}
	}
	return out, nil
}

// nicknames lists our entries of a database.
func (x *run) nicknames(ctx context.Context, dir string) ([]string, error) {
	out, err := x.certutil(ctx, dir, nil, "-L")
	if err != nil {
		return nil, err
	}
	var list []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 2 && strings.HasPrefix(f[0], "exitgate-") {
			list = append(list, f[0])
		}
	}
	return list, nil
}

func (n nssItem) done(ctx context.Context, x *run, _ *act) (bool, error) {
	have, err := x.nicknames(ctx, n.dir)
	return err == nil && sameSet(have, names(n.roots)), err
}

func sameSet(a, b []string) bool {
	set := map[string]bool{}
	for _, s := range a {
		set[s] = true
	}
	for _, s := range b {
		if !set[s] {
			return false
		}
	}
	return len(set) == len(b)
}

func (n nssItem) do(ctx context.Context, x *run) (func(context.Context) error, error) {
	before, err := x.nicknames(ctx, n.dir)
	if err != nil {
		return nil, err
	}
	if err := x.note(n.act()); err != nil {
		return nil, err
	}
	undo := func(ctx context.Context) error { return x.clearNSS(ctx, n.dir, before) }
	for _, r := range n.roots {
		if _, err := x.certutil(ctx, n.dir, r.PEM(), "-A", "-a", "-t", "C,,", "-n", r.Name()); err != nil {
			return undo, err
		}
	}
	return undo, x.clearNSS(ctx, n.dir, names(n.roots))
}

// clearNSS removes our entries of a database, but for those that stay.
func (x *run) clearNSS(ctx context.Context, dir string, stay []string) error {
	have, err := x.nicknames(ctx, dir)
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, s := range stay {
		keep[s] = true
	}
	for _, name := range have {
		if keep[name] {
			continue
		}
		if _, err := x.certutil(ctx, dir, nil, "-D", "-n", name); err != nil {
			return err
		}
	}
	return nil
}

func (x *run) undoNSS(ctx context.Context, a act) (string, error) {
	if !x.t.isFile(path.Join(a.Path, "cert9.db")) {
		return "", nil
	}
	if x.dry {
		return "removed", nil
	}
	if err := x.clearNSS(ctx, a.Path, nil); err != nil {
		x.skip(a.Path, "the roots are still in it: %v", err)
		return "", nil
	}
	return "removed", nil
}
