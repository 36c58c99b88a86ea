package storagetest

import (
	"net/netip"
	"time"

	"github.com/exitgate/exitgate"
)

// Start is when the flows of this package begin: a fixed time, so that failures can be repeated.
func Start() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 891_234_567, time.UTC) }

// Typical returns an allowed request as it begins and as it ends, of the size that a browser's has.
func Typical() (begun, ended *exitgate.Flow) {
	at := Start()
	begun = &exitgate.Flow{
		ID: exitgate.NewID(at), Conn: exitgate.NewID(at), Gateway: "gw-1", Kind: exitgate.KindRequest, Begin: at,
		Question: exitgate.Question{
			Stage: exitgate.StageRequest, At: at, Way: exitgate.WayProxy,
			Host: exitgate.Host{Name: "web-01", Class: "app", Addr: netip.MustParseAddr("192.0.2.10"), By: exitgate.ByAddress},
			Dest: exitgate.Destination{Host: "api.example.com", Port: 443},
			TLS: &exitgate.TLS{SNI: "api.example.com", ALPN: []string{"h2", "http/1.1"}, Versions: []string{"1.3", "1.2"},
				JA4: "t13d1516h2_8daaf6152771_02713d6af862"},
			HTTP: &exitgate.Request{
				Method: "GET", Scheme: "https", URL: "https://api.example.com/v1/items/4711?page=2&sort=asc", Path: "/v1/items/4711",
				Query: "page=2&sort=asc", Proto: "HTTP/1.1", Headers: map[string][]string{
					"accept":          {"application/json, text/plain, */*"},
					"accept-encoding": {"gzip, deflate, br"},
					"accept-language": {"en-GB,en;q=0.5"},
					"authorization":   {"Bearer fp:5f1d7a84db00d2fce00b31a7fc73224f"},
					"user-agent":      {"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"},
					"x-request-id":    {"01890a5d-ac96-774b-bcce-b302099a8057"},
				},
			},
		},
		Verdict: exitgate.Verdict{Action: exitgate.Allow, Rule: "grant:app-api", Revision: "9f2c4b1e", Grant: "app-api",
			Limits: exitgate.Limits{RequestBody: 1 << 20, ResponseBody: 64 << 20}},
		Authority: exitgate.Authority{Connect: "api.example.com:443", SNI: "api.example.com", Host: "api.example.com"},
		Client:    exitgate.Side{Proto: "HTTP/1.1", ALPN: "http/1.1", TLS: "1.3"},
	}
	done := *begun
	ended = &done
	ended.End = at.Add(37 * time.Millisecond)
	ended.Phases = exitgate.Phases{Resolve: 2 * time.Millisecond, Connect: 3 * time.Millisecond, TLS: 9 * time.Millisecond, Wait: 20 * time.Millisecond}
	ended.Authority.Dialled = netip.MustParseAddrPort("198.51.100.7:443")
	ended.Question.Stage, ended.Question.At = exitgate.StageResponse, at.Add(34*time.Millisecond)
	ended.Question.Response = &exitgate.Response{Status: 200, Length: 5120, Headers: map[string][]string{
		"content-type": {"application/json"}, "date": {"Wed, 04 Mar 2026 05:06:07 GMT"}, "server": {"example"}, "cache-control": {"no-store"}}}
	ended.Upstream = exitgate.Side{Proto: "HTTP/1.1", ALPN: "http/1.1", TLS: "1.3"}
	ended.UpstreamCert = "4f1d7a84db00d2fce00b31a7fc73224f4f1d7a84db00d2fce00b31a7fc73224f"
	ended.Status = 200
	ended.Sent, ended.Received = exitgate.Bytes{Header: 512}, exitgate.Bytes{Header: 220, Body: 5120}
	ended.ResponseBody = exitgate.BodyComplete
	return begun, ended
}
