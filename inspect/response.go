package inspect

import (
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/exitgate/exitgate"
)

// ResponseFacts fills the question's response and the flow's status: field names in lower case, secrets as fingerprints, bytes
// that are not UTF-8 replaced (a response is not refused for them: servers send Latin-1 file names).
type ResponseFacts struct {
	Redact *Redactor
}

// ModifyResponse implements martian's ResponseModifier.
func (f *ResponseFacts) ModifyResponse(res *http.Response) error {
	x, _, err := exchange("ResponseFacts", res.Request)
	if err != nil {
		return err
	}
	out := f.Redact.fields(res.Header)
	for name, values := range out {
		for _, v := range values {
			if !utf8.ValidString(v) {
				out[name] = validValues(values)
				break
			}
		}
	}
	x.Flow.Status = res.StatusCode
	x.Flow.Question.Response = &exitgate.Response{Status: res.StatusCode, Headers: out, Length: res.ContentLength}
	return nil
}

func validValues(values []string) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = strings.ToValidUTF8(v, "\uFFFD")
	}
	return out
}
