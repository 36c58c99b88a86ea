package gatetest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/exitgate/exitgate"
)

// TestUpgradeH2CRegression: Java's client asks to change to HTTP/2 with each request in plain text. It was answered with
// 400; it is carried as the HTTP/1.1 that it is, and the upstream hears nothing of the change.
func TestUpgradeH2CRegression(t *testing.T) {
	g := New(t)
	o := wire(g, www, false, nil)
	c := g.Dial()
	br := bufio.NewReader(c)
	for i, body := range []string{"", "Content-Length: 4\r\n\r\nbody", "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"} {
		method := "POST"
		if body == "" {
			method, body = "GET", "\r\n"
		}
		send(t, c, method+" http://"+www+"/a HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nHost: "+www+
			"\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\nUser-Agent: Java-http-client/17.0.9\r\n"+body)
		if a := receive(t, br, method); a.status != 200 || a.body != "ok" || a.header.Get("Upgrade") != "" {
			t.Errorf("%d %v %q", a.status, a.header, a.body)
		}
		f := g.Recorder.Last(i + 1)
		if q := f.Question.HTTP; q.Upgrade != "" || q.Headers["upgrade"] != nil || q.Headers["http2-settings"] != nil || f.Outcome() != exitgate.OutcomeAllowed {
			t.Errorf("flow: %s, upgrade %q, %v", describe(f), q.Upgrade, q.Headers)
		}
	}
	if _, got, reqs := o.seen(); len(reqs) != 3 || strings.Contains(strings.ToLower(got), "upgrade") || strings.Contains(strings.ToLower(got), "settings") {
		t.Errorf("the upstream got %q", got)
	}
}

// TestUpgradeH2CTaken: an upstream that changes to HTTP/2 although it was not asked is a fault, and none of it is passed on.
func TestUpgradeH2CTaken(t *testing.T) {
	g := New(t)
	wire(g, www, false, func(o *wireOrigin, c net.Conn, br *bufio.Reader) {
		http.ReadRequest(br)
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	})
	c := g.Dial()
	send(t, c, "GET http://"+www+"/ HTTP/1.1\r\nHost: "+www+"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n")
	if a := receive(t, bufio.NewReader(c), "GET"); a.status != 502 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestJavaInPlainText is the client itself, as it is without a setting.
func TestJavaInPlainText(t *testing.T) {
	g := New(t)
	g.PlainOrigin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "carried %s %q", r.Proto, r.Header["Upgrade"])
	}), www)
	name := filepath.Join(t.TempDir(), "Get.java")
	host, port, _ := strings.Cut(g.Addr, ":")
	program := `import java.net.*; import java.net.http.*;
public class Get { public static void main(String[] a) throws Exception {
  var c = HttpClient.newBuilder().proxy(ProxySelector.of(new InetSocketAddress("` + host + `", ` + port + `))).build();
  for (int i = 0; i < 2; i++) System.out.println(c.send(HttpRequest.newBuilder(URI.create("http://` + www + `/")).build(), HttpResponse.BodyHandlers.ofString()).body());
} }`
	if err := os.WriteFile(name, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(bounded(t), "java", "-XX:TieredStopAtLevel=1", name).CombinedOutput()
	if err != nil || strings.Count(string(out), "carried HTTP/1.1 []") != 2 {
		t.Errorf("%v\n%s", err, out)
	}
}
