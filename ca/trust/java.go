package trust

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// storePass is the password that Java's own keystores have. It is no secret: they hold no key.
const storePass = "changeit"

// javaHomes returns the Java runtimes that are found in the places where packages and people put them.
func (x *run) javaHomes() []string {
	var homes []string
	seen := map[string]bool{}
	for _, pattern := range []string{"/usr/lib/jvm/*", "/usr/lib64/jvm/*", "/usr/java/*", "/usr/local/java/*", "/usr/local/jdk*", "/usr/local/jre*",
		"/opt/java/*", "/opt/jdk*", "/opt/jre*", "/opt/java", "/opt/*/jre", "/opt/*/jbr", "/opt/jvm/*", "/usr/share/*/jbr"} {
		for _, p := range x.t.glob(pattern) {
			home, err := x.t.resolve(p)
			if err == nil && !seen[home] && x.t.isFile(home+"/bin/java") {
				seen[home] = true
				homes = append(homes, home)
			}
		}
	}
	return homes
}

// javaFile returns the first of the files of a home that exists, links followed.
func (x *run) javaFile(home string, names ...string) (string, bool) {
	for _, name := range names {
		p, err := x.t.resolve(path.Join(home, name))
		if err == nil && x.t.isFile(p) {
			return p, true
		}
	}
	return "", false
}

// managed reports whether the distribution makes a keystore from the system's store.
func managed(keystore string) bool {
	for _, dir := range []string{"/etc/ssl/certs/", "/etc/pki/", "/var/lib/ca-certificates/", "/etc/ca-certificates/"} {
		if strings.HasPrefix(keystore, dir) {
			return true
		}
	}
	return false
}

// javaItems puts the roots into each keystore of a Java that reads one of its own, and the proxy into each net.properties.
func (x *run) javaItems(w Want) []item {
	var items []item
	seen := map[string]bool{}
	for _, home := range x.javaHomes() {
		store, ok := x.javaFile(home, "lib/security/cacerts", "jre/lib/security/cacerts")
		if ok && !managed(store) && !seen[store] && x.ours(store, home) {
			seen[store] = true
			items = append(items, keystoreItem{store, path.Join(home, "bin/keytool"), w.Roots})
		}
		props, ok := x.javaFile(home, "conf/net.properties", "lib/net.properties", "jre/lib/net.properties")
		if ok && !seen[props] && w.Proxy.HTTPS != "" && x.ours(props, home) {
			seen[props] = true
			items = append(items, block(props, w.Proxy.netProperties()))
		}
	}
	return items
}

// ours reports whether nobody but root, and us, decides what lies at both paths. Else their owner could have us run a
// program, or write into a file, of their choice.
func (x *run) ours(paths ...string) bool {
	for _, p := range paths {
		for ; ; p = path.Dir(p) {
			fi, err := x.t.lstat(p)
			if err != nil {
				return false
			}
			uid, _ := owner(fi)
			if world := fi.Mode()&0o002 != 0 && fi.Mode()&fs.ModeSticky == 0; !trusted(uid) || world {
				x.skip(paths[0], "%s can be changed by others than root", p)
				return false
			}
			if p == "/" {
				break
			}
		}
	}
	return true
}

// A keystoreItem is the roots in one Java keystore.
type keystoreItem struct {
	path, tool string
	roots      []Root
}

func names(roots []Root) []string {
	var list []string
	for _, r := range roots {
		list = append(list, r.Name())
	}
	return list
}

func (k keystoreItem) act() act {
	return act{Kind: kindKeystore, Path: k.path, Name: strings.Join(names(k.roots), ","), Tool: k.tool}
}

func (k keystoreItem) word() string { return "imported" }

func (k keystoreItem) done(ctx context.Context, x *run, prior *act) (bool, error) {
	have, found, err := x.t.read(k.path)
	if err != nil || !found {
		return false, err
	}
	a := k.act()
	if prior != nil && prior.Name == a.Name && prior.After == digest(have) {
		return true, nil // no Java is started for what is known
	}
	aliases, err := x.aliases(ctx, k.tool, k.path)
	slices.Sort(aliases)
	want := names(k.roots)
	slices.Sort(want)
	return err == nil && slices.Equal(aliases, want), err
}

