package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/exitgate/exitgate"
)

// A Role says what a token may be used for.
type Role string

// The roles, from the least to the most.
const (
	RoleViewer      Role = "viewer"      // read what is granted, to whom, and how the gateway stands
	RoleAuditor     Role = "auditor"     // read the records as well: flows, the audit trail, who has tokens
	RoleProvisioner Role = "provisioner" // viewer, and change hosts and the tokens that they enrol with
	RoleEditor      Role = "editor"      // provisioner, and change classes, grants, exemptions and requests
	RoleAdmin       Role = "admin"       // everything
)

// Roles lists every role.
func Roles() []Role {
	return []Role{RoleViewer, RoleAuditor, RoleProvisioner, RoleEditor, RoleAdmin}
}

// A right is what a route asks of a role.
type right int

const (
	mayRead      right = iota // what is granted and to whom
	mayTrail                  // read the records
	mayProvision              // change hosts and host tokens
	mayGrant                  // change classes, grants, exemptions, requests
	mayAll
)

var rights = map[Role][]right{
	RoleViewer:      {mayRead},
	RoleAuditor:     {mayRead, mayTrail},
	RoleProvisioner: {mayRead, mayProvision},
	RoleEditor:      {mayRead, mayProvision, mayGrant},
	RoleAdmin:       {mayRead, mayTrail, mayProvision, mayGrant, mayAll},
}

func (r Role) has(what right) bool { return slices.Contains(rights[r], what) }

func (r Role) check() error {
	if _, ok := rights[r]; ok {
		return nil
	}
	var words []string
	for _, role := range Roles() {
		words = append(words, string(role))
	}
	hint := ""
	if near := Nearest(string(r), words); near != "" {
		hint = "; did you mean " + near + "?"
	}
	return fmt.Errorf("role %.40q: it is one of %s%s", r, strings.Join(words, ", "), hint)
}

// needs returns the least role that has the right.
func needs(what right) Role {
	for _, r := range Roles() {
		if r.has(what) {
			return r
		}
	}
	return RoleAdmin
}

// A Principal is who asks.
type Principal struct {
	Who     string // the user of the admin socket, "token:NAME", "host:NAME"; "" when the system did not say
	Role    Role
	Classes []exitgate.Class // all that it may change; none: no bound
	Local   bool             // it came through the admin socket
}

type principalKey struct{}

func withPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// principal returns who asks. Without one nothing is allowed: the zero Principal has no role.
func principal(r *http.Request) Principal {
	p, _ := r.Context().Value(principalKey{}).(Principal)
	return p
}

// may returns an error unless p has the right.
func (p Principal) may(what right) error {
	if p.Role.has(what) {
		return nil
	}
	return Forbidden(fmt.Errorf("%s has the role %s, and this needs %s", p.name(), p.Role, needs(what)))
}

// change returns who answers for a change.
func (p Principal) change() (string, error) {
	if p.Who == "" {
		return "", Forbidden(errors.New("a change needs somebody who answers for it, and the system did not say which user is asking"))
	}
	return p.Who, nil
}

// bound returns an error when p may not change what is of that class.
func (p Principal) bound(c exitgate.Class) error {
	if len(p.Classes) == 0 || slices.Contains(p.Classes, c) {
		return nil
	}
	of := "class " + string(c)
	if c == "" {
		of = "no class that is known"
	}
	return Forbidden(fmt.Errorf("%s may change what is of class %s, and this is of %s", p.name(), joined(p.Classes), of))
}

func (p Principal) name() string {
	if p.Who == "" {
		return "a user that the system did not name"
	}
	return p.Who
}

func joined(classes []exitgate.Class) string {
	words := make([]string, len(classes))
	for i, c := range classes {
		words[i] = string(c)
	}
	return strings.Join(words, ", ")
}
