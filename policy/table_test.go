package policy

import (
	"reflect"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
)

// TestSameGrant changes each field of a grant, and wants it noticed: else a reload would leave the old one in force.
func TestSameGrant(t *testing.T) {
	full := func() exitgate.Grant {
		return exitgate.Grant{ID: "g", Ports: []uint16{443}, Methods: []string{"GET"}, Paths: []string{"/a"}, Headers: map[string]string{"a": "b"}, At: day0, Until: day0}
	}
	a, b := full(), full()
	if !sameGrant(&a, &b) {
		t.Error("it is not itself")
	}
	for i := range reflect.TypeFor[exitgate.Grant]().NumField() {
		c := full()
		f := reflect.ValueOf(&c).Elem().Field(i)
		switch f.Interface().(type) {
		case time.Time:
			f.Set(reflect.ValueOf(day0.Add(1)))
		case map[string]string:
			f.Set(reflect.ValueOf(map[string]string{"a": "c"}))
		default:
			switch f.Kind() {
			case reflect.String:
				f.SetString("other")
			case reflect.Bool:
				f.SetBool(true)
			case reflect.Int64:
				f.SetInt(1)
			case reflect.Slice:
				f.Set(reflect.MakeSlice(f.Type(), 1, 1))
			default:
				t.Fatalf("how is %s changed?", f.Kind())
			}
		}
		if sameGrant(&a, &c) || sameGrant(&c, &a) {
			t.Errorf("a change of %s goes unnoticed", reflect.TypeFor[exitgate.Grant]().Field(i).Name)
		}
	}
}

// TestReloadTakesUp: what has not changed is taken from the revision before, to the same end as if all were new.
func TestReloadTakesUp(t *testing.T) {
	grants := manyGrants(200)
	grants[3].Methods = []string{"post", "GET"} // not in its one form
	e := mustEngine(t, Options{}, Data{Grants: grants})
	if changed, err := e.Reload(t.Context(), Data{Grants: append([]exitgate.Grant(nil), grants...)}); changed || err != nil {
		t.Error(changed, err)
	}
	kept := e.current.Load().table.grants["g7"]
	grants[5].Paths = []string{"/other"}
	grants = append(grants[:10], grants[11:]...)
	if changed, err := e.Reload(t.Context(), Data{Grants: grants}); !changed || err != nil {
		t.Error(changed, err)
	}
	s := e.current.Load()
	if s.table.grants["g7"] != kept || s.table.grants["g5"].patterns[0].text != "/other" || s.table.grants["g10"] != nil {
		t.Error("what changed, or what did not, is not as it should be")
	}
	anew := mustEngine(t, Options{}, Data{Grants: grants}).current.Load()
	if anew.revision != s.revision || anew.table.object().Compare(s.table.object()) != 0 {
		t.Error("a reload makes another table than a start")
	}
}
