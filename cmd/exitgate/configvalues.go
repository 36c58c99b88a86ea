package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/exitgate/exitgate/web"
)

// The values that configuration is made of. Each is a string as it was written, checked by checkValue when the file
// is read; the method that reads it afterwards cannot fail.
type (
	// HostPort is an address and a port to listen on, or "off".
	HostPort string
	// AddrPort is an IP address and a port.
	AddrPort string
	// Prefix is an IP address or a CIDR.
	Prefix string
	// Name names a host or a class: 1 to 64 letters, digits, dots, dashes and underscores.
	Name string
	// Digest is 64 hex digits.
	Digest string
	// Size is a number of bytes: "10MiB", "64KiB", "1GB", "1000".
	Size string
	// Count is a number from 1 to 2^31-1.
	Count string
	// Duration is a time span: "30s", "5m", "1h30m", "2d".
	Duration string
	// StoreURL is sqlite:PATH or postgres://...
	StoreURL string
	// ProxyURL is http://address:port.
	ProxyURL string
	// Sync is disk or os.
	Sync string
	// RefuseConnect is auto, inside or outside.
	RefuseConnect string
	// LogLevel is debug, info, warn or error.
	LogLevel string
	// LogFormat is auto, text or json.
	LogFormat string
	// HostMode is proxy or transparent.
	HostMode string
	// KeyURI is the URI of a key, or "offline".
	KeyURI string
	// Secret is file:PATH, env:NAME or credential:NAME.
	Secret string
)

// checkValue says what is wrong with s as a value of the type named. An empty value is a value left out.
func checkValue(typ, s string) error {
	var err error
	switch typ {
	case "HostPort":
		if s != "off" {
			err = checkHostPort(s)
		}
	case "AddrPort":
		_, err = netip.ParseAddrPort(s)
	case "Prefix":
		_, err = parsePrefix(s)
	case "Name":
		err = checkName(s)
	case "Digest":
		if b, derr := hex.DecodeString(s); derr != nil || len(b) != 32 {
			err = errors.New("it is not 64 hex digits")
		}
	case "Size":
		_, err = parseSize(s)
	case "Count":
		if n, perr := strconv.Atoi(s); perr != nil || n < 1 || n > math.MaxInt32 {
			err = errors.New("it is not a number of at least 1")
		}
	case "Duration":
		_, err = parseDuration(s)
	case "StoreURL":
		err = checkStoreURL(s)
	case "ProxyURL":
		err = checkProxyURL(s)
	case "Sync":
		err = oneOf(s, "disk", "os")
	case "RefuseConnect":
		err = oneOf(s, "auto", "inside", "outside")
	case "LogLevel":
		err = oneOf(s, "debug", "info", "warn", "error")
	case "LogFormat":
		err = oneOf(s, "auto", "text", "json")
	case "HostMode":
		err = oneOf(s, "proxy", "transparent")
	case "KeyURI":
		err = checkKeyURI(s)
	case "Secret":
		err = checkSecret(s)
	}
	return err
}

func oneOf(s string, words ...string) error {
	for _, w := range words {
		if s == w {
			return nil
		}
	}
	return fmt.Errorf("it is not one of %s%s", strings.Join(words, ", "), didYouMean(s, words))
}

func checkName(s string) error {
	if len(s) > 64 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" {
		return errors.New("a name is 1 to 64 letters, digits, dots, dashes and underscores")
	}
	return nil
}

func checkHostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return errors.New("it is not address:port, such as 127.0.0.1:3128 or [::]:3128 for all addresses")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("port %q is not a number from 0 to %d", port, math.MaxUint16)
	} else if host == "" {
		return fmt.Errorf("it does not say on which address; [::]:%d is all of them", n)
	}
	return nil
}

func checkStoreURL(s string) error {
	if path, ok := strings.CutPrefix(s, "sqlite:"); ok {
		if path == "" {
			return errors.New("no path of a file follows sqlite")
		}
		return nil
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		// The URL may hold a password, so the error says no more of it than what is wrong.
		return errors.New("it cannot be read as a URL")
	case u.Scheme != "postgres" && u.Scheme != "postgresql":
		return errors.New("it is neither sqlite:PATH nor a postgres URL")
	}
	return nil
}

func checkProxyURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" || u.Host == "" || u.Port() == "" {
		return errors.New("it is not http://address:port")
	}
	return nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, errors.New("it is neither an IP address nor a range such as 192.0.2.0/24")
	}
	if p != p.Masked() {
		return p, fmt.Errorf("bits are set behind the first %d; the range is %s", p.Bits(), p.Masked())
	}
	return p, nil
}

func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "KMGTiB ")
	unit, ok := map[string]int64{
		"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
		"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
	}[strings.TrimSpace(s[len(digits):])]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !ok || n < 0 {
		return 0, errors.New("it is not a size such as 10MiB, 64KiB, 1GB or 1000")
	}
	if n > math.MaxInt64/unit {
		return 0, errors.New("it is larger than can be counted")
	}
	return n * unit, nil
}

// parseDuration reads what time.ParseDuration reads, and days: 30d.
func parseDuration(s string) (time.Duration, error) { return web.ParseDuration(s) }

func (p Prefix) value() netip.Prefix { v, _ := parsePrefix(string(p)); return v }

func (a AddrPort) value() netip.AddrPort { v, _ := netip.ParseAddrPort(string(a)); return v }

func (s Size) value() int64 { v, _ := parseSize(string(s)); return v }

func (c Count) value() int { v, _ := strconv.Atoi(string(c)); return v }

func (d Duration) value() time.Duration { v, _ := parseDuration(string(d)); return v }

func (d Digest) value() (v [32]byte) { hex.Decode(v[:], []byte(d)); return v }

// didYouMean returns "; did you mean X?" when one of the words is near to s.
func didYouMean(s string, words []string) string {
	if near := web.Nearest(s, words); near != "" {
		return "; did you mean " + near + "?"
	}
	return ""
}
