package trust

import (
	"bytes"
	"path"
	"strings"
)

// plan lists all that shall be so, in the order in which it is done: first the files that others point at.
func (x *run) plan(w Want) ([]item, error) {
	var items []item
	for _, f := range w.Files {
		item := whole(f.Path, string(f.Content), f.Mode)
		if strings.HasPrefix(f.Path, x.h.UnitDir()+"/") {
			item.hook = hookSystemd
		}
		items = append(items, item)
	}
	if x.h.Home != "" {
		return append(items, x.userItems(w)...), nil
	}
	if _, err := x.findStore(); err != nil {
		return nil, err
	}
	browsers, err := x.browserItems(w)
	if err != nil {
		return nil, err
	}
	items = append(items, x.storeItems(w.Roots)...)
	items = append(items, x.envItems(x.variables(w))...)
	items = append(items, x.proxyItems(w.Proxy)...)
	items = append(items, x.javaItems(w)...)
	items = append(items, browsers...)
	items = append(items, x.nssItems(w.Roots)...)
	return append(items, x.unitItems(w)...), nil
}

func (x *run) unitItems(w Want) []item {
	var items []item
	for _, name := range w.Units {
		items = append(items, x.unit(name))
	}
	return items
}

// variables returns what programs are told, and puts it into the record.
func (x *run) variables(w Want) []Variable {
	x.rec.Vars = append(trustVariables(x.bundle()), proxyVariables(w.Proxy)...)
	return x.rec.Vars
}

// userItems is the plan for one user, who has a bundle of the system's roots and the gateway's.
func (x *run) userItems(w Want) []item {
	items := []item{fileItem{path: x.bundle(), mode: 0o644, content: func([]byte, bool) ([]byte, error) { return x.userBundle(w.Roots) }}}
	items = append(items, x.envItems(x.variables(w))...)
	x.skip("Java", "a user's variables cannot add a root to it; import %s by keytool where it matters", path.Base(x.bundle()))
	items = append(items, x.nssItems(w.Roots)...)
	return append(items, x.unitItems(w)...)
}

// userBundle joins the system's bundle, where there is one, and the roots.
func (x *run) userBundle(roots []Root) ([]byte, error) {
	var b bytes.Buffer
	for _, p := range []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"} {
		have, found, err := x.t.read(p)
		if err != nil {
			return nil, err
		}
		if found {
			b.Write(endLine(have))
			break
		}
	}
	b.Write(allPEM(roots))
	return b.Bytes(), nil
}