// aliases lists our entries of a keystore. An error is a *skipped: a keystore that cannot be read is somebody's own.
func (x *run) aliases(ctx context.Context, tool, keystore string) ([]string, error) {
	tool, err := x.t.resolve(tool)
	if err != nil || !x.t.isFile(tool) {
		return nil, &skipped{"there is no " + tool}
	}
	if !x.ours(tool) {
		return nil, &skipped{"its keytool is not run with our rights"}
	}
	c := Command{Argv: []string{tool, "-list", "-keystore", keystore, "-storepass", storePass}}
	out, err := x.run(ctx, c)
	if err != nil {
		return nil, &skipped{commandError(c, out, err).Error()}
	}
	var list []string
	for line := range strings.Lines(string(out)) {
		if alias, _, ok := strings.Cut(line, ","); ok && strings.HasPrefix(alias, "exitgate-") {
			list = append(list, alias)
		}
	}
	return list, nil
}

// trusted reports whether programs of that user may run with our rights.
func trusted(uid int) bool {
	me, _ := self()
	return uid == 0 || uid == me
}

func (k keystoreItem) do(ctx context.Context, x *run) (func(context.Context) error, error) {
	a := k.act()
	have, found, err := x.t.read(k.path)
	if err == nil && !found {
		err = &skipped{"it went meanwhile"}
	}
	if err != nil {
		return nil, err
	}
	there, err := x.aliases(ctx, k.tool, k.path)
	if err != nil {
		return nil, err
	}
	want, err := x.rekey(ctx, k.tool, have, there, k.roots)
	if err != nil {
		return nil, err
	}
	prior := x.rec.find(a.key())
	if prior == nil && len(there) == 0 {
		if a.Backup, err = x.keep(have); err != nil {
			return nil, err
		}
	}
	if prior == nil && a.Backup != "" || prior != nil && prior.After == digest(have) {
		a.After = digest(want)
	}
	if err := x.note(a); err != nil {
		return nil, err
	}
	if err := x.t.write(k.path, want, 0); err != nil {
		return nil, err
	}
	return x.putBack(k.path, have, true, 0), nil
}

// rekey returns a keystore without the aliases that are there, and with the roots. It works on a copy.
func (x *run) rekey(ctx context.Context, tool string, keystore []byte, there []string, roots []Root) ([]byte, error) {
	if err := x.makeState(); err != nil {
		return nil, err
	}
	copied, cert := path.Join(x.h.state(), "keystore.new"), path.Join(x.h.state(), "root.new")
	defer func() { _ = errors.Join(x.t.remove(copied), x.t.remove(cert)) }()
	if err := x.t.write(copied, keystore, 0o600); err != nil {
		return nil, err
	}
	for _, alias := range there {
		if err := x.keytool(ctx, tool, "-delete", "-alias", alias, "-keystore", copied, "-storepass", storePass); err != nil {
			return nil, err
		}
	}
	for _, r := range roots {
		if err := x.t.write(cert, r.PEM(), 0o600); err != nil {
			return nil, err
		}
		if err := x.keytool(ctx, tool, "-importcert", "-noprompt", "-alias", r.Name(), "-file", cert, "-keystore", copied, "-storepass", storePass); err != nil {
			return nil, err
		}
	}
	b, _, err := x.t.read(copied)
	return b, err
}

func (x *run) keytool(ctx context.Context, argv ...string) error {
	c := Command{Argv: argv}
	if out, err := x.run(ctx, c); err != nil {
		return &skipped{commandError(c, out, err).Error()}
	}
	return nil
}

// undoKeystore makes a keystore what it was, or takes our entries out of one that was changed since.
func (x *run) undoKeystore(ctx context.Context, a act) (string, error) {
	have, found, err := x.t.read(a.Path)
	if err != nil || !found {
		return "", err // the Java is gone
	}
	if x.dry {
		return "removed", nil
	}
	var want []byte
	if a.After != "" && a.After == digest(have) && a.Backup != "" {
		want, err = x.kept(a)
	} else {
		var there []string
		if there, err = x.aliases(ctx, a.Tool, a.Path); err == nil {
			want, err = x.rekey(ctx, a.Tool, have, there, nil)
		}
	}
	var s *skipped
	if errors.As(err, &s) {
		x.skip(a.Path, "the roots are still in it: %s", s.why)
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return "removed", x.act(func() error { return x.t.write(a.Path, want, 0) }, x.putBack(a.Path, have, true, 0))
}
