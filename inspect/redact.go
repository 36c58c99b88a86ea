package inspect

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"net/url"
	"strings"
	"sync"
)

// Secrets names what enters a Question only as a fingerprint, besides what always does (see [NewRedactor]).
type Secrets struct {
	Headers []string // field names, any case
	Query   []string // keys of the query, any case
}

var secretHeaders = []string{
	"authorization", "proxy-authorization", "x-api-key", "api-key", "apikey", "x-auth-token", "x-access-token", "x-auth-key",
	"x-amz-security-token", "x-goog-api-key", "x-goog-iam-authorization-token", "x-vault-token", "x-consul-token",
	"private-token", "job-token", "deploy-token", "x-gitlab-token", "x-github-token", "x-jfrog-art-api", "x-nuget-apikey",
	"x-csrf-token", "x-xsrf-token", "x-session-token", "x-figma-token", "x-shopify-access-token", "circle-token", "dd-api-key",
	"dd-application-key", "ocp-apim-subscription-key", "x-functions-key", "npm-otp", "dpop", "authentication-info",
}

var secretQuery = []string{
	"access_token", "refresh_token", "id_token", "token", "auth_token", "authtoken", "oauth_token", "bearer_token", "private_token", "job_token",
	"api_key", "apikey", "api-key", "key", "auth", "authorization", "jwt", "signature", "sig", "x-amz-signature", "x-amz-security-token",
	"x-goog-signature", "x-oss-signature", "password", "passwd", "pwd", "secret", "client_secret", "client_assertion", "assertion",
	"code", "code_verifier", "session", "sessionid", "session_id", "session_token", "subscription-key", "samlresponse", "samlrequest",
}

// urlHeaders are fields whose value is a URL, which may hold secrets in its query or fragment.
var urlHeaders = []string{"referer", "location", "content-location", "refresh", "link"}

// A Redactor replaces secrets by keyed fingerprints: equal secrets have equal fingerprints, so that policies can compare them
// and analysts can follow them, and without the key a fingerprint says nothing. It is safe for concurrent use, and
// its memory does not grow.
type Redactor struct {
	headers map[string]kindOfSecret
	query   map[string]struct{}
	longest int // bytes of the longest key in query
	macs    sync.Pool
}

type kindOfSecret uint8

const (
	plainValue kindOfSecret = iota
	secretValue
	cookieValue
	setCookieValue
	urlValue
)

// NewRedactor returns a Redactor with the given key, which should have 32 random bytes and stay the same for as long as
// fingerprints are to be compared. More names what is secret besides Authorization, Cookie, Set-Cookie and the usual
// names of API keys, tokens and signatures.
func NewRedactor(key []byte, more Secrets) *Redactor {
	r := &Redactor{headers: map[string]kindOfSecret{"cookie": cookieValue, "set-cookie": setCookieValue}, query: map[string]struct{}{}}
	key = append([]byte(nil), key...)
	r.macs.New = func() any { return &mac{h: hmac.New(sha256.New, key)} }
	for _, n := range urlHeaders {
		r.headers[n] = urlValue
	}
	for _, list := range [][]string{secretHeaders, more.Headers} {
		for _, n := range list {
			if n = strings.ToLower(n); r.headers[n] == plainValue || r.headers[n] == urlValue {
				r.headers[n] = secretValue
			}
		}
	}
	for _, list := range [][]string{secretQuery, more.Query} {
		for _, n := range list {
			r.query[strings.ToLower(n)] = struct{}{}
			r.longest = max(r.longest, len(n))
		}
	}
	return r
}

// A mac is a hash with the room that it works in.
type mac struct {
	h  hash.Hash
	in []byte
}

// Fingerprint returns "fp:" and 16 hexadecimal digits of the HMAC-SHA256 of secret.
func (r *Redactor) Fingerprint(secret string) string {
	m := r.macs.Get().(*mac)
	m.h.Reset()
	m.in = append(m.in[:0], secret...)
	m.h.Write(m.in)
	clear(m.in) // no secret outlives its request here
	m.in = m.h.Sum(m.in[:0])
	var out [3 + 16]byte
	copy(out[:], "fp:")
	hex.Encode(out[3:], m.in[:8])
	r.macs.Put(m)
	return string(out[:])
}

// Header returns the value of the field name (in lower case) as it may be kept.
func (r *Redactor) Header(name, value string) string {
	switch r.headers[name] {
	case secretValue:
		return r.credentials(value)
	case cookieValue:
		return r.cookies(value)
	case setCookieValue:
		pair, attrs, _ := strings.Cut(value, ";")
		if attrs != "" {
			attrs = ";" + attrs
		}
		return r.cookie(pair) + attrs
	case urlValue:
		return r.URL(value)
	}
	return value
}

