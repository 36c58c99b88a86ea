package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// Where a host that is enrolled keeps what it was given.
const (
	hostFile  = "/etc/exitgate/host.json"
	hostState = "/var/lib/exitgate-host"
)

// dialAsHost returns the client with which a host that is enrolled speaks for itself, nil where this machine is none, or
// where the command line or the environment names a gateway, or one runs here.
func dialAsHost(c *cobra.Command) (*client, error) {
	if flagOr(c, "api", "EXITGATE_API") != "" || flagOr(c, "data", "EXITGATE_DATA") != "" {
		return nil, nil
	}
	if _, err := os.Stat(adminSocket(dataDir(c))); err == nil {
		return nil, nil
	}
	return hostClient(hostFile, hostState)
}

// hostClient reads what a host was given. The gateway is who has a certificate under the root that was checked by its
// fingerprint when the host enrolled.
func hostClient(file, state string) (*client, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var host struct {
		Gateway string `json:"gateway"`
	}
	if err == nil {
		err = json.Unmarshal(b, &host)
	}
	if err != nil {
		return nil, fmt.Errorf("read which gateway this host is enrolled with: %s: %w", file, err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(state, "identity.crt"), filepath.Join(state, "identity.key"))
	if errors.Is(err, fs.ErrPermission) {
		return nil, errors.New("this host's identity belongs to root: run this as root, or with sudo")
	}
	if err != nil {
		return nil, fmt.Errorf("read this host's identity: %w", err)
	}
	pem, err := os.ReadFile(filepath.Join(state, "root.crt"))
	pool := x509.NewCertPool()
	if err == nil && !pool.AppendCertsFromPEM(pem) {
		err = errors.New("there is no certificate in it")
	}
	if err != nil {
		return nil, fmt.Errorf("read the gateway's identity root: %w", err)
	}
	if !strings.HasPrefix(host.Gateway, "https://") {
		return nil, fmt.Errorf("%s: the gateway %.80q is no https URL", file, host.Gateway)
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, Certificates: []tls.Certificate{pair}}
	return &client{base: strings.TrimSuffix(host.Gateway, "/") + "/enroll", http: &http.Client{Transport: t}}, nil
}
