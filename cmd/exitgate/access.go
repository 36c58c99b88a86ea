package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// What grant and exempt share.

// untilUsage is the help of --until.
const untilUsage = "when it ends: a date (2030-01-31), a time (2030-01-31T18:00:00Z) or from now (30d, 8h)"

// parseUntil reads --until. A date means its end in local time, so that "until Friday" includes Friday.
func parseUntil(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := parseDuration(s); err == nil {
		return now.Add(d).UTC().Truncate(time.Second), nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, s, now.Location()); err == nil {
		return t.AddDate(0, 0, 1).Add(-time.Second).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t.UTC(), nil
	}
	return time.Time{}, fmt.Errorf("--until %q: it is neither a date (2030-01-31), nor a time (2030-01-31T18:00:00Z), nor a time span from now (30d, 8h)", s)
}

// whoFlags adds --class and --host, of which one is needed.
func whoFlags(c *cobra.Command, class, host *string) {
	c.Flags().StringVar(class, "class", "", "the class of hosts that it is for")
	c.Flags().StringVar(host, "host", "", "the one host that it is for, instead of a class")
}

func checkWho(class, host string) error {
	if (class == "") == (host == "") {
		return errors.New("say for whom: --class NAME, or --host NAME")
	}
	return nil
}

func checkReason(reason string) error {
	if strings.TrimSpace(reason) == "" {
		return errors.New(`say why: --reason "..."; whoever reads the list later will want to know`)
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func whoText(class, host string) string {
	if host != "" {
		return "host " + plain(host)
	}
	return "class " + plain(class)
}

func untilText(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04")
}

func portsText(ports []uint16) string {
	var s []string
	for _, p := range ports {
		s = append(s, fmt.Sprint(p))
	}
	return strings.Join(s, ",")
}
