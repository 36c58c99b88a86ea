package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// plain returns s as a terminal may show it: control characters, escape sequences, invisible and direction-changing
// characters and bytes that are no text become visible escapes. Everything that came from outside passes it.
func plain(s string) string {
	clean := true
	for _, r := range s {
		clean = clean && r != utf8.RuneError && strconv.IsPrint(r)
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\n':
			b.WriteString(`\n`)
		case strconv.IsPrint(r):
			b.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u{%x}`, r)
		}
		i += n
	}
	return b.String()
}

// A style colours words on a terminal. The zero style does not.
type style struct{ on bool }

// styleFor colours only on a terminal, and never when NO_COLOR is set (no-color.org) or TERM is dumb.
func styleFor(w io.Writer) style {
	return style{isTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0 && st.Mode()&os.ModeDevice != 0 && f.Name() != os.DevNull
}

func (s style) paint(code, text string) string {
	if !s.on || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s style) bold(text string) string { return s.paint("1", text) }
func (s style) dim(text string) string  { return s.paint("2", text) }

// outcome colours the word of an outcome.
func (s style) outcome(word string) string {
	switch strings.TrimSpace(word) {
	case "allowed", "spliced":
		return s.paint("32", word)
	case "refused":
		return s.paint("31", word)
	case "fault", "interrupted":
		return s.paint("33", word)
	}
	return s.dim(word)
}

// bytesText writes a number of bytes in four characters or a few more.
func bytesText(n int64) string {
	if n < 1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, units := float64(n), "kMGTPE"
	for v >= 999.95 && units != "" {
		v /= 1000
		if v < 999.95 || len(units) == 1 {
			break
		}
		units = units[1:]
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + " " + units[:1] + "B"
}

// tookText writes a duration in three digits or so.
func tookText(d time.Duration) string {
	switch {
	case d <= 0:
		return "-"
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

// shellQuote returns s as one word of a POSIX shell.
func shellQuote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789./_-:@%+=,") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// columns writes rows with their columns aligned, two spaces apart. The last column is not padded.
func columns(w io.Writer, rows [][]string, paint func(row, column int, padded string) string) {
	width := []int{}
	for _, r := range rows {
		for i, cell := range r {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for n, r := range rows {
		var b strings.Builder
		for i, cell := range r {
			padded := cell
			if i < len(r)-1 {
				padded += strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+2)
			}
			b.WriteString(paint(n, i, padded))
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}
