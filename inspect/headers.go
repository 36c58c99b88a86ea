package inspect

import (
	"net/http"
	"strings"
	"unicode/utf8"
)

// Headers fills the question's header fields: names in lower case, without Host and what concerns only one connection,
// secrets as fingerprints. What it leaves out is what [HopByHop] takes away, so that the judged fields are the sent ones.
// It refuses fields that may stand once and stand twice, and values that are not UTF-8: neither could be
// judged as the upstream will read them.
type Headers struct {
	Redact *Redactor
}

// single reports whether two values of the field are two meanings. (Host, Transfer-Encoding and Expect are already single.)
func single(name string) bool {
	switch name {
	case "Authorization", "Content-Length", "Content-Type", "Content-Range", "From", "Max-Forwards", "Origin", "Referer", "User-Agent":
		return true
	}
	return false
}

// ModifyRequest implements martian's RequestModifier.
func (h *Headers) ModifyRequest(req *http.Request) error {
	_, q, err := exchange("Headers", req)
	if err != nil {
		return err
	}
	if v := req.Header["Content-Length"]; len(v) > 0 && !sameLength(v[0], req.ContentLength) { // HTTP/2; see Screen for HTTP/1
		return malformed("the Content-Length field %.64q is not the length of the body", v[0])
	}
	if v := req.Header["Expect"]; len(v) > 0 && (len(v) > 1 || !fold(v[0], "100-continue")) { // HTTP/2; see Screen for HTTP/1
		return malformed("the Expect field is not a single 100-continue")
	}
	for name, values := range req.Header {
		if len(values) > 1 && single(name) {
			return malformed("there is more than one %s field", name)
		}
		for _, v := range values {
			if n := len(v); n > 0 && (v[0] <= ' ' || v[n-1] <= ' ') { // HTTP/2 (RFC 9113, section 8.2.1); HTTP/1 sees none
				return malformed("the value of field %.64q begins or ends with a blank, which HTTP/1.1 cannot carry", name)
			}
			if !utf8.ValidString(v) {
				return malformed("the value of field %.64q is not UTF-8", name)
			}
		}
	}
	if v := req.Header["User-Agent"]; len(v) == 0 || v[0] == "" {
		req.Header["User-Agent"] = nil // net/http then sends none, where it would send its own
	}
	q.Headers = h.Redact.fields(req.Header)
	return nil
}

func sameLength(v string, n int64) bool {
	if n < 0 || len(v) == 0 || len(v) > 18 {
		return false
	}
	got := int64(0)
	for i := range len(v) {
		if v[i] < '0' || v[i] > '9' {
			return false
		}
		got = got*10 + int64(v[i]-'0')
	}
	return got == n
}

// fields returns h as a Question holds it. Values that are not secret are shared with h.
func (r *Redactor) fields(h http.Header) map[string][]string {
	out := make(map[string][]string, len(h))
	nominated := h["Connection"]
	for name, values := range h {
		if len(values) == 0 || hopByHop(name) || nominated != nil && isNominated(nominated, name) {
			continue
		}
		low := lowerName(name)
		if r.secretKind(low) == plainValue {
			out[low] = values[:len(values):len(values)]
			continue
		}
		kept := make([]string, len(values))
		for i, v := range values {
			kept[i] = r.Header(low, v)
		}
		out[low] = kept
	}
	return out
}

// hopByHop reports whether the field of this canonical name concerns one connection only. It is what martian's hop-by-hop modifier
// takes away, and every other Proxy field.
func hopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings", "Host":
		return true
	}
	return strings.HasPrefix(name, "Proxy-")
}

func isNominated(connection []string, name string) bool {
	found := false
	for _, v := range connection {
		eachToken(v, func(tok string) bool {
			found = found || strings.EqualFold(tok, name)
			return !found
		})
	}
	return found
}

// lowerName returns a field name in lower case, without allocating for the usual ones.
func lowerName(name string) string {
	if low, ok := lowerNames[name]; ok {
		return low
	}
	return strings.ToLower(name)
}

// lowerNames is never written after it was made.
var lowerNames = makeLowerNames("Accept", "Accept-Charset", "Accept-Encoding", "Accept-Language", "Accept-Ranges", "Age", "Allow",
	"Authorization", "Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Length",
	"Content-Range", "Content-Security-Policy", "Content-Type", "Cookie", "Date", "Etag", "Expect", "Expires", "Forwarded", "Grpc-Status",
	"Grpc-Timeout", "If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "Last-Modified", "Link", "Location", "Origin", "Pragma",
	"Priority", "Range", "Referer", "Retry-After", "Sec-Ch-Ua", "Sec-Ch-Ua-Mobile", "Sec-Ch-Ua-Platform", "Sec-Fetch-Dest", "Sec-Fetch-Mode",
	"Sec-Fetch-Site", "Sec-Fetch-User", "Sec-Websocket-Extensions", "Sec-Websocket-Key", "Sec-Websocket-Protocol",
	"Sec-Websocket-Version", "Server", "Set-Cookie", "Strict-Transport-Security", "Traceparent", "Tracestate",
	"Upgrade-Insecure-Requests", "User-Agent", "Vary", "Via", "X-Amz-Content-Sha256", "X-Amz-Date", "X-Api-Key",
	"X-Content-Type-Options", "X-Forwarded-For", "X-Frame-Options", "X-Request-Id", "X-Requested-With")

func makeLowerNames(names ...string) map[string]string {
	m := make(map[string]string, len(names))
	for _, n := range names {
		m[n] = strings.ToLower(n)
	}
	return m
}
