package trust

import (
	"bytes"
	"crypto/sha1"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
)

// hostile is what no value of a gateway may bring into a file.
var hostile = []string{"x'; rm -rf /; '", "a\nb", `a"b`, "$(id)", "`id`", "a b", "%h", "${x}", "a\x00b", "\x1b[31m", "-o", "\u2028", "a;b", "a|b", "a&b", "<x>", "a=b", `a\b`, "#", "é.example"}

func TestProxyCheck(t *testing.T) {
	good := proxy()
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	if err := (Proxy{}).Check(); err != nil {
		t.Error(err)
	}
	for _, s := range []string{"http://[2001:db8::1]:3128", "https://192.0.2.1:3129", "http://gate:3128/"} {
		if err := (Proxy{HTTP: s, HTTPS: s}).Check(); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"localhost", ".example.com", "*.example.com", "192.0.2.0/24", "2001:db8::/32", "::1", "[::1]:443", "a.example:8443"} {
		good.NoProxy = []string{s}
		if err := good.Check(); err != nil {
			t.Errorf("no_proxy %q: %v", s, err)
		}
	}
	bad := []string{"gate:3128", "socks5://gate:1080", "http://gate", "http://user:secret@gate:3128", "http://gate:3128/x", "http://gate:3128?x", "http://gate:3128#x", "http://:3128", "http://gate:port", "http://[fe80::1%25eth0]:3128"}
	for _, h := range hostile {
		bad = append(bad, h, "http://"+h+":3128", "http://gate:3128/"+h)
	}
	for _, s := range bad {
		if err := (Proxy{HTTP: s, HTTPS: "http://gate:3128"}).Check(); err == nil {
			t.Errorf("%q was taken for a proxy", s)
		} else if strings.ContainsAny(err.Error(), "\x1b\x00\n") {
			t.Errorf("the error holds control characters: %q", err)
		}
	}
	for _, s := range append([]string{"", "*", "*.", ".", "a.example:", "a.example:x", "fe80::1%eth0", "192.0.2.0/99", strings.Repeat("a", 300)}, hostile...) {
		good.NoProxy = []string{s}
		if err := good.Check(); err == nil {
			t.Errorf("no_proxy %q was taken", s)
		}
	}
	good.NoProxy = make([]string, 1000)
	if err := good.Check(); err == nil {
		t.Error("a thousand entries were taken")
	}
}

func TestParseRoots(t *testing.T) {
	one, two := newRoot(t, "one"), newRoot(t, "two")
	if roots, err := ParseRoots(append(append(one.PEM(), two.PEM()...), one.PEM()...)); err != nil || len(roots) != 2 {
		t.Errorf("%d roots, %v", len(roots), err)
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "text": []byte("hello"), "a key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}}),
		"no certificate": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}}), "cut": one.PEM()[:100],
		"many": bytes.Repeat(one.PEM(), 100), "text after": append(one.PEM(), "rm -rf /"...),
	} {
		if _, err := ParseRoots(b); err == nil {
			t.Errorf("%s was taken for roots", name)
		}
	}
}

func FuzzParseRoots(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if roots, err := ParseRoots(b); err == nil && (len(roots) == 0 || len(roots) > maxRoots) {
			t.Errorf("%d roots", len(roots))
		}
	})
}

// FuzzBlock puts our lines into any file, and takes them out: the rest is as it was, but for an end of its last line.
func FuzzBlock(f *testing.F) {
	f.Add([]byte("PATH=/usr/bin"), "A=1\n")
	f.Add([]byte("a\n\n"), "")
	f.Add([]byte(blockBegin+"x\n"+blockEnd+"y"), "A=1\n")
	f.Add([]byte("[main]\nproxy=x\n[other]"), "A=1\n")
	f.Fuzz(func(t *testing.T, rest []byte, lines string) {
		if bytes.Contains(rest, []byte(blockBegin)) || strings.Contains(lines, "<<<") || lines != "" && !strings.HasSuffix(lines, "\n") {
			return
		}
		with, err := block("/x", lines).content(rest, true)
		if err != nil {
			t.Fatal(err)
		}
		if got := withoutBlock(with); !bytes.Equal(got, endLine(rest)) {
			t.Errorf("from %q came %q", rest, got)
		}
		with, err = proxy().dnfConf(rest)
		if err != nil {
			return // it has a proxy
		}
		if got := withoutBlock(with); !bytes.Equal(got, rest) && !bytes.Equal(got, endLine(rest)) && !bytes.Equal(bytes.ReplaceAll(got, []byte("\n"), nil), bytes.ReplaceAll(rest, []byte("\n"), nil)) {
			t.Errorf("from %q came %q", rest, got)
		}
	})
}

