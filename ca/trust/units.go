package trust

import (
	"context"
	"path"
	"strconv"
)

// HasSystemd reports whether the host is one that systemd manages, running or not.
func (h Host) HasSystemd() bool { return (&run{h: h, t: h.tree()}).hasSystemd() }

// hasSystemd reports whether the host is one that systemd manages, running or not.
func (x *run) hasSystemd() bool {
	if x.h.Home != "" {
		return x.booted() // a user's units cannot be enabled without the user's own manager
	}
	_, ok := x.t.look("systemctl")
	return ok && x.t.isDir("/etc/systemd")
}

// systemctl runs systemctl; for the user's own manager in user mode.
func (x *run) systemctl(ctx context.Context, args ...string) error {
	tool, ok := x.t.look("systemctl")
	if !ok {
		return nil // it went, and its units with it
	}
	if x.h.Home != "" {
		args = append([]string{"--user"}, args...)
	}
	c := Command{Argv: append([]string{tool}, args...)}
	if out, err := x.run(ctx, c); err != nil {
		return commandError(c, out, err)
	}
	return nil
}

// booted reports whether systemd runs, as opposed to a container or an image that is being built.
func (x *run) booted() bool {
	if x.h.Home != "" {
		return x.t.isDir(userRuntime() + "/systemd")
	}
	return x.t.isDir("/run/systemd/system")
}

// userRuntime is where the user's own manager is spoken to.
func userRuntime() string {
	uid, _ := self()
	return "/run/user/" + strconv.Itoa(uid)
}

// reloadSystemd makes the running manager read what changed.
func (x *run) reloadSystemd(ctx context.Context) error {
	if !x.booted() {
		return nil
	}
	x.say("ran", "systemctl daemon-reload")
	if x.dry {
		return nil
	}
	x.undos = append(x.undos, func(context.Context) error { x.hook(hookSystemd); return nil })
	return x.systemctl(ctx, "daemon-reload")
}

// A unitItem is a unit that is enabled, and started where systemd runs.
type unitItem struct{ name, wants string }

func (x *run) unit(name string) unitItem {
	return unitItem{name, path.Join(x.h.UnitDir(), "timers.target.wants")}
}

// UnitDir is where units of the provisioning are put.
func (h Host) UnitDir() string {
	if h.Home != "" {
		return path.Join(h.Home, ".config/systemd/user")
	}
	return "/etc/systemd/system"
}

func (u unitItem) act() act {
	return act{Kind: kindUnit, Path: path.Join(u.wants, u.name), Name: u.name}
}
func (u unitItem) word() string { return "enabled" }

func (u unitItem) done(_ context.Context, x *run, _ *act) (bool, error) {
	_, err := x.t.lstat(path.Join(u.wants, u.name))
	return err == nil, nil
}

func (u unitItem) do(ctx context.Context, x *run) (func(context.Context) error, error) {
	if err := x.makeDir(u.wants, 0o755); err != nil {
		return nil, err
	}
	if err := x.note(u.act()); err != nil {
		return nil, err
	}
	undo := func(ctx context.Context) error { return x.disable(ctx, u.name) }
	return undo, x.systemctl(ctx, append(x.now("enable"), u.name)...)
}

func (x *run) now(verb string) []string {
	if x.booted() {
		return []string{verb, "--now"}
	}
	return []string{verb}
}

func (x *run) disable(ctx context.Context, name string) error {
	return x.systemctl(ctx, append(x.now("disable"), name)...)
}

func (x *run) undoUnit(ctx context.Context, a act) (string, error) {
	if _, err := x.t.lstat(a.Path); err != nil {
		return "", nil
	}
	return "disabled", x.act(func() error { return x.disable(ctx, a.Name) },
		func(ctx context.Context) error { return x.systemctl(ctx, append(x.now("enable"), a.Name)...) })
}
