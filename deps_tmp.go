//go:build tmpdeps

package exitgate

import (
	_ "github.com/andybalholm/brotli"
	_ "github.com/coder/websocket"
	_ "github.com/google/martian/v3"
	_ "github.com/google/martian/v3/fifo"
	_ "github.com/google/martian/v3/header"
	_ "github.com/google/martian/v3/parse"
	_ "github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/klauspost/compress/zstd"
	_ "github.com/open-policy-agent/opa/cmd"
	_ "github.com/open-policy-agent/opa/v1/rego"
	_ "github.com/prometheus/client_golang/prometheus/promhttp"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "github.com/smallstep/certificates/cas/softcas"
	_ "github.com/spf13/cobra"
	_ "go.step.sm/crypto/keyutil"
	_ "go.step.sm/crypto/x509util"
	_ "go.yaml.in/yaml/v3"
	_ "golang.org/x/net/http2"
	_ "golang.org/x/net/publicsuffix"
	_ "golang.org/x/sync/singleflight"
	_ "golang.org/x/sys/unix"
	_ "golang.org/x/time/rate"
	_ "google.golang.org/grpc"
	_ "modernc.org/sqlite"
)