// FuzzPolicies never panics, and never leaves a root of ours behind.
func FuzzPolicies(f *testing.F) {
	f.Add([]byte(`{"policies": {"Certificates": {"Install": ["/x/exitgate-1.crt", "/y"]}, "Proxy": {"HTTPProxy": "gate:3128"}}}`))
	f.Add([]byte(`{"policies": null}`))
	f.Add([]byte(`{"policies": {"Certificates": []}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		rest, err := withoutPolicies(b, "gate:3128")
		if err != nil || rest == nil {
			return
		}
		again, err := withoutPolicies(rest, "gate:3128")
		if err != nil || !bytes.Equal(again, rest) {
			t.Errorf("from %q came %q and then %q, %v", b, rest, again, err)
		}
	})
}

func TestForeign(t *testing.T) {
	w := Want{Roots: []Root{newRoot(t, "one")}, Proxy: Proxy{HTTP: "http://gate.example.com:3128", HTTPS: "http://gate.example.com:3128", NoProxy: []string{"localhost", ".corp.example", "10.0.0.0/8"}}}
	win, err := Windows(w, []string{`C:\root.crt`})
	if err != nil {
		t.Fatal(err)
	}
	mac, err := MacOS(w, []string{"/tmp/root.crt"}, []string{"Wi-Fi"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		f        Foreign
		do, undo []string
	}{
		"Windows": {win, []string{`certutil.exe -addstore -f Root C:\root.crt`, "setx.exe HTTPS_PROXY http://gate.example.com:3128 /M", "setx.exe NO_PROXY localhost,.corp.example,10.0.0.0/8 /M",
			"/v ProxyServer /t REG_SZ /d gate.example.com:3128 /f", "netsh.exe winhttp set proxy gate.example.com:3128 localhost;*.corp.example;<local>"},
			[]string{"certutil.exe -delstore Root " + fmt.Sprintf("%x", sha1.Sum(w.Roots[0].Cert.Raw)), "/v HTTPS_PROXY /f", "netsh.exe winhttp reset proxy"}},
		"macOS": {mac, []string{"/usr/bin/security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain /tmp/root.crt",
			"/usr/sbin/networksetup -setsecurewebproxy Wi-Fi gate.example.com 3128", "-setproxybypassdomains Wi-Fi localhost *.corp.example"},
			[]string{"delete-certificate -Z " + strings.ToUpper(w.Roots[0].Fingerprint), "-setwebproxystate Wi-Fi off"}},
	} {
		if len(c.f.Do) != len(c.f.Undo) {
			t.Errorf("%s: %d acts and %d that undo them", name, len(c.f.Do), len(c.f.Undo))
		}
		for _, list := range []struct {
			have []Command
			want []string
		}{{c.f.Do, c.do}, {c.f.Undo, c.undo}} {
			all := ""
			for _, cmd := range list.have {
				all += strings.Join(cmd.Argv, " ") + "\n"
			}
			for _, want := range list.want {
				if !strings.Contains(all, want) {
					t.Errorf("%s: no %q in\n%s", name, want, all)
				}
			}
		}
	}
	w.Proxy.NoProxy = []string{`x" & del C:\`}
	if _, err := Windows(w, []string{`C:\root.crt`}); err == nil {
		t.Error("a hostile no_proxy was taken")
	}
}
