package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate/cmd/internal/doctor"
	"github.com/exitgate/exitgate/web/hostapi"
)

// How wide a cell and a line of text may be before they go on below.
const cellWidth, textWidth = 46, 110

// A doctorReport is what -o json writes.
type doctorReport struct {
	URL     string          `json:"url"`
	At      time.Time       `json:"at"`
	Rows    []doctor.Row    `json:"rows"`
	Advice  []doctor.Advice `json:"advice"`
	NoView  string          `json:"no_view,omitempty"` // why the gateway told nothing
	Gateway *hostapi.View   `json:"gateway,omitempty"`
}

// printReport writes both views and what follows. The error is that something is wrong.
func printReport(c *cobra.Command, r doctor.Report, output string) error {
	w, wrong := c.OutOrStdout(), 0
	for _, a := range r.Advice {
		if !a.Note {
			wrong++
		}
	}
	if output == "json" {
		out := doctorReport{URL: r.Views.URL.String(), At: r.Views.Host.Now, Rows: r.Rows, Advice: append([]doctor.Advice{}, r.Advice...)}
		if r.Views.Gateway != nil {
			out.Gateway = &r.Views.Gateway.View
		} else if r.Views.NoView != nil {
			out.NoView = r.Views.NoView.Text
		}
		if err := printJSON(w, out); err != nil {
			return err
		}
	} else {
		writeReport(w, r)
	}
	if wrong > 0 {
		return fmt.Errorf("%s wrong", things(wrong))
	}
	return nil
}

func things(n int) string {
	if n == 1 {
		return "one thing is"
	}
	return fmt.Sprintf("%d things are", n)
}

func writeReport(w io.Writer, r doctor.Report) {
	st := styleFor(w)
	rows, marks := [][]string{{"", "this host", "the gateway", ""}}, []doctor.Mark{""}
	for _, row := range r.Rows {
		host, gateway := wrap(plain(row.Host), cellWidth), wrap(plain(row.Gateway), cellWidth)
		for i := range max(len(host), len(gateway)) {
			line := []string{"", at(host, i), at(gateway, i), ""}
			if i == 0 {
				line[0], line[3] = row.What, string(row.Mark)
			}
			rows, marks = append(rows, line), append(marks, row.Mark)
		}
	}
	columns(w, rows, func(row, column int, text string) string {
		switch {
		case row == 0 || column == 0:
			return st.dim(text)
		case marks[row] == doctor.Wrong || marks[row] == doctor.Differs:
			return st.paint("31", text)
		case column == 3:
			return st.paint("33", text)
		}
		return text
	})
	if r.Views.Gateway == nil && r.Views.NoView != nil {
		fmt.Fprintf(w, "\nThere is no view of the gateway: %s.\n", plain(r.Views.NoView.Text))
	}
	fmt.Fprintln(w)
	writeAdvice(w, st, r)
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}

func writeAdvice(w io.Writer, st style, r doctor.Report) {
	n := 0
	for _, a := range r.Advice {
		head := "note: "
		if !a.Note {
			n++
			head = fmt.Sprintf("%d. ", n)
		}
		indented(w, st.bold(head+string(a.Side)+": "), plain(a.What))
		indented(w, "   ", plain(a.Do))
	}
	if n > 0 {
		return
	}
	switch g := r.Views.Gateway; {
	case g != nil && g.Own:
		fmt.Fprintln(w, "Nothing is off between this host and the gateway.")
	case g != nil:
		fmt.Fprintln(w, "Nothing is off: the gateway carries this for this host.")
	default:
		fmt.Fprintln(w, "Nothing is off that the host alone can see.")
	}
}

// indented writes text behind a head, and its further lines below.
func indented(w io.Writer, head, text string) {
	for _, line := range wrap(text, textWidth) {
		fmt.Fprintln(w, head+line)
		head = "   "
	}
}

// wrap breaks s at spaces into lines of at most width characters; a word that is longer is broken where the line ends.
func wrap(s string, width int) (lines []string) {
	line, n := "", 0
	end := func() { lines, line, n = append(lines, strings.TrimRight(line, " ")), "", 0 }
	for word := range strings.SplitSeq(s, " ") {
		for {
			size := utf8.RuneCountInString(word)
			switch {
			case n == 0 && size > width:
				cut := []rune(word)
				line = string(cut[:width])
				end()
				word = string(cut[width:])
				continue
			case n > 0 && n+1+size > width:
				end()
				continue
			case n > 0:
				line, n = line+" ", n+1
			}
			line, n = line+word, n+size
			break
		}
	}
	if line != "" || len(lines) == 0 {
		end()
	}
	return lines
}

// printChecks writes what was looked at on a gateway. The error is that something failed.
func printChecks(c *cobra.Command, list []doctor.Check, output string) error {
	w := c.OutOrStdout()
	failed, warned := 0, 0
	for _, ch := range list {
		switch ch.State {
		case doctor.Fail:
			failed++
		case doctor.Warn:
			warned++
		}
	}
	if output == "json" {
		if err := printJSON(w, list); err != nil {
			return err
		}
	} else {
		writeChecks(w, list)
		fmt.Fprintf(w, "\n%d looked at, %d to see to, %d failed\n", len(list), warned, failed)
	}
	if failed > 0 {
		return fmt.Errorf("%s wrong with this gateway", things(failed))
	}
	return nil
}

func writeChecks(w io.Writer, list []doctor.Check) {
	st, wide := styleFor(w), 0
	for _, ch := range list {
		wide = max(wide, len(ch.Name))
	}
	for _, ch := range list {
		state := map[doctor.State]string{doctor.OK: st.paint("32", "ok  "), doctor.Warn: st.paint("33", "warn"), doctor.Fail: st.paint("31", "FAIL")}[ch.State]
		head, rest := fmt.Sprintf("%s  %-*s  ", state, wide, ch.Name), strings.Repeat(" ", wide+8)
		for part := range strings.SplitSeq(ch.Seen, "\n") {
			for _, line := range wrap(plain(part), textWidth-wide) {
				fmt.Fprintln(w, head+line)
				head = rest
			}
		}
		if ch.Do != "" {
			for _, line := range wrap(plain(ch.Do), textWidth-wide) {
				fmt.Fprintln(w, rest+st.dim(line))
			}
		}
	}
}
