package trust

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
)

// A store is the trust store of the system: a directory of anchors, the program that makes the bundle of them, and the
// bundle that programs read.
type store struct {
	kind    string
	anchors string
	command []string // after an anchor came; the first is looked for in the usual places
	fresh   []string // after one went
	bundles []string // the first that exists is the one
	tool    string   // where the program is
}

// stores lists the stores that are known. What tells two apart stands first.
func stores() []store {
	return []store{
		{kind: "SUSE", anchors: "/etc/pki/trust/anchors", command: []string{"update-ca-certificates"}, fresh: []string{"update-ca-certificates", "-f"},
			bundles: []string{"/etc/ssl/ca-bundle.pem", "/var/lib/ca-certificates/ca-bundle.pem"}},
		{kind: "Red Hat", anchors: "/etc/pki/ca-trust/source/anchors", command: []string{"update-ca-trust", "extract"}, fresh: []string{"update-ca-trust", "extract"},
			bundles: []string{"/etc/pki/tls/certs/ca-bundle.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"}},
		{kind: "Arch", anchors: "/etc/ca-certificates/trust-source/anchors", command: []string{"update-ca-trust"}, fresh: []string{"update-ca-trust"},
			bundles: []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/ca-certificates/extracted/tls-ca-bundle.pem"}},
		{kind: "Debian", anchors: "/usr/local/share/ca-certificates", command: []string{"update-ca-certificates"}, fresh: []string{"update-ca-certificates", "--fresh"},
			bundles: []string{"/etc/ssl/certs/ca-certificates.crt"}},
	}
}

// findStore finds the system's store. Without a program that makes a bundle, one that is there is written itself, as in
// small containers.
func (x *run) findStore() (*store, error) {
	if x.store != nil {
		return x.store, nil
	}
	for _, s := range stores() {
		tool, ok := x.t.look(s.command[0])
		if !ok || s.kind != "Debian" && !x.t.isDir(s.anchors) {
			continue
		}
		s.tool = tool
		x.store = &s
		return x.store, nil
	}
	for _, bundle := range []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem"} {
		if x.t.isFile(bundle) {
			x.store = &store{kind: "bundle", anchors: "/etc/exitgate/roots", bundles: []string{bundle}}
			return x.store, nil
		}
	}
	return nil, errors.New("this host has no trust store that is known: install the package ca-certificates")
}

// bundle returns the path of the bundle that programs are pointed at.
func (x *run) bundle() string {
	if x.h.Home != "" {
		return path.Join(x.h.Home, ".local/share/exitgate/ca-bundle.pem")
	}
	for _, b := range x.store.bundles {
		if x.t.isFile(b) {
			return b
		}
	}
	return x.store.bundles[0]
}

// What has to run after changes.
const (
	hookStore   = "store"
	hookSystemd = "systemd"
)

// storeItems puts the roots into the system's store.
func (x *run) storeItems(roots []Root) []item {
	var items []item
	hook := hookStore
	if x.store.kind == "bundle" {
		hook = ""
		items = append(items, block(x.bundle(), string(allPEM(roots))))
	}
	for _, r := range roots {
		f := whole(x.anchor(r), string(r.PEM()), 0o644)
		f.hook = hook
		items = append(items, f)
	}
	return items
}

// anchor is the file that holds one root.
func (x *run) anchor(r Root) string { return path.Join(x.store.anchors, r.Name()+".crt") }

// runHooks runs what the changes of this run need, once each.
func (x *run) runHooks(ctx context.Context) error {
	hooks := x.hooks
	x.hooks = nil
	var wrong []error
	for _, name := range hooks {
		switch name {
		case hookStore:
			wrong = append(wrong, x.updateStore(ctx))
		case hookSystemd:
			wrong = append(wrong, x.reloadSystemd(ctx))
		}
	}
	return errors.Join(wrong...)
}

// updateStore lets the system make its bundle again. After an error it is to run again when the change is taken back.
func (x *run) updateStore(ctx context.Context) error {
	s, err := x.findStore()
	if err != nil || s.command == nil {
		return err
	}
	argv := s.command
	if len(x.gone) > 0 {
		argv = s.fresh
	}
	x.say("ran", strings.Join(argv, " "))
	if x.dry {
		return nil
	}
	x.undos = append(x.undos, func(context.Context) error { x.hook(hookStore); return nil })
	c := Command{Argv: append([]string{s.tool}, argv[1:]...)}
	if out, err := x.run(ctx, c); err != nil {
		return fmt.Errorf("the system's trust store could not be updated: %w", commandError(c, out, err))
	}
	if s.kind == "Debian" && len(x.gone) > 0 {
		x.tellHooks(ctx)
	}
	return nil
}

// tellHooks tells Debian's hooks which certificates went. update-ca-certificates tells of additions only when it starts
// afresh, and without it keeps a removed local certificate: Java's store would trust a retired root for ever.
func (x *run) tellHooks(ctx context.Context) {
	var lines strings.Builder
	for _, name := range x.gone {
		if pem, ok := strings.CutSuffix(name, ".crt"); ok {
			fmt.Fprintf(&lines, "-/etc/ssl/certs/%s.pem\n", pem)
		}
	}
	for _, hook := range x.t.glob("/etc/ca-certificates/update.d/*") {
		if fi, err := x.t.stat(hook); err != nil || fi.Mode()&0o111 == 0 {
			continue
		}
		c := Command{Argv: []string{hook}, Stdin: []byte(lines.String())}
		if out, err := x.run(ctx, c); err != nil {
			x.skip(hook, "%v", commandError(c, out, err))
		}
	}
}

// run runs a command; as us, unless it says otherwise.
func (x *run) run(ctx context.Context, c Command) ([]byte, error) {
	if c.UID == 0 && c.GID == 0 {
		c.UID, c.GID = self()
	}
	return x.h.runner().Run(ctx, c)
}

// verify looks whether the bundle, which everything is pointed at, now holds the roots.
func (x *run) verify(roots []Root) error {
	if x.dry {
		return nil
	}
	b, found, err := x.t.read(x.bundle())
	if err != nil {
		return err
	}
	for _, r := range roots {
		if !found || !holds(b, r) {
			return fmt.Errorf("the root %s is in %s, and %s did not take it up: see whether the package ca-certificates is whole", r.Name(), x.anchorDir(), x.bundle())
		}
	}
	return nil
}

func (x *run) anchorDir() string {
	if x.store == nil {
		return path.Dir(x.bundle())
	}
	return x.store.anchors
}
