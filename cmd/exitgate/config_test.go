package main

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with the file, or writes it with -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (run with -update to accept):\n--- got\n%s\n--- want\n%s", name, got, want)
	}
}

// TestConfigErrors holds each faulty file to its errors: file, line, column and what to do.
func TestConfigErrors(t *testing.T) {
	names, err := filepath.Glob("testdata/config/bad-*.yaml")
	if err != nil || len(names) < 5 {
		t.Fatalf("%d files, %v", len(names), err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			_, err := readConfig(name)
			if err == nil {
				t.Fatal("no error")
			}
			var list *configErrors
			if !errors.As(err, &list) {
				t.Fatalf("%T: %v", err, err)
			}
			for _, e := range list.list {
				if e.line < 1 || e.column < 1 {
					t.Errorf("no place: %+v", e)
				}
			}
			golden(t, strings.TrimSuffix(name, ".yaml")+".golden", []byte(err.Error()+"\n"))
		})
	}
}

// TestConfigPrint holds what is printed, and that it is a configuration that means the same.
func TestConfigPrint(t *testing.T) {
	t.Setenv("EXITGATE_DATA", "")
	for _, name := range []string{"testdata/config/full.yaml", "testdata/config/empty.yaml"} {
		c, err := readConfig(name)
		if err != nil {
			t.Fatal(err)
		}
		var first, second bytes.Buffer
		if err := c.print(&first); err != nil {
			t.Fatal(err)
		}
		again, err := parseConfig(name, first.Bytes())
		if err != nil {
			t.Fatalf("what was printed cannot be read:\n%v\n%s", err, first.Bytes())
		}
		if err := again.print(&second); err != nil {
			t.Fatal(err)
		}
		if first.String() != second.String() {
			t.Errorf("printed once:\n%s\ntwice:\n%s", first.String(), second.String())
		}
		for _, secret := range []string{"swordfish", "hunter2"} {
			if strings.Contains(first.String(), secret) {
				t.Errorf("%s: a password is printed", name)
			}
		}
		wd, _ := os.Getwd()
		out := strings.ReplaceAll(first.String(), wd, "/HERE")
		golden(t, strings.TrimSuffix(name, ".yaml")+".golden", []byte(strings.ReplaceAll(out, defaultData(), "/DEFAULT")))
	}
}

// TestEveryKeyIsDocumented fails when a key has no comment: the comments are the manual.
func TestEveryKeyIsDocumented(t *testing.T) {
	n := 0
	for typ, keys := range configSchema() {
		for _, k := range keys {
			n++
			if len(k.doc) < 10 || !strings.HasSuffix(k.doc, ".") {
				t.Errorf("%s.%s: no whole sentence about it: %q", typ, k.name, k.doc)
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d keys found", n)
	}
}

// TestValuesAreChecked fails when a type of value is used in the manual that checkValue does not know.
func TestValuesAreChecked(t *testing.T) {
	s := configSchema()
	seen := map[string]bool{}
	for _, keys := range s {
		for _, k := range keys {
			typ := strings.TrimPrefix(strings.TrimPrefix(k.typ, "[]"), "map[string]")
			if s[typ] != nil || typ == "string" || typ == "bool" || seen[typ] {
				continue
			}
			seen[typ] = true
			if checkValue(typ, "\x00 no value is like this") == nil {
				t.Errorf("nothing checks values of type %s (key %s)", typ, k.name)
			}
		}
	}
	if len(seen) < 10 {
		t.Errorf("only %d types seen", len(seen))
	}
}

func TestSizes(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "1000": 1000, "64KiB": 65536, "1 GB": 1e9, "10MiB": 10 << 20, "7B": 7,
		"": -1, "KiB": -1, "-1": -1, "1.5MB": -1, "10MiBi": -1, "99999999TiB": -1, "9223372036854775808": -1, "0x10": -1,
	} {
		got, err := parseSize(s)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("parseSize(%q) = %d, %v, want %d", s, got, err, want)
		}
	}
}

