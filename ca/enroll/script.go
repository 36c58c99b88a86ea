package enroll

import (
	_ "embed"
	"strings"
)

// enroll.sh and enroll.ps1, as a gateway serves them: the same bytes for everybody, so that their SHA-256 can be given to
// people along with the command.
var (
	//go:embed enroll.sh
	script string
	//go:embed enroll.ps1
	powershell string
)

// Script returns enroll.sh, for POSIX shells.
func Script() []byte { return []byte(script) }

// PowerShell returns enroll.ps1.
func PowerShell() []byte { return []byte(powershell) }

// Command renders what is pasted on a host: it fetches enroll.sh without knowing the gateway, compares it with the sum
// (the SHA-256 of [Script], in hexadecimal), and runs it only then. The token is not in it: the script reads it from
// EXITGATE_TOKEN or asks for it.
func Command(gateway, fingerprint, sum string) string {
	gateway = strings.TrimSuffix(gateway, "/")
	return "f=$(mktemp) && curl -fsSk --proto =https --noproxy '*' -o \"$f\" " + shellQuote(gateway+"/enroll.sh") +
		" && echo " + shellQuote(sum+"  ") + "\"$f\" | sha256sum -c - >/dev/null && sh \"$f\" --gateway " + shellQuote(gateway) +
		" --fingerprint " + shellQuote(fingerprint)
}

// shellQuote returns s as one word of a POSIX shell.
func shellQuote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789./_-:@%+=,") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
