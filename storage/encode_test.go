package storage_test

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/quick"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/storage"
	"github.com/exitgate/exitgate/storage/storagetest"
)

// same fails t unless what we wrote is read by encoding/json as what encoding/json wrote.
func same(t *testing.T, f *exitgate.Flow) {
	t.Helper()
	ours := storage.AppendFlow(nil, f)
	theirs, err := json.Marshal(f)
	if err != nil {
		t.Fatalf("the reference cannot write it: %v", err)
	}
	var got, want exitgate.Flow
	if err := json.Unmarshal(ours, &got); err != nil {
		t.Fatalf("%v in %.300s", err, ours)
	}
	if err := json.Unmarshal(theirs, &want); err != nil {
		t.Fatal(err)
	}
	got.Verdict.Rewrite, want.Verdict.Rewrite = compact(got.Verdict.Rewrite), compact(want.Verdict.Rewrite)
	storagetest.Same(t, &got, &want)
	parts, err := storage.DecodeFlow(storage.AppendRecord(nil, f), storage.AppendQuestion(nil, &f.Question))
	if err != nil {
		t.Fatal(err)
	}
	parts.Verdict.Rewrite = compact(parts.Verdict.Rewrite)
	storagetest.Same(t, parts, &want)
}

// compact makes two spellings of the same JSON equal: encoding/json escapes < and > in it.
func compact(raw json.RawMessage) json.RawMessage {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return raw
	}
	b, _ := json.Marshal(v)
	return b
}

func TestEncodeCorpus(t *testing.T) {
	for _, f := range append(storagetest.Every(), storagetest.Poison()...) {
		same(t, f)
	}
}

// TestEncodeFields sets each field of a flow in turn, so that a field that is added to the nouns and forgotten in the
// appenders fails here.
func TestEncodeFields(t *testing.T) {
	full := storagetest.Full()
	var walk func(path string, v reflect.Value)
	walk = func(path string, v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			if v.IsNil() {
				t.Errorf("%s is nil in the flow that should have everything", path)
				return
			}
			walk(path, v.Elem())
		case reflect.Struct:
			if v.IsZero() {
				t.Errorf("%s is zero in the flow that should have everything", path)
			}
			switch v.Interface().(type) {
			case time.Time, netip.Addr, netip.AddrPort:
				return
			}
			for i := range v.NumField() {
				if f := v.Type().Field(i); f.Tag.Get("json") != "-" {
					walk(path+"."+f.Name, v.Field(i))
				}
			}
		default:
			if v.IsZero() {
				t.Errorf("%s is zero in the flow that should have everything", path)
			}
		}
	}
	walk("Flow", reflect.ValueOf(full))
	same(t, full)
}

func TestEncodeQuick(t *testing.T) {
	check := func(text []string, n []int64, headers map[string][]string, port uint16, addr [16]byte, ok bool, act uint8) bool {
		at := func(i int) string {
			if len(text) == 0 {
				return ""
			}
			return text[i%len(text)]
		}
		num := func(i int) int64 {
			if len(n) == 0 {
				return 0
			}
			return n[i%len(n)]
		}
		_, f := storagetest.Typical()
		f.Gateway, f.UpstreamCert, f.Kind, f.Status = at(0), at(1), exitgate.Kind(at(2)), int(num(0))
		f.Phases = exitgate.Phases{Resolve: time.Duration(num(1)), Connect: time.Duration(num(2)), TLS: time.Duration(num(3)), Wait: time.Duration(num(4))}
		f.Sent, f.Received = exitgate.Bytes{Header: num(5), Body: num(6)}, exitgate.Bytes{Header: num(7), Body: num(8)}
		f.Verdict.Action, f.Verdict.Reason, f.Verdict.Audit = exitgate.Action(act), at(3), ok
		f.Begin = time.Unix(num(9)%253402300799, num(10)%1e9)
		f.Question.Dest.Addr = netip.AddrPortFrom(netip.AddrFrom16(addr), port)
		f.Question.Host.Addr = netip.AddrFrom16(addr).Unmap()
		f.Question.HTTP.Headers, f.Question.TLS.ALPN = headers, text
		f.Interrupted = ok
		if f.Begin.UTC().Year() < 0 {
			f.Begin = time.Time{}
		}
		f.Begin = f.Begin.UTC()
		same(t, f)
		return !t.Failed()
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 300}); err != nil {
		t.Error(err)
	}
}

// TestEncodeKeepsBytes shows that bytes which are not UTF-8 are in the stored JSON, one lone surrogate for each.
func TestEncodeKeepsBytes(t *testing.T) {
	q := exitgate.Question{Host: exitgate.Host{Name: "a\xff\x80\x00z"}}
	if got := string(storage.AppendQuestion(nil, &q)); !strings.Contains(got, `"name":"a\udcff\udc80\u0000z"`) {
		t.Error(got)
	}
}

// TestEncodeBadRewriteRegression: a rewrite that is not JSON made the whole record unreadable.
func TestEncodeBadRewriteRegression(t *testing.T) {
	for _, raw := range []string{"{", "nul", "\xff", `"a" "b"`, "{}\n{}"} {
		_, f := storagetest.Typical()
		f.Verdict.Rewrite = json.RawMessage(raw)
		if _, err := storage.DecodeFlow(storage.AppendRecord(nil, f), storage.AppendQuestion(nil, &f.Question)); err != nil {
			t.Errorf("%q: %v", raw, err)
		}
	}
}

// TestEncodeYear: RFC 3339 has four digits for the year, and encoding/json refuses others.
func TestEncodeYear(t *testing.T) {
	_, f := storagetest.Typical()
	f.Begin, f.Question.At = time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC)
	got, err := storage.DecodeFlow(storage.AppendRecord(nil, f), storage.AppendQuestion(nil, &f.Question))
	if err != nil || !got.Begin.IsZero() || !got.Question.At.IsZero() {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzEncodeString(f *testing.F) {
	for _, s := range []string{"", "plain", `q"b\`, "\x00\x1f\x7f", "\xff\xed\xa0\x80", "12345678\"", "1234567\x80", "\u2028é\U0010ffff", "1234567\x1f", "!!!!!!!!!"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, flow := storagetest.Typical()
		flow.Gateway, flow.Question.HTTP.Headers = s, map[string][]string{s: {s, s + s}}
		same(t, flow)
	})
}

func BenchmarkAppendFlow(b *testing.B) {
	_, f := storagetest.Typical()
	buf := storage.AppendFlow(nil, f)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		buf = storage.AppendFlow(buf[:0], f)
	}
}

func BenchmarkEncodingJSON(b *testing.B) {
	_, f := storagetest.Typical()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := json.Marshal(f); err != nil {
			b.Fatal(err)
		}
	}
}
