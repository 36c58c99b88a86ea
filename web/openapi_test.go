package web

import (
	"bytes"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"go.yaml.in/yaml/v3"

	"github.com/exitgate/exitgate"
)

// The committed document is valid OpenAPI 3.1; it has the routes, methods and members that the API has, and no others;
// and every answer of every test in this package is as it says.

// document reads openapi.yaml for tests.
var document = sync.OnceValues(func() (validator.Validator, error) {
	doc, err := libopenapi.NewDocument(openAPI)
	if err != nil {
		return nil, err
	}
	v, errs := validator.NewValidator(doc)
	if len(errs) > 0 {
		return nil, errs[0]
	}
	return v, nil
})

func TestOpenAPIIsValid(t *testing.T) {
	v, err := document()
	if err != nil {
		t.Fatal(err)
	}
	if ok, errs := v.ValidateDocument(); !ok {
		for _, e := range errs {
			t.Errorf("%s: %s", e.Message, e.Reason)
			for _, s := range e.SchemaValidationErrors {
				t.Errorf("  %s: %s", s.KeywordLocation, s.Reason)
			}
		}
	}
}

// asDocumented fails t when an answer is not as the document says.
func asDocumented(t *testing.T, r *http.Request, a answered) {
	t.Helper()
	v, err := document()
	if err != nil {
		t.Fatal(err)
	}
	if a.status == http.StatusNotFound && strings.Contains(a.body, "no such path") || a.status == http.StatusMethodNotAllowed || strings.HasPrefix(r.URL.Path, "/v2") {
		return // it is not in the document
	}
	res := &http.Response{StatusCode: a.status, Header: a.header, Body: io.NopCloser(bytes.NewReader([]byte(a.body))), Request: r}
	if ok, errs := v.ValidateHttpResponse(r, res); !ok {
		for _, e := range errs {
			t.Errorf("%s %s: %d %.300s: not as documented: %s: %s", r.Method, r.URL, a.status, a.body, e.Message, e.Reason)
			for _, s := range e.SchemaValidationErrors {
				t.Errorf("  %s: %s", s.FieldPath, s.Reason)
			}
		}
	}
}

type openDocument struct {
	Paths      map[string]map[string]any `yaml:"paths"`
	Components struct {
		Schemas map[string]struct {
			Properties map[string]any `yaml:"properties"`
			Enum       []string       `yaml:"enum"`
		} `yaml:"schemas"`
	} `yaml:"components"`
}

func readDocument(t *testing.T) (d openDocument) {
	if err := yaml.Unmarshal(openAPI, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestOpenAPIHasTheRoutes(t *testing.T) {
	var documented, routed []string
	for path, methods := range readDocument(t).Paths {
		for m := range methods {
			if m != "parameters" {
				documented = append(documented, strings.ToUpper(m)+" "+path)
			}
		}
	}
	for _, r := range newAdmin(t, newMemory()).routes() {
		routed = append(routed, r.pattern)
	}
	slices.Sort(documented)
	slices.Sort(routed)
	if !slices.Equal(documented, routed) {
		t.Errorf("documented:\n%s\nrouted:\n%s", strings.Join(documented, "\n"), strings.Join(routed, "\n"))
	}
}

func TestOpenAPIHasTheMembers(t *testing.T) {
	schemas := readDocument(t).Components.Schemas
	for name, v := range map[string]any{
		"Problem": Problem{}, "Class": Class{}, "Host": Host{}, "HostToken": HostToken{}, "APIToken": APIToken{},
		"Grant": exitgate.Grant{}, "Exemption": exitgate.Exemption{}, "Ask": Ask{}, "Request": Request{}, "Approval": Approval{},
		"Use": Use{}, "Entry": Entry{}, "Flow": exitgate.Flow{}, "Hypothesis": Hypothesis{}, "Status": Status{}, "Trust": Trust{},
		"ProxySettings": ProxySettings{}, "CAState": CAState{}, "CACertificate": CACertificate{}, "CARotation": CARotation{}, "CARequest": CARequest{},
		"CAIssuer": CAIssuer{}, "IdentityState": IdentityState{}, "IdentityRoot": IdentityRoot{}, "IdentityRotation": IdentityRotation{},
		"IdentityRevocation": IdentityRevocation{},
	} {
		var documented []string
		for p := range schemas[name].Properties {
			documented = append(documented, p)
		}
		coded := members(reflect.TypeOf(v))
		slices.Sort(documented)
		slices.Sort(coded)
		if !slices.Equal(documented, coded) {
			t.Errorf("%s: documented %v, in Go %v", name, documented, coded)
		}
	}
	var roles []string
	for _, r := range Roles() {
		roles = append(roles, string(r))
	}
	if got := schemas["Role"].Enum; !slices.Equal(got, roles) {
		t.Errorf("roles: documented %v, in Go %v", got, roles)
	}
}

// members returns the names that a type has in JSON.
func members(t reflect.Type) (out []string) {
	for f := range t.Fields() {
		if f.Anonymous {
			out = append(out, members(f.Type)...)
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "" && name != "-" {
			out = append(out, name)
		}
	}
	return out
}
