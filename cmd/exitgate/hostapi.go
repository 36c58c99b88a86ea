package main

import (
	"context"
	"net/url"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/web"
	"github.com/exitgate/exitgate/web/hostapi"
)

// hostAPI is what hosts ask of the gateway about themselves, but for what the authority and the engine give: Ott,
// Identity and Look.
func (g *gateway) hostAPI() *hostapi.Handler {
	return &hostapi.Handler{Admin: g.api, Settings: g.hostSettings, Decide: g.decideFor, Logger: g.log}
}

func (g *gateway) hostSettings(ctx context.Context) (s hostapi.Settings, err error) {
	trust, err := g.trust(ctx)
	if err != nil {
		return s, err
	}
	proxy, err := g.proxySettings(ctx)
	return hostapi.Settings{CAURL: trust.Enroll, Roots: trust.Roots, Proxy: proxy, Mode: "proxy"}, err
}

// decideFor asks the policy about a GET by a host.
func (g *gateway) decideFor(ctx context.Context, h web.Host, u *url.URL) (exitgate.Verdict, error) {
	q, err := g.api.Imagine(web.Hypothesis{Host: h.Name, URL: u.String()})
	if err != nil {
		return exitgate.Verdict{}, err
	}
	return g.policy.Decide(ctx, q)
}
