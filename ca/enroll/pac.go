package enroll

import (
	"encoding/json"
	"net/netip"
	"net/url"
	"strings"

	"github.com/exitgate/exitgate/ca/trust"
)

// PAC renders a proxy auto-configuration file (also served as wpad.dat): everything goes to the proxy but the entries of
// no_proxy. An entry that is a name stands for itself and the names below it, as curl and Go read it. There is no
// "DIRECT" to fall back to: what the gateway does not carry is not carried. The zero Proxy sends everything direct, which
// is what transparent mode wants.
func PAC(p trust.Proxy) []byte {
	var hosts, domains, ranges = []string{}, []string{}, [][2]string{}
	for _, s := range p.NoProxy {
		s = strings.ToLower(s)
		if r, err := netip.ParsePrefix(s); err == nil && r.Addr().Is4() {
			ranges = append(ranges, [2]string{r.Masked().Addr().String(), mask(r.Bits())})
		} else if a, err := netip.ParseAddr(s); err == nil {
			hosts = append(hosts, a.String())
		} else if name := nameOnly(s); name != "" {
			domains = append(domains, name)
		}
	}
	var b strings.Builder
	b.WriteString("// Written by exitgate.\n" + settings(p) + "function FindProxyForURL(url, host) {\n")
	b.WriteString("  host = host.toLowerCase().replace(/^\\[|\\]$/g, \"\").replace(/\\.$/, \"\");\n")
	b.WriteString("  var hosts = " + literal(hosts) + ";\n  var domains = " + literal(domains) + ";\n  var ranges = " + literal(ranges) + ";\n")
	b.WriteString(`  var i;
  for (i = 0; i < hosts.length; i++) {
    if (host === hosts[i]) return "DIRECT";
  }
  for (i = 0; i < domains.length; i++) {
    if (host === domains[i] || host.slice(-domains[i].length - 1) === "." + domains[i]) return "DIRECT";
  }
  if (/^\d+\.\d+\.\d+\.\d+$/.test(host)) {
    for (i = 0; i < ranges.length; i++) {
      if (isInNet(host, ranges[i][0], ranges[i][1])) return "DIRECT";
    }
  }
`)
	b.WriteString("  return url.slice(0, 5).toLowerCase() === \"http:\" ? " + literal(directive(p.HTTP)) + " : " + literal(directive(p.HTTPS)) + ";\n}\n")
	return []byte(b.String())
}

// settings is a line for enroll.sh, which reads no JavaScript. A value that is not what it should be is left out.
func settings(p trust.Proxy) string {
	if p.HTTPS == "" || (trust.Proxy{HTTP: p.HTTP, HTTPS: p.HTTPS}).Check() != nil {
		return ""
	}
	line := "// exitgate http=" + p.HTTP + " https=" + p.HTTPS
	var none []string
	for _, s := range p.NoProxy {
		if (trust.Proxy{HTTP: p.HTTP, HTTPS: p.HTTPS, NoProxy: []string{s}}).Check() == nil {
			none = append(none, s)
		}
	}
	return line + " no_proxy=" + strings.Join(none, ",") + "\n"
}

// nameOnly takes port, leading dot and wildcard off a name.
func nameOnly(s string) string {
	name, _, _ := strings.Cut(s, ":")
	return strings.TrimPrefix(strings.TrimPrefix(name, "*"), ".")
}

// directive is what a browser is to do: "PROXY host:port", or "HTTPS host:port" for a proxy that speaks TLS.
func directive(s string) string {
	if s == "" {
		return "DIRECT"
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || strings.ContainsAny(u.Host, "; \t\r\n,") {
		return "PROXY invalid.invalid:1" // never direct because of a mistake
	}
	if u.Scheme == "https" {
		return "HTTPS " + u.Host
	}
	return "PROXY " + u.Host
}

// literal writes v as JavaScript that means v wherever it stands, in a page too: JSON with <, > and & escaped, and the
// line separators of Unicode, which older JavaScript takes for line ends.
func literal(v any) string {
	b, _ := json.Marshal(v) // strings and lists of them
	return string(b)
}

func mask(bits int) string {
	var m [4]byte
	for i := range bits {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(m).String()
}
