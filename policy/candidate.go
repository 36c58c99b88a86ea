package policy

import (
	"context"
	"fmt"
	"regexp"
)

var fromFile = regexp.MustCompile(`^(grants|exemptions)\.yaml:[0-9]+$`)

// Candidate makes an engine of a policy directory, with the grants and exemptions that e has from elsewhere (the store),
// and its classes in audit mode: what e would be if its directory were dir. Of o only the bounds matter.
func (e *Engine) Candidate(ctx context.Context, dir string, o Options) (*Engine, error) {
	s := e.current.Load()
	d := Data{AuditClasses: s.audit}
	for _, g := range e.Grants() {
		if !fromFile.MatchString(g.Source) {
			d.Grants = append(d.Grants, g)
		}
	}
	for _, x := range e.Exemptions() {
		if !fromFile.MatchString(x.Source) {
			d.Exemptions = append(d.Exemptions, x)
		}
	}
	c := &Engine{options: Options{Dir: dir}}
	src, err := load(dir, d, nil)
	if err != nil {
		return nil, c.loadError(err)
	}
	if len(src.dropped) > 0 {
		return nil, c.loadError(fmt.Errorf("%w (and %d more)", src.dropped[0], len(src.dropped)-1))
	}
	o.Dir = dir
	return newEngine(ctx, o, src)
}
