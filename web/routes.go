package web

import (
	_ "embed" // for the OpenAPI document
	"fmt"
	"net/http"
	"path"
	"runtime/debug"
)

// A route is one path and method of the API, and what it asks of a role.
type route struct {
	pattern string
	needs   right
	handle  func(http.ResponseWriter, *http.Request) error
}

//go:embed openapi.yaml
var openAPI []byte

// routes is the whole API.
func (a *Admin) routes() []route {
	list := []route{
		{"GET /v1/flows", mayTrail, a.flows},
		{"GET /v1/flows/{id}", mayTrail, a.flow},
		{"GET /v1/audit", mayTrail, a.audit},
		{"GET /v1/status", mayRead, a.status},
		{"GET /v1/trust", mayRead, a.trust},
		{"GET /v1/proxy", mayRead, a.proxy},
		{"GET /v1/uses", mayRead, a.uses},
		{"POST /v1/explain", mayRead, a.explain},
		{"POST /v1/reload", mayAll, a.reload},
		{"POST /v1/grants/{id}/renew", mayGrant, a.renew},
		{"GET /v1/openapi.yaml", mayRead, func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("Content-Type", "application/yaml")
			w.Write(openAPI)
			return nil
		}},
	}
	list = append(list, crud("classes", a.classes(), mayRead, mayGrant)...)
	list = append(list, crud("hosts", a.hosts(), mayRead, mayProvision)...)
	list = append(list, crud("host-tokens", a.hostTokens(), mayRead, mayProvision)...)
	list = append(list, crud("api-tokens", a.apiTokens(), mayTrail, mayAll)...)
	list = append(list, crud("grants", a.grants(), mayRead, mayGrant)...)
	list = append(list, crud("exemptions", a.exemptions(), mayRead, mayGrant)...)
	q := a.requests()
	return append(list,
		route{"GET /v1/identity", mayRead, a.identityState},
		route{"POST /v1/identity/rotate", mayAll, a.identityRotate},
		route{"POST /v1/identity/revoke", mayAll, a.identityRevoke},
		route{"GET /v1/ca", mayRead, a.caState},
		route{"POST /v1/ca/rotate", mayAll, a.caRotate},
		route{"POST /v1/ca/request", mayAll, a.caRequest},
		route{"POST /v1/ca/issuer", mayAll, a.caInstall},
		route{"GET /v1/requests", mayRead, q.list},
		route{"POST /v1/requests", mayGrant, a.ask},
		route{"GET /v1/requests/{id}", mayRead, q.get},
		route{"DELETE /v1/requests/{id}", mayGrant, q.remove},
		route{"POST /v1/requests/{id}/approve", mayGrant, a.approve},
		route{"POST /v1/requests/{id}/reject", mayGrant, a.reject},
	)
}

// crud is the routes of a resource.
func crud[T any](name string, s resource[T], read, change right) []route {
	all, one := "/v1/"+name, "/v1/"+name+"/{id}"
	return []route{
		{"GET " + all, read, s.list}, {"POST " + all, change, s.add},
		{"GET " + one, read, s.get}, {"PUT " + one, change, s.put}, {"DELETE " + one, change, s.remove},
	}
}

// handler is the API for those whom authenticate knows.
func (a *Admin) handler(authenticate func(*http.Request) (Principal, error)) http.Handler {
	m := http.NewServeMux()
	for _, route := range a.routes() {
		m.HandleFunc(route.pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := principal(r).may(route.needs); err != nil {
				fail(w, r, a.log(), err)
			} else if err := route.handle(w, r); err != nil {
				fail(w, r, a.log(), err)
			}
		})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer a.caught(w, r)
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		p, err := authenticate(r)
		if err != nil {
			refuse(w, r, a, err)
			return
		}
		r = r.WithContext(withPrincipal(r.Context(), p))
		if h, pattern := m.Handler(r); pattern == "" || path.Clean(r.URL.Path) != r.URL.Path {
			fail(w, r, a.log(), unrouted(w, r, h))
			return
		}
		m.ServeHTTP(w, r)
	})
}

// caught makes a panic of a route an answer and a line in the log: the gateway lives, and its client is told.
func (a *Admin) caught(w http.ResponseWriter, r *http.Request) {
	v := recover()
	switch v {
	case nil:
		return
	case http.ErrAbortHandler:
		panic(v) // the server's own way to cut a connection
	}
	a.log().Error("the API panicked", "method", r.Method, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
	fail(w, r, a.log(), fmt.Errorf("%.20s %.200q: an error inside the gateway; its log has the cause", r.Method, r.URL.Path))
}

// unrouted says what is wrong with a path and method that no route has. The mux's own handler tells whether another
// method would do.
func unrouted(w http.ResponseWriter, r *http.Request, h http.Handler) error {
	probe := &headOnly{header: http.Header{}}
	h.ServeHTTP(probe, r)
	if allow := probe.header.Get("Allow"); probe.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", allow)
		return problem(http.StatusMethodNotAllowed, fmt.Errorf("%.20s %.200q: this path takes %s", r.Method, r.URL.Path, allow))
	}
	return NotFound(fmt.Errorf("%.20s %.200q: the API has no such path", r.Method, r.URL.Path))
}

// headOnly is a ResponseWriter that keeps the head.
type headOnly struct {
	header http.Header
	status int
}

func (h *headOnly) Header() http.Header         { return h.header }
func (h *headOnly) WriteHeader(status int)      { h.status = status }
func (h *headOnly) Write(b []byte) (int, error) { return len(b), nil }

func (a *Admin) status(w http.ResponseWriter, r *http.Request) error {
	answer(w, http.StatusOK, a.Status(r.Context()))
	return nil
}

func (a *Admin) trust(w http.ResponseWriter, r *http.Request) error {
	t, err := a.Trust(r.Context())
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, t)
	return nil
}

func (a *Admin) proxy(w http.ResponseWriter, r *http.Request) error {
	p, err := a.Proxy(r.Context())
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, p)
	return nil
}
