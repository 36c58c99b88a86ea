package enroll

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unsafe"
)

// TokenVariable is the environment variable that may hold the token.
const TokenVariable = "EXITGATE_TOKEN"

// maxToken bounds what is read of a token.
const maxToken = 4096

// ReadToken returns the token from where it was said to be: the flag's value ("-" is in), a file, or the environment. It
// returns "" when there is none. It erases a literal one from the argument vector of this process, so that the process
// list does not show it from then on; one in the environment, which only the same user and root can see, is not handed to
// programs that are started.
func ReadToken(flag, file string, in io.Reader) (string, error) {
	switch {
	case flag != "" && file != "":
		return "", errors.New("give the token once: --token or --token-file")
	case flag == "-":
		return scanToken(in)
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("read the token: %w", err)
		}
		defer f.Close()
		return scanToken(f)
	case flag != "":
		token := strings.Clone(flag)
		wipe(token, os.Args)
		return checkToken(token)
	}
	token := os.Getenv(TokenVariable)
	if token == "" {
		return "", nil
	}
	os.Unsetenv(TokenVariable)
	return checkToken(token)
}

func scanToken(r io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxToken+1))
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	if len(b) > maxToken {
		return "", fmt.Errorf("read the token: it is longer than %d bytes", maxToken)
	}
	return checkToken(strings.TrimSpace(string(b)))
}

// checkToken returns an error that does not hold the token.
func checkToken(s string) (string, error) {
	if !strings.HasPrefix(s, "xgh_") || len(s) > maxToken || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errors.New("that is no token of \"exitgate host token\": those begin with xgh_")
	}
	return s, nil
}

// wipe overwrites the token wherever words hold it. The words of os.Args are the very memory that Linux shows of a
// process: the runtime does not copy them (runtime.goargs), and TestProcessList holds it to that.
func wipe(token string, words []string) {
	for _, word := range words {
		at := strings.Index(word, token)
		if at < 0 || token == "" {
			continue
		}
		b := unsafe.Slice(unsafe.StringData(word), len(word))
		for i := range len(token) {
			b[at+i] = 'x'
		}
	}
}