func TestDurations(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"30s": 30 * time.Second, "2d": 48 * time.Hour, "1h30m": 90 * time.Minute, "0": 0,
		"": -1, "-1s": -1, "d": -1, "1.5d": -1, "99999d": -1, "soon": -1,
	} {
		got, err := parseDuration(s)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("parseDuration(%q) = %v, %v, want %v", s, got, err, want)
		}
	}
}

func TestUntil(t *testing.T) {
	now := time.Date(2030, 1, 30, 10, 0, 0, 0, time.FixedZone("", 3600))
	for s, want := range map[string]string{
		"8h": "2030-01-30T17:00:00Z", "30d": "2030-03-01T09:00:00Z", "2030-01-31": "2030-01-31T22:59:59Z",
		"2030-01-31T18:00:00+01:00": "2030-01-31T17:00:00Z", "": "0001-01-01T00:00:00Z",
		"friday": "", "2030-02-30": "", "-8h": "",
	} {
		got, err := parseUntil(s, now)
		if (err != nil) != (want == "") || err == nil && got.Format(time.RFC3339) != want {
			t.Errorf("parseUntil(%q) = %v, %v, want %s", s, got, err, want)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	words := []string{"hosts", "listen", "limits", "store"}
	for s, want := range map[string]string{"host": "hosts", "Listen": "listen", "limit": "limits", "zzz": "", "": "", "x": ""} {
		got := didYouMean(s, words)
		if want == "" && got != "" || want != "" && got != "; did you mean "+want+"?" {
			t.Errorf("didYouMean(%q) = %q, want %q", s, got, want)
		}
	}
}

// TestReloaded holds which keys a reload takes and which it names as needing a restart.
func TestReloaded(t *testing.T) {
	old, now := starterConfig(), starterConfig()
	now.Hosts = append(now.Hosts, HostEntry{Name: "web-1", Class: "app", Addresses: []Prefix{"192.0.2.1"}})
	now.Listen.Proxy = "127.0.0.1:9"
	now.Limits.Streams = "7"
	var named []string
	got := now.reloaded(old, func(key string) { named = append(named, key) })
	if strings.Join(named, " ") != "listen limits" {
		t.Errorf("named %v", named)
	}
	if len(got.Hosts) != 2 || got.Listen.Proxy != old.Listen.Proxy || got.Limits.Streams != old.Limits.Streams {
		t.Errorf("took %+v", got)
	}
}

// FuzzConfig holds the reader to its promises for any bytes: no panic, every error with a place, and what it accepts
// can be printed and read again.
func FuzzConfig(f *testing.F) {
	names, _ := filepath.Glob("testdata/config/*.yaml")
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseConfig("testdata/config/fuzz.yaml", b)
		if err != nil {
			var list *configErrors
			if !errors.As(err, &list) || len(list.list) == 0 {
				t.Fatalf("an error without a place: %v", err)
			}
			for _, e := range list.list {
				if e.line < 1 || e.column < 1 {
					t.Fatalf("no place: %+v", e)
				}
			}
			return
		}
		var out bytes.Buffer
		if err := c.print(&out); err != nil {
			t.Fatal(err)
		}
		if _, err := parseConfig("testdata/config/fuzz.yaml", out.Bytes()); err != nil {
			t.Fatalf("what was printed cannot be read: %v\n%s", err, out.Bytes())
		}
	})
}

// TestDeployedConfigs holds the configurations that are shipped for servers to what the gateway reads.
func TestDeployedConfigs(t *testing.T) {
	names, err := filepath.Glob("../../deploy/*/*exitgate.yaml")
	if err != nil || len(names) < 2 {
		t.Fatalf("%d files, %v", len(names), err)
	}
	secret := filepath.Join(t.TempDir(), "store.url")
	if err := os.WriteFile(secret, []byte("postgres://exitgate@db/exitgate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b = bytes.ReplaceAll(b, []byte("/run/secrets/store_url"), []byte(secret))
		if _, err := parseConfig(name, b); err != nil {
			t.Error(err)
		}
	}
}
