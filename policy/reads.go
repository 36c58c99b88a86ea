package policy

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// reads says which parts of input the compiled rules can look at. It is found by walking every rule of every
// module for references to input, whether the rule is used or not, so that it can only say too much.
type reads struct {
	needed [numFields]bool // must be in input
	keyed  [numFields]bool // two questions that differ in it may have different answers
	// Header names that rules name outright; they are sorted. With keyed[httpHeaders] all headers count.
	requestHeaders  []string
	responseHeaders []string
	// whole says that rules look at input, or at a part that a site determines only in part, in one piece, or replace it.
	whole bool
}

// bySite are the fields that the base policy reads only to hold them against the grants of the site, so that the
// site's own part of the key stands for them. See site.appendKey.
var bySite = [numFields]bool{
	fieldAt: true, hostName: true, httpPrefixes: true, httpSegments: true, httpHeaders: true,
}

// inSite are the fields that a site is made of: they are in the key already, whoever reads them.
var inSite = [numFields]bool{hostClass: true, destHost: true, destKeys: true}

func readsOf(modules map[string]*ast.Module) *reads {
	r := &reads{}
	for name, m := range modules {
		base := strings.HasPrefix(name, baseDir)
		for _, rule := range m.Rules {
			r.walk(rule, base)
		}
	}
	slices.Sort(r.requestHeaders)
	slices.Sort(r.responseHeaders)
	r.requestHeaders, r.responseHeaders = slices.Compact(r.requestHeaders), slices.Compact(r.responseHeaders)
	return r
}

func (r *reads) walk(x any, base bool) {
	ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case ast.Ref:
			if x[0].Value.Compare(ast.InputRootDocument.Value) != 0 {
				return false
			}
			r.note(constants(x[1:]), base)
			for _, t := range x[1:] {
				r.walk(t, base)
			}
			return true
		case *ast.With:
			r.whole = true
		case ast.Var:
			if x.Compare(ast.InputRootDocument.Value) == 0 {
				r.note(nil, base)
			}
		}
		return false
	}).Walk(x)
}

// constants returns the leading parts of a reference that are strings.
func constants(ref ast.Ref) []string {
	var out []string
	for _, t := range ref {
		s, ok := t.Value.(ast.String)
		if !ok {
			break
		}
		out = append(out, string(s))
	}
	return out
}

// note marks every field that lies at or below path, or that path lies below.
func (r *reads) note(path []string, base bool) {
	if len(path) == 0 || len(path) == 1 && (path[0] == "host" || path[0] == "dest") {
		r.whole = true
	}
	for i := range numFields {
		f := fields[i]
		switch {
		case len(path) > 0 && path[0] != f.group && f.group != "", len(path) > 0 && f.group == "" && path[0] != f.name:
			continue
		case f.group != "" && len(path) > 1 && path[1] != f.name:
			continue
		}
		r.needed[i] = true
		switch {
		case inSite[i] || base && bySite[i]:
		case i == httpHeaders && len(path) > 2:
			r.requestHeaders = append(r.requestHeaders, path[2])
		case i == responseHeaders && len(path) > 2:
			r.responseHeaders = append(r.responseHeaders, path[2])
		default:
			r.keyed[i] = true
		}
	}
}
