package gatetest

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// ntlm is an origin that authenticates connections, not requests (RFC 4559): after the third message a connection belongs to a user.
type ntlm struct {
	mu   sync.Mutex
	step map[string]int
	user map[string]string
}

func (n *ntlm) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	conn := r.RemoteAddr
	if n.user[conn] != "" {
		fmt.Fprint(w, n.user[conn])
		return
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	switch {
	case token == "hello":
		n.step[conn] = 1
		w.Header().Set("WWW-Authenticate", scheme+" challenge")
	case strings.HasPrefix(token, "user-") && n.step[conn] == 1:
		n.user[conn] = token
		fmt.Fprint(w, token)
		return
	default:
		w.Header().Set("WWW-Authenticate", "NTLM")
	}
	w.WriteHeader(401)
	io.WriteString(w, "who are you?")
}

func TestConnectionAuthenticationIsNotShared(t *testing.T) {
	for _, scheme := range []string{"NTLM", "Negotiate", "ntlm"} {
		t.Run(scheme, func(t *testing.T) {
			g := New(t)
			g.Origin(&ntlm{step: map[string]int{}, user: map[string]string{}}, "www.example.com")
			login := func(c *http.Client, user string) {
				t.Helper()
				do(t, c, "GET", "https://www.example.com/", nil)
				do(t, c, "GET", "https://www.example.com/", nil, "Authorization", scheme+" hello")
				if res, body := do(t, c, "GET", "https://www.example.com/", nil, "Authorization", scheme+" "+user); res.StatusCode != 200 || body != user {
					t.Fatalf("login of %s: %d %q", user, res.StatusCode, body)
				}
			}
			whoami := func(c *http.Client) string {
				t.Helper()
				_, body := do(t, c, "GET", "https://www.example.com/", nil)
				return body
			}
			one, two, three := g.Client(false), g.Client(false), g.Client(true)
			login(one, "user-1")
			login(two, "user-2")
			for range 5 {
				if a, b := whoami(one), whoami(two); a != "user-1" || b != "user-2" {
					t.Fatalf("the clients are %q and %q", a, b)
				}
				if s := whoami(three); s != "who are you?" {
					t.Fatalf("a client that did not log in is %q", s)
				}
			}
			one.CloseIdleConnections()
			for range 5 {
				if s := whoami(g.Client(false)); s != "who are you?" {
					t.Fatalf("after the client left, another one is %q", s)
				}
			}
			two.CloseIdleConnections()
			three.CloseIdleConnections()
		})
	}
}

// A burst on one client's connections never lends one user's connection to another.
func TestConnectionAuthenticationUnderLoad(t *testing.T) {
	g := New(t)
	g.Origin(&ntlm{step: map[string]int{}, user: map[string]string{}}, "www.example.com")
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			c := g.Client(false)
			user := fmt.Sprintf("user-%d", i)
			for _, token := range []string{"hello", user} {
				r, _ := http.NewRequest("GET", "https://www.example.com/", nil)
				r.Header.Set("Authorization", "NTLM "+token)
				if res, err := c.Do(r); err == nil {
					io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
			}
			for range 20 {
				res, err := c.Get("https://www.example.com/")
				if err != nil {
					t.Error(err)
					return
				}
				b, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if string(b) != user {
					t.Errorf("%s is %q", user, b)
				}
			}
		})
	}
	wg.Wait()
}
