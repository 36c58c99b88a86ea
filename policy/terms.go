package policy

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// timeLayout is how time stands in input and in the table: in UTC and with all nine digits, so that the order of
// the text is the order of time.
const timeLayout = "2006-01-02T15:04:05.000000000Z"

func timeText(t time.Time) string { return t.UTC().Format(timeLayout) }

// terms makes what Rego reads as data.exitgate.table:
//
//	grants.class.CLASS.KEY.ID and grants.host.HOST.KEY.ID, and exemptions in the same way.
//
// Equal parts are shared between grants, for there may be a hundred thousand.
type terms struct {
	shared map[string]*ast.Term
}

func (t *table) object() ast.Object {
	b := terms{shared: map[string]*ast.Term{}}
	grants := map[string][][2]*ast.Term{}
	exempt := map[string][][2]*ast.Term{}
	for s, byKey := range t.found {
		var g, x [][2]*ast.Term
		for key, list := range byKey {
			var gs, xs [][2]*ast.Term
			for _, e := range list {
				if e.grant != nil {
					gs = append(gs, [2]*ast.Term{ast.StringTerm(e.id()), b.once(e)})
				} else {
					xs = append(xs, [2]*ast.Term{ast.StringTerm(e.id()), b.exemption(e)})
				}
			}
			g, x = addItem(g, key, gs), addItem(x, key, xs)
		}
		grants[s.kind], exempt[s.kind] = addItem(grants[s.kind], s.name, g), addItem(exempt[s.kind], s.name, x)
	}
	bothKinds := func(m map[string][][2]*ast.Term) *ast.Term {
		return ast.ObjectTerm(item(kindClass, ast.ObjectTerm(m[kindClass]...)), item(kindHost, ast.ObjectTerm(m[kindHost]...)))
	}
	return ast.NewObject(item("grants", bothKinds(grants)), item("exemptions", bothKinds(exempt)))
}

func item(key string, value *ast.Term) [2]*ast.Term {
	return [2]*ast.Term{textTerm(key), value}
}

func addItem(to [][2]*ast.Term, key string, items [][2]*ast.Term) [][2]*ast.Term {
	if len(items) == 0 {
		return to
	}
	return append(to, item(key, ast.ObjectTerm(items...)))
}

// once makes the term of a grant, unless the revision before had it.
func (b *terms) once(e *entry) *ast.Term {
	if e.term == nil {
		e.term = b.grant(e)
	}
	return e.term
}

func (b *terms) grant(e *entry) *ast.Term {
	g := e.grant
	var paths, exact []string
	var stars []*ast.Term
	for _, p := range e.patterns {
		switch {
		case p.stars > 0:
			stars = append(stars, ast.ObjectTerm(item("end", ast.StringTerm(p.end)), item("segments", stringsTerm(p.segments))))
		case p.end == endExact:
			exact = append(exact, strings.TrimSuffix(p.text, "$"))
		default:
			paths = append(paths, p.text)
		}
	}
	return ast.ObjectTerm(
		item("any_method", ast.InternedTerm(slices.Equal(g.Methods, anyMethod))),
		item("any_path", ast.InternedTerm(len(e.patterns) == 0)),
		item("exact", b.set(exact)),
		item("headers", globsTerm(g.Headers)),
		item("methods", b.set(grantMethods(g))),
		item("paths", b.set(paths)),
		item("patterns", ast.ArrayTerm(stars...)),
		item("ports", b.ports(e.ports)),
		item("slashes", b.slashes(g.EncodedSlash)),
		item("schemes", b.set(grantSchemes(g))),
		item("until", b.text(timeText(e.until))),
	)
}

func (b *terms) exemption(e *entry) *ast.Term {
	return ast.ObjectTerm(item("ports", b.ports(e.ports)), item("until", b.text(timeText(e.until))))
}

func (b *terms) share(key string, make func() *ast.Term) *ast.Term {
	t := b.shared[key]
	if t == nil {
		t = make()
		b.shared[key] = t
	}
	return t
}

func (b *terms) text(s string) *ast.Term {
	return b.share("t"+s, func() *ast.Term { return ast.StringTerm(s) })
}

// set makes an object with a true for each string, so that membership is a look-up.
func (b *terms) set(list []string) *ast.Term {
	return b.share("s"+strings.Join(list, "\n"), func() *ast.Term {
		items := make([][2]*ast.Term, len(list))
		for i, s := range list {
			items[i] = item(s, ast.InternedTerm(true))
		}
		return ast.ObjectTerm(items...)
	})
}

func (b *terms) ports(ports []uint16) *ast.Term {
	key := []byte("p")
	for _, p := range ports {
		key = append(strconv.AppendUint(key, uint64(p), 10), ' ')
	}
	return b.share(string(key), func() *ast.Term {
		items := make([]*ast.Term, len(ports))
		for i, p := range ports {
			items[i] = ast.InternedTerm(int(p))
		}
		return ast.ArrayTerm(items...)
	})
}

// slashes lists the values of encoded_slash in a request that the grant takes.
func (b *terms) slashes(encoded bool) *ast.Term {
	if encoded {
		return b.share("/%2F", func() *ast.Term { return ast.ArrayTerm(ast.InternedTerm(false), ast.InternedTerm(true)) })
	}
	return b.share("/", func() *ast.Term { return ast.ArrayTerm(ast.InternedTerm(false)) })
}

func stringsTerm(list []string) *ast.Term {
	items := make([]*ast.Term, len(list))
	for i, s := range list {
		items[i] = ast.StringTerm(validText(s))
	}
	return ast.ArrayTerm(items...)
}

// globsTerm writes the header conditions of a grant in OPA's glob syntax, in which more than "*" is special.
func globsTerm(headers map[string]string) *ast.Term {
	items := make([][2]*ast.Term, 0, len(headers))
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		items = append(items, item(name, ast.StringTerm(quoteGlob(headers[name]))))
	}
	return ast.ObjectTerm(items...)
}

func quoteGlob(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if strings.IndexByte(`\?[]{}!,-`, s[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
