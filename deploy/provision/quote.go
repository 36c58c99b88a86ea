package provision

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

// The quoting of each format. Each function takes any string, also what Check refuses.

// shell returns s as one word of a POSIX shell.
func shell(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// yamlString returns s as a scalar of YAML: a JSON string is one.
func yamlString(s string) string {
	b, _ := json.Marshal(strings.ToValidUTF8(s, "\ufffd"))
	return string(b)
}

// literal returns a text as the value of a key whose own lines begin after n spaces: as it is, where each of its characters is
// what it seems to be in YAML, and else as a string.
func literal(n int, s string) string {
	for _, c := range []byte(s) {
		if (c < ' ' || c >= 0x7f) && c != '\n' {
			return yamlString(s)
		}
	}
	return "|\n" + indent(n+2, s)
}

// oneLine returns s without line ends.
func oneLine(s string) string { return strings.NewReplacer("\n", " ", "\r", " ").Replace(s) }

// docker returns s as a value of ENV and ARG: in double quotes a backslash, a quote and a dollar are escaped by a backslash.
// A line end cannot be written there, and becomes a space.
func docker(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(oneLine(s)) + `"`
}

// systemd returns an assignment as one word of a systemd unit, in which "%" begins a specifier.
func systemd(name, value string) string {
	return `"` + name + "=" + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%").Replace(oneLine(value)) + `"`
}

// powershell returns s as a verbatim string. PowerShell takes five characters for its single quote.
func powershell(s string) string {
	return "'" + strings.NewReplacer("'", "''", "\u2018", "\u2018\u2018", "\u2019", "\u2019\u2019", "\u201a", "\u201a\u201a", "\u201b", "\u201b\u201b").Replace(s) + "'"
}

// registry returns s as a string of a .reg file, which has no way to write a line end.
func registry(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(oneLine(s)) + `"`
}

// comment returns s as a part of one line.
func comment(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 {
			return '?'
		}
		return r
	}, s)
}

// indent returns the lines of s, each after n spaces.
func indent(n int, s string) string {
	pad := strings.Repeat(" ", n)
	return pad + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n"+pad)
}

// wrap returns base64 in lines of 76.
func wrap(b []byte) (lines []string) {
	s := base64.StdEncoding.EncodeToString(b)
	for len(s) > 76 {
		lines, s = append(lines, s[:76]), s[76:]
	}
	return append(lines, s)
}

// blob returns a certificate as Windows keeps it in the registry: properties of an id, the number 1, a length and a value,
// here the SHA-1 (3) and the certificate (32).
func blob(r root) string {
	b := []byte{}
	property := func(id byte, v []byte) {
		b = append(b, id, 0, 0, 0, 1, 0, 0, 0, byte(len(v)), byte(len(v)>>8), byte(len(v)>>16), byte(len(v)>>24))
		b = append(b, v...)
	}
	var sum []byte
	fmt.Sscanf(r.SHA1, "%x", &sum)
	property(3, sum)
	property(32, r.DER)
	var out strings.Builder
	for i, c := range b {
		switch {
		case i > 0 && i%24 == 0:
			out.WriteString(",\\\n  ")
		case i > 0:
			out.WriteByte(',')
		}
		fmt.Fprintf(&out, "%02x", c)
	}
	return out.String()
}
