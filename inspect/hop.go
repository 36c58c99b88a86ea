package inspect

import (
	"net/http"
	"strings"

	"github.com/exitgate/exitgate"
	"github.com/google/martian/v3"
	"github.com/google/martian/v3/header"
)

// HopByHop takes away what concerns only the connection between host and gateway (RFC 9110, section 7.6.1): the fields
// that Connection names, the usual ones, and every Proxy field. It keeps "TE: trailers", which gRPC needs, and the
// upgrade to WebSocket, which was judged as the question's Upgrade.
type HopByHop struct {
	martian martian.RequestResponseModifier
}

// NewHopByHop returns the step; it works on requests and, as [ResponseHopByHop], not on responses.
func NewHopByHop() *HopByHop { return &HopByHop{header.NewHopByHopModifier()} }

// ModifyRequest implements martian's RequestModifier.
func (m *HopByHop) ModifyRequest(req *http.Request) error {
	_, q, err := exchange("HopByHop", req)
	if err != nil {
		return err
	}
	trailers := false
	for _, v := range req.Header["Te"] {
		eachToken(v, func(tok string) bool {
			trailers = trailers || fold(tok, "trailers")
			return !trailers
		})
	}
	if err := m.martian.ModifyRequest(req); err != nil {
		return err
	}
	deleteProxy(req.Header)
	delete(req.Header, "Http2-Settings")
	if trailers {
		req.Header["Te"] = []string{"trailers"}
	}
	if q.Upgrade == "websocket" {
		req.Header["Connection"], req.Header["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	}
	return nil
}

func deleteProxy(h http.Header) {
	for name := range h {
		if strings.HasPrefix(name, "Proxy-") {
			delete(h, name)
		}
	}
}

// ResponseHopByHop takes the fields of one connection from a response, as [HopByHop] does from a request, but for those of a
// 101 that answers a WebSocket upgrade. It also takes Alt-Svc, which would steer hosts to ports and to HTTP/3 that
// the gateway does not carry, and Proxy-Status, so that no upstream can imitate a refusal of the gateway.
type ResponseHopByHop struct {
	martian martian.RequestResponseModifier
}

// NewResponseHopByHop returns the step.
func NewResponseHopByHop() *ResponseHopByHop { return &ResponseHopByHop{header.NewHopByHopModifier()} }

// ModifyResponse implements martian's ResponseModifier.
func (m *ResponseHopByHop) ModifyResponse(res *http.Response) error {
	_, q, err := exchange("ResponseHopByHop", res.Request)
	if err != nil {
		return err
	}
	if err := m.martian.ModifyResponse(res); err != nil {
		return err
	}
	deleteProxy(res.Header)
	delete(res.Header, "Alt-Svc")
	delete(res.Header, "Http2-Settings")
	if res.StatusCode == http.StatusSwitchingProtocols {
		if q.Upgrade != "websocket" {
			return &exitgate.Fault{Step: "wait", Type: "http_upgrade_failed", Reason: "the upstream changed to a protocol that was not asked for"}
		}
		res.Header["Connection"], res.Header["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	}
	return nil
}
