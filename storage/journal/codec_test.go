package journal

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage/storagetest"
)

// TestCodec: every flow comes back equal in every field, bytes that are not UTF-8 included.
func TestCodec(t *testing.T) {
	flows := append(append(storagetest.Every(), storagetest.Poison()...), storagetest.Random(300)...)
	begun, ended := storagetest.Typical()
	for _, want := range append(flows, begun, ended, new(exitgate.Flow), filled(t)) {
		b := appendSubject(appendFlow(nil, want), &want.Question)
		var got exitgate.Flow
		d := decoder{b: string(b)}
		d.flow(&got)
		d.subject(&got.Question)
		if d.bad || d.left() > 0 {
			t.Fatalf("%d bytes of %d are left, bad %v", d.left(), len(b), d.bad)
		}
		if a, b := normal(*want), normal(got); !reflect.DeepEqual(a, b) {
			t.Errorf("got  %+v\nwant %+v", b, a)
		}
		for cut := 0; cut < len(b); cut += 1 + cut/7 {
			d := decoder{b: string(b[:cut])}
			d.flow(&got)
			if d.subject(&got.Question); !d.bad {
				t.Fatalf("of %d bytes %d were taken for a flow", len(b), cut)
			}
		}
	}
}

// normal brings what is equal into one form: times in UTC, no causes of faults, no empty rewrite.
func normal(f exitgate.Flow) exitgate.Flow {
	f.Begin, f.End, f.Question.At = f.Begin.UTC(), f.End.UTC(), f.Question.At.UTC()
	if f.Fault != nil {
		fault := *f.Fault
		fault.Err = nil
		f.Fault = &fault
	}
	if len(f.Verdict.Rewrite) == 0 {
		f.Verdict.Rewrite = nil
	}
	return f
}

// filled returns a flow in which no field is zero, so that a field that is new in package exitgate and not in the codec
// fails the test.
func filled(t *testing.T) *exitgate.Flow {
	f := new(exitgate.Flow)
	fill(t, reflect.ValueOf(f).Elem(), "Flow")
	return f
}

func fill(t *testing.T, v reflect.Value, name string) {
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(1_800_000_000, 7).UTC()))
		return
	case netip.Addr:
		v.Set(reflect.ValueOf(netip.MustParseAddr("2001:db8::7%zone")))
		return
	case netip.AddrPort:
		v.Set(reflect.ValueOf(netip.MustParseAddrPort("[2001:db8::7%zone]:443")))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(name)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(len(name)))
	case reflect.Uint8, reflect.Uint16:
		v.SetUint(1)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Array:
		for i := range v.Len() {
			fill(t, v.Index(i), name)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(t, v.Index(i), name)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		value := reflect.New(v.Type().Elem()).Elem()
		fill(t, value, name)
		v.SetMapIndex(reflect.ValueOf(name), value)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), name)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), name+"."+v.Type().Field(i).Name)
		}
	case reflect.Interface: // the cause of a fault, which is not kept
	default:
		t.Fatalf("%s is of kind %s, which this test does not know", name, v.Kind())
	}
}
