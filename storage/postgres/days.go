package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/exitgate/exitgate/storage"
)

// A day is the number of days since 1970 in UTC.
type day int64

func dayOf(t time.Time) day {
	seconds := t.Unix()
	d := seconds / 86400
	if seconds%86400 < 0 {
		d--
	}
	return day(d)
}

func (d day) time() time.Time { return time.Unix(int64(d)*86400, 0).UTC() }

// Partitions are made for a week from now, and for flows up to daysBack old; all else is in flows_other.
const (
	daysAhead = 7
	daysBack  = 400
)

func ahead(now time.Time) []day {
	var days []day
	for d := dayOf(now); d <= dayOf(now)+daysAhead; d++ {
		days = append(days, d)
	}
	return days
}

// daysOf returns the days that flows begin on, and the week ahead when the newest is today or later.
func (s *store) daysOf(rows []storage.Row, now time.Time) ([]day, error) {
	seen := map[day]bool{}
	var days []day
	for _, r := range rows {
		b, err := r.Field(s.begin)
		if err != nil {
			return nil, fmt.Errorf("read when flow %s began: %w", r.ID, err)
		}
		micros, err := s.columns[s.begin].Value(b)
		if err != nil {
			return nil, fmt.Errorf("read when flow %s began: %w", r.ID, err)
		}
		d := dayOf(time.UnixMicro(micros.(int64)))
		if !seen[d] && d >= dayOf(now)-daysBack && d <= dayOf(now)+daysAhead {
			seen[d] = true
			days = append(days, d)
		}
	}
	if seen[dayOf(now)] {
		days = append(days, ahead(now)...)
	}
	return days, nil
}

// makeDays makes the partitions that are not there yet.
func (s *store) makeDays(ctx context.Context, days []day) error {
	for _, d := range days {
		s.mu.Lock()
		made := s.days[d]
		s.mu.Unlock()
		if made {
			continue
		}
		if err := s.makeDay(ctx, d); err != nil {
			return fmt.Errorf("make the partition of %s: %w", d.time().Format(time.DateOnly), err)
		}
		s.mu.Lock()
		s.days[d] = true
		s.mu.Unlock()
	}
	return nil
}

func (s *store) makeDay(ctx context.Context, d day) error {
	from, to := d.time(), (d + 1).time()
	// Days are made under a lock of their own: two gateways that make the same one would both fail.
	err := pgx.BeginFunc(ctx, s.write, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", lockKey); err != nil {
			return err
		}
		var there bool
		name := "flows_" + from.Format("20060102")
		if err := tx.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", name).Scan(&there); err != nil || there {
			return err
		}
		_, err := tx.Exec(ctx, fmt.Sprintf(`CREATE TABLE %s PARTITION OF flows FOR VALUES FROM ('%s') TO ('%s')`,
			name, from.Format(time.RFC3339), to.Format(time.RFC3339)))
		return err
	})
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "23514" { // flows_other has flows of that day, so the day stays there
		return nil
	}
	return err
}
