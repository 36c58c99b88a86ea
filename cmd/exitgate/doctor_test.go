package main

import (
	"bytes"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/exitgate/exitgate/cmd/internal/doctor"
	"github.com/exitgate/exitgate/web/hostapi"
)

// TestDoctorPrintsSafely: names, certificates and reasons that others wrote steer no terminal, and break no table.
func TestDoctorPrintsSafely(t *testing.T) {
	const nasty = "CN=\x1b[2J\x1b]0;owned\x07\u202eevil\r\nok    everything is fine\xff"
	var b bytes.Buffer
	writeReport(&b, doctor.Report{
		Rows:   []doctor.Row{{What: "certificate", Host: nasty, Gateway: strings.Repeat(nasty, 20), Mark: doctor.Wrong}},
		Advice: []doctor.Advice{{Side: doctor.SideHost, What: nasty, Do: nasty}, {Side: doctor.SideGateway, What: nasty, Do: nasty, Note: true}},
		Views:  doctor.Views{NoView: &doctor.Problem{Text: nasty}},
	})
	writeReport(&b, doctor.Report{Views: doctor.Views{Gateway: &doctor.GatewayView{View: hostapi.View{Own: true}}}})
	writeChecks(&b, []doctor.Check{{Name: "store", State: doctor.Fail, Seen: nasty + "\n" + nasty, Do: nasty}})
	for line := range strings.Lines(b.String()) {
		line = strings.TrimSuffix(line, "\n")
		if !utf8.ValidString(line) || plain(line) != line || strings.HasPrefix(line, "ok    everything") {
			t.Errorf("%q", line)
		}
	}
}

func TestWrap(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a": "a", "one two three": "one two|three", "exactlyten b": "exactlyten|b", "abcdefghijklmno p": "abcdefghij|klmno p",
		"a abcdefghijklmno": "a|abcdefghij|klmno", "漢字漢字漢字漢字漢字漢字": "漢字漢字漢字漢字漢字|漢字",
	} {
		if got := strings.Join(wrap(in, 10), "|"); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzWrap(f *testing.F) {
	f.Add("one two  three", 5)
	f.Fuzz(func(t *testing.T, s string, width int) {
		if width < 1 || width > 200 || !utf8.ValidString(s) {
			return
		}
		lines := wrap(s, width)
		for _, line := range lines {
			if utf8.RuneCountInString(line) > width {
				t.Errorf("%q is wider than %d", line, width)
			}
		}
		bare := func(s string) string { return strings.ReplaceAll(s, " ", "") }
		if bare(strings.Join(lines, "")) != bare(s) {
			t.Errorf("%q became %q", s, lines)
		}
	})
}

func TestDoctorURL(t *testing.T) {
	for in, want := range map[string]string{
		"www.example.com": "https://www.example.com", "http://www.example.com:8080/a?b#c": "http://www.example.com:8080/a?b", "https://[2001:db8::1]/": "https://[2001:db8::1]/",
		"https://me:pass@www.example.com/": "", "ftp://www.example.com/": "", "https://": "", "https://www.example.com:/": "", "http://a b/": "", "https://\x1b/": "",
	} {
		u, err := doctorURL(in)
		if u == nil {
			u = &url.URL{}
		}
		if u.String() != want || (err == nil) != (want != "") {
			t.Errorf("%q: %s %v", in, u, err)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\x1b") || err != nil && strings.Contains(err.Error(), "pass@") {
			t.Errorf("%q: %v", in, err)
		}
	}
}
