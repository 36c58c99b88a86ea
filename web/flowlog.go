package web

import (
	"context"
	"log/slog"

	"github.com/exitgate/exitgate"
)

// Logged returns a recorder that writes one wide line to log for each flow that ended, at level info, under the
// names that the store's columns have, and passes everything on to next.
func Logged(log *slog.Logger, next Recorder) Recorder { return &logged{log, next} }

type logged struct {
	log  *slog.Logger
	next Recorder
}

func (l *logged) Begin(ctx context.Context, f *exitgate.Flow) error { return l.next.Begin(ctx, f) }

func (l *logged) End(ctx context.Context, f *exitgate.Flow) error {
	err := l.next.End(ctx, f)
	if !l.log.Enabled(ctx, slog.LevelInfo) {
		return err
	}
	q := &f.Question
	a := append(make([]slog.Attr, 0, 20),
		slog.String("id", f.ID.String()), slog.String("outcome", string(f.Outcome())), slog.String("kind", string(f.Kind)),
		slog.String("host", q.Host.Name), slog.String("class", string(q.Host.Class)), slog.Any("source", q.Host.Addr),
		slog.String("dest", q.Dest.String()))
	if q.HTTP != nil {
		a = append(a, slog.String("method", q.HTTP.Method), slog.String("url", q.HTTP.URL))
	}
	if f.Authority.Dialled.IsValid() {
		a = append(a, slog.Any("dialled", f.Authority.Dialled))
	}
	a = append(a, slog.Int("status", f.Status),
		slog.Int64("sent", f.Sent.Header+f.Sent.Body), slog.Int64("received", f.Received.Header+f.Received.Body),
		slog.Duration("took", f.End.Sub(f.Begin)), slog.String("rule", f.Verdict.Rule), slog.String("revision", f.Verdict.Revision))
	if f.Fault != nil {
		a = append(a, slog.String("fault_step", f.Fault.Step), slog.String("fault_type", f.Fault.Type), slog.String("fault_reason", f.Fault.Reason))
	} else if f.Verdict.Action == exitgate.Refuse || f.Verdict.Audit {
		a = append(a, slog.String("reason", f.Verdict.Reason))
	}
	l.log.LogAttrs(ctx, slog.LevelInfo, "flow", a...)
	return err
}
