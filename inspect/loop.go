package inspect

import (
	"net/http"
	"strings"

	"github.com/exitgate/exitgate"
)

// Loop refuses a request that has passed this gateway before: one of its Via fields holds Name (RFC 9110, section
// 7.6.3). Gateways that may stand behind one another need different names.
type Loop struct {
	Name string
}

// ModifyRequest implements martian's RequestModifier.
func (l *Loop) ModifyRequest(req *http.Request) error {
	if _, _, err := exchange("Loop", req); err != nil {
		return err
	}
	loop := false
	for _, v := range req.Header["Via"] {
		eachToken(v, func(hop string) bool {
			_, by, _ := strings.Cut(hop, " ")
			by, _, _ = strings.Cut(strings.TrimLeft(by, " \t"), " ")
			loop = loop || strings.EqualFold(by, l.Name)
			return !loop
		})
	}
	if loop {
		return exitgate.NewRefusal(http.StatusLoopDetected, exitgate.RuleLoop, "the request has passed the gateway %q before", l.Name)
	}
	return nil
}

// Via adds the gateway to the Via field of what it forwards. It is the only field that a request gains, and no policy sees it.
type Via struct {
	Name string
}

// ModifyRequest implements martian's RequestModifier.
func (v *Via) ModifyRequest(req *http.Request) error {
	v.add(req.Header, req.ProtoMajor, req.ProtoMinor)
	return nil
}

// ModifyResponse implements martian's ResponseModifier.
func (v *Via) ModifyResponse(res *http.Response) error {
	v.add(res.Header, res.ProtoMajor, res.ProtoMinor)
	return nil
}

func (v *Via) add(h http.Header, major, minor int) {
	proto := "1.1 "
	switch {
	case major == 2:
		proto = "2.0 "
	case major == 1 && minor == 0:
		proto = "1.0 "
	}
	old := h["Via"]
	h["Via"] = append(old[:len(old):len(old)], proto+v.Name)
}