// secretKind reports how values of the field name are kept.
func (r *Redactor) secretKind(name string) kindOfSecret { return r.headers[name] }

// schemes are the names that may stand before credentials without being secret themselves: what is not one of them is
// taken for a part of the secret.
var schemes = map[string]string{
	"basic": "Basic", "bearer": "Bearer", "digest": "Digest", "negotiate": "Negotiate", "ntlm": "NTLM", "token": "Token", "apikey": "ApiKey",
	"aws4-hmac-sha256": "AWS4-HMAC-SHA256", "aws4-ecdsa-p256-sha256": "AWS4-ECDSA-P256-SHA256", "dpop": "DPoP", "hoba": "HOBA",
	"mutual": "Mutual", "oauth": "OAuth", "vapid": "vapid", "gnap": "GNAP", "privatetoken": "PrivateToken", "sharedkey": "SharedKey",
	"scram-sha-1": "SCRAM-SHA-1", "scram-sha-256": "SCRAM-SHA-256", "googlelogin": "GoogleLogin", "signature": "Signature",
}

// credentials keeps the scheme (RFC 9110, section 11.4) and, of AWS signatures, whose key made them: that is public, and the only
// part that says to which account something goes.
func (r *Redactor) credentials(v string) string {
	scheme, rest, ok := strings.Cut(v, " ")
	if !ok || len(scheme) > 24 {
		return r.Fingerprint(v)
	}
	name, known := schemes[strings.ToLower(scheme)]
	if !known {
		return r.Fingerprint(v)
	}
	if _, cred, ok := strings.Cut(rest, "Credential="); ok && strings.HasPrefix(name, "AWS4") {
		if cred, _, _ = strings.Cut(cred, ","); len(cred) <= 256 {
			name += " Credential=" + cred
		}
	}
	return name + " " + r.Fingerprint(strings.TrimLeft(rest, " "))
}

func (r *Redactor) cookies(v string) string {
	var b strings.Builder
	for pair := range strings.SplitSeq(v, ";") {
		if b.Len() > 0 {
			b.WriteString("; ")
		}
		b.WriteString(r.cookie(strings.Trim(pair, " \t")))
	}
	return b.String()
}

func (r *Redactor) cookie(pair string) string {
	name, value, ok := strings.Cut(pair, "=")
	switch {
	case !ok && pair == "":
		return ""
	case !ok:
		return r.Fingerprint(pair)
	}
	return name + "=" + r.Fingerprint(strings.Trim(value, " \t"))
}

// URL returns a URL, or a field value that holds one, with the secrets of its query, fragment and user information replaced.
func (r *Redactor) URL(v string) string {
	if i := strings.Index(v, "://"); i >= 0 {
		auth := v[i+3:]
		if end := strings.IndexAny(auth, "/?#"); end >= 0 {
			auth = auth[:end]
		}
		if at := strings.LastIndexByte(auth, '@'); at >= 0 {
			v = v[:i+3] + r.Fingerprint(auth[:at]) + v[i+3+at:]
		}
	}
	i := strings.IndexAny(v, "?#")
	if i < 0 {
		return v
	}
	return v[:i+1] + r.Query(v[i+1:])
}

// Query returns a query, without its question mark, with the values of secret keys replaced. Keys are compared
// decoded and in any case; "&", ";", "?" and "#" end a pair. Without a secret it returns q itself.
func (r *Redactor) Query(q string) string {
	var b strings.Builder
	done := 0
	for i := 0; i < len(q); {
		end, eq := i, -1
		for ; end < len(q) && !pairEnd(q[end]); end++ {
			if q[end] == '=' && eq < 0 {
				eq = end
			}
		}
		if eq >= 0 && eq+1 < end && r.secretKey(q[i:eq]) {
			b.WriteString(q[done : eq+1])
			b.WriteString(r.Fingerprint(q[eq+1 : end]))
			done = end
		}
		i = end + 1
	}
	if done == 0 {
		return q
	}
	b.WriteString(q[done:])
	return b.String()
}

func pairEnd(c byte) bool { return c == '&' || c == ';' || c == '?' || c == '#' }

func (r *Redactor) secretKey(k string) bool {
	if len(k) > 3*r.longest+2 {
		return false
	}
	if strings.IndexByte(k, '%') >= 0 {
		if d, err := url.QueryUnescape(k); err == nil {
			k = d
		}
	}
	k = strings.TrimSuffix(k, "[]")
	var buf [64]byte
	if len(k) > len(buf) {
		_, ok := r.query[strings.ToLower(k)]
		return ok
	}
	for i := range len(k) {
		buf[i] = lower(k[i])
	}
	_, ok := r.query[string(buf[:len(k)])]
	return ok
}
