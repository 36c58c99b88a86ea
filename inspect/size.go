package inspect

import "net/http"

// requestHeaderSize returns how many bytes HTTP/1.1 would need for the request line and the header fields as they are about
// to be sent.
func requestHeaderSize(req *http.Request) int64 {
	n := len(req.Method) + 1 + len(req.URL.EscapedPath()) + len(" HTTP/1.1\r\n") + len("Host: \r\n") + len(req.Host) + len("\r\n")
	if req.URL.RawQuery != "" || req.URL.ForceQuery {
		n += 1 + len(req.URL.RawQuery)
	}
	if req.ContentLength < 0 {
		n += len("Transfer-Encoding: chunked\r\n")
	}
	return int64(n) + fieldsSize(req.Header)
}

// responseHeaderSize returns the same for a response as it came.
func responseHeaderSize(res *http.Response) int64 {
	n := len("HTTP/1.1 ") + len(res.Status) + len("\r\n") + len("\r\n")
	if len(res.Status) == 0 { // HTTP/2
		n += 3
	}
	return int64(n) + fieldsSize(res.Header)
}

func fieldsSize(h http.Header) int64 {
	n := 0
	for name, values := range h {
		for _, v := range values {
			n += len(name) + len(v) + len(": \r\n")
		}
	}
	return int64(n)
}
