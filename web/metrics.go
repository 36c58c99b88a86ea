package web

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/exitgate/exitgate"
)

// A Recorder keeps flows; the engine's seam of the same shape says what it promises.
type Recorder interface {
	Begin(context.Context, *exitgate.Flow) error
	End(context.Context, *exitgate.Flow) error
}

// Metrics counts flows as they pass to the recorder, and reads gauges of the other parts when it is scraped.
type Metrics struct {
	registry *prometheus.Registry
	classes  func(exitgate.Class) bool

	flows, requests, bytes   *prometheus.CounterVec
	refusals, faults, limits *prometheus.CounterVec
	exempt, audited, failed  *prometheus.CounterVec
	reloads                  *prometheus.CounterVec
	seconds                  *prometheus.HistogramVec
	open, reloaded           prometheus.Gauge
}

// Build says which build is running.
type Build struct{ Version, Revision, Go string }

// NewMetrics returns metrics in a registry of their own. known reports whether a class is configured: all others are
// counted as "other", so that the number of series is bounded.
func NewMetrics(build Build, known func(exitgate.Class) bool) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), classes: known}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "exitgate", Name: name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	m.flows = counter("flows_total", "Flows that ended.", "kind", "outcome", "class", "way")
	m.requests = counter("requests_total", "HTTP requests that ended.", "method", "code_class", "outcome")
	m.bytes = counter("bytes_total", "Bytes of headers and bodies that crossed, by direction.", "direction")
	m.refusals = counter("refusals_total", "Flows that were refused, by what decided.", "rule")
	m.faults = counter("faults_total", "Flows that failed at a step, by RFC 9209 error type.", "step", "type")
	m.limits = counter("body_limit_exceeded_total", "Bodies that were stopped by a limit.", "direction")
	m.exempt = counter("exempt_bytes_total", "Bytes that were carried unread under an exemption.", "direction")
	m.audited = counter("audited_flows_total", "Flows that were carried although policy would refuse them (audit mode).", "class")
	m.failed = counter("record_errors_total", "Flows whose record could not be begun or ended.", "operation")
	m.reloads = counter("config_reloads_total", "Reloads of configuration and policy.", "result")
	m.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "exitgate", Name: "flow_duration_seconds", Help: "Time that flows took, by phase.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
	}, []string{"phase"})
	m.open = prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "exitgate", Name: "flows_open", Help: "Flows that have begun and not ended."})
	m.reloaded = prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "exitgate", Name: "config_last_reload_success_timestamp_seconds", Help: "When configuration and policy were last loaded without an error."})
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "exitgate", Name: "build_info", Help: "Which build is running; always 1.",
		ConstLabels: prometheus.Labels{"version": build.Version, "revision": build.Revision, "goversion": build.Go},
	})
	info.Set(1)
	m.registry.MustRegister(m.seconds, m.open, m.reloaded, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, result := range []string{"success", "error"} {
		m.reloads.WithLabelValues(result)
	}
	return m
}

// Gauge adds exitgate_NAME, read by f whenever it is scraped; f must be quick and safe for concurrent use.
func (m *Metrics) Gauge(name, help string, f func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "exitgate", Name: name, Help: help}, f))
}

// Counter adds exitgate_NAME, a total that never shrinks, read by f whenever it is scraped.
func (m *Metrics) Counter(name, help string, f func() float64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "exitgate", Name: name, Help: help}, f))
}

// Handler returns the page that is scraped.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry, EnableOpenMetrics: true})
}

// Reloaded counts one reload; err is nil when it took effect.
func (m *Metrics) Reloaded(at time.Time, err error) {
	if err != nil {
		m.reloads.WithLabelValues("error").Inc()
		return
	}
	m.reloads.WithLabelValues("success").Inc()
	m.reloaded.Set(float64(at.Unix()))
}

// Recorder returns a recorder that counts what passes through it to next.
func (m *Metrics) Recorder(next Recorder) Recorder { return &counted{m, next} }

type counted struct {
	m    *Metrics
	next Recorder
}

func (c *counted) Begin(ctx context.Context, f *exitgate.Flow) error {
	err := c.next.Begin(ctx, f)
	if err != nil {
		c.m.failed.WithLabelValues("begin").Inc()
		return err
	}
	c.m.open.Inc()
	return nil
}

func (c *counted) End(ctx context.Context, f *exitgate.Flow) error {
	c.m.open.Dec()
	c.m.count(f)
	err := c.next.End(ctx, f)
	if err != nil {
		c.m.failed.WithLabelValues("end").Inc()
	}
	return err
}

func (m *Metrics) count(f *exitgate.Flow) {
	class, outcome := m.class(f.Question.Host.Class), f.Outcome()
	m.flows.WithLabelValues(string(f.Kind), string(outcome), class, string(f.Question.Way)).Inc()
	if f.Kind == exitgate.KindRequest && f.Question.HTTP != nil {
		m.requests.WithLabelValues(method(f.Question.HTTP.Method), codeClass(f.Status), string(outcome)).Inc()
	}
	m.add(m.bytes, f)
	switch {
	case outcome == exitgate.OutcomeRefused:
		m.refusals.WithLabelValues(rule(f.Verdict.Rule)).Inc()
	case f.Fault != nil:
		m.faults.WithLabelValues(f.Fault.Step, f.Fault.Type).Inc()
	}
	if f.Verdict.Exemption != "" {
		m.add(m.exempt, f)
	}
	if f.Verdict.Audit {
		m.audited.WithLabelValues(class).Inc()
	}
	if f.RequestBody == exitgate.BodyOverLimit {
		m.limits.WithLabelValues("out").Inc()
	}
	if f.ResponseBody == exitgate.BodyOverLimit {
		m.limits.WithLabelValues("in").Inc()
	}
	m.time(f)
}

func (m *Metrics) add(to *prometheus.CounterVec, f *exitgate.Flow) {
	to.WithLabelValues("out").Add(float64(f.Sent.Header + f.Sent.Body))
	to.WithLabelValues("in").Add(float64(f.Received.Header + f.Received.Body))
}

func (m *Metrics) time(f *exitgate.Flow) {
	for _, p := range []struct {
		name string
		took time.Duration
	}{
		{"resolve", f.Phases.Resolve}, {"connect", f.Phases.Connect}, {"tls", f.Phases.TLS},
		{"wait", f.Phases.Wait}, {"total", f.End.Sub(f.Begin)},
	} {
		if p.took > 0 {
			m.seconds.WithLabelValues(p.name).Observe(p.took.Seconds())
		}
	}
}

func (m *Metrics) class(c exitgate.Class) string {
	if c == exitgate.ClassUnknown || m.classes(c) {
		return string(c)
	}
	return "other"
}

// method bounds what hosts can put into a label.
func method(s string) string {
	switch s {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE":
		return s
	}
	return "other"
}

func codeClass(status int) string {
	if status < 100 || status > 599 {
		return "none"
	}
	return string(rune('0'+status/100)) + "xx"
}

// rule keeps of a rule what a bounded number of them share: the kind of a policy's rule, or one of the gateway's own.
func rule(s string) string {
	if strings.HasPrefix(s, "exitgate:") {
		return s
	}
	switch kind, _, _ := strings.Cut(s, ":"); kind {
	case "deny", "grant", "exemption", "no-grant":
		return kind
	}
	return "other"
}
