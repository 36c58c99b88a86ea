package trust

import (
	"crypto/sha1" // what Windows calls a certificate by
	"fmt"
	"strings"
)

// Foreign is what provisions a host that is not Linux, as command lines. They are written from the vendors' documentation,
// and their form is tested; they were not run on either system.
type Foreign struct {
	Do   []Command // in order
	Undo []Command // in order; takes all of Do away, and does not bring back what was set before
}

// Windows returns the command lines for Windows, to be run elevated. The certificates lie at files, one for each root, in
// order. Programs that read variables get those of the proxy; the system's own (WinINET for all users, WinHTTP for
// services) are set beside. setx writes the machine's environment, which new sessions read.
func Windows(w Want, files []string) (Foreign, error) {
	var f Foreign
	if err := checkForeign(w, files); err != nil {
		return f, err
	}
	for i, r := range w.Roots {
		f.add([]string{"certutil.exe", "-addstore", "-f", "Root", files[i]}, []string{"certutil.exe", "-delstore", "Root", fmt.Sprintf("%x", sha1.Sum(r.Cert.Raw))})
	}
	if w.Proxy.HTTPS == "" {
		return f, nil
	}
	const environment = `HKLM\SYSTEM\CurrentControlSet\Control\Session Manager\Environment`
	for _, v := range []Variable{{"HTTP_PROXY", w.Proxy.HTTP}, {"HTTPS_PROXY", w.Proxy.HTTPS}, {"NO_PROXY", strings.Join(w.Proxy.NoProxy, ",")}} {
		f.add([]string{"setx.exe", v.Name, v.Value, "/M"}, []string{"reg.exe", "delete", environment, "/v", v.Name, "/f"})
	}
	host, port := hostPort(w.Proxy.HTTPS)
	server, bypass := joinHostPort(host, port), strings.Join(append(windowsBypass(w.Proxy.NoProxy), "<local>"), ";")
	const policy, internet = `HKLM\SOFTWARE\Policies\Microsoft\Windows\CurrentVersion\Internet Settings`, `HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\Internet Settings`
	for _, v := range [][4]string{{policy, "ProxySettingsPerUser", "REG_DWORD", "0"}, {internet, "ProxyEnable", "REG_DWORD", "1"},
		{internet, "ProxyServer", "REG_SZ", server}, {internet, "ProxyOverride", "REG_SZ", bypass}} {
		f.add([]string{"reg.exe", "add", v[0], "/v", v[1], "/t", v[2], "/d", v[3], "/f"}, []string{"reg.exe", "delete", v[0], "/v", v[1], "/f"})
	}
	f.add([]string{"netsh.exe", "winhttp", "set", "proxy", server, bypass}, []string{"netsh.exe", "winhttp", "reset", "proxy"})
	return f, nil
}

// MacOS returns the command lines for macOS, to be run as root; since macOS 11 the first asks for consent unless a
// management profile gives it. services are the network services whose proxies are set, such as "Wi-Fi".
func MacOS(w Want, files, services []string) (Foreign, error) {
	var f Foreign
	if err := checkForeign(w, files); err != nil {
		return f, err
	}
	for i, r := range w.Roots {
		f.add([]string{"/usr/bin/security", "add-trusted-cert", "-d", "-r", "trustRoot", "-k", "/Library/Keychains/System.keychain", files[i]},
			[]string{"/usr/bin/security", "delete-certificate", "-Z", strings.ToUpper(r.Fingerprint), "-t", "/Library/Keychains/System.keychain"})
	}
	if w.Proxy.HTTPS == "" {
		return f, nil
	}
	for _, s := range services {
		for _, p := range []struct{ set, state, url string }{{"-setwebproxy", "-setwebproxystate", w.Proxy.HTTP}, {"-setsecurewebproxy", "-setsecurewebproxystate", w.Proxy.HTTPS}} {
			host, port := hostPort(p.url)
			f.add([]string{"/usr/sbin/networksetup", p.set, s, host, port}, []string{"/usr/sbin/networksetup", p.state, s, "off"})
		}
		f.add(append([]string{"/usr/sbin/networksetup", "-setproxybypassdomains", s}, windowsBypass(w.Proxy.NoProxy)...), []string{"/usr/sbin/networksetup", "-setproxybypassdomains", s, "Empty"})
	}
	return f, nil
}

// add appends an act, and puts what undoes it before what undoes earlier ones.
func (f *Foreign) add(do, undo []string) {
	f.Do = append(f.Do, Command{Argv: do})
	f.Undo = append([]Command{{Argv: undo}}, f.Undo...)
}

func checkForeign(w Want, files []string) error {
	if len(files) != len(w.Roots) || len(files) == 0 {
		return fmt.Errorf("%d roots lie in %d files", len(w.Roots), len(files))
	}
	return w.Proxy.Check()
}

func joinHostPort(host, port string) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + port
}

// windowsBypass writes no_proxy as Windows and macOS have it: "*.name" for names below, no ranges.
func windowsBypass(list []string) []string {
	out := []string{}
	for _, s := range list {
		if strings.Contains(s, "/") {
			continue
		}
		if strings.HasPrefix(s, ".") {
			s = "*" + s
		}
		out = append(out, s)
	}
	return out
}
