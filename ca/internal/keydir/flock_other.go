//go:build !unix

package keydir

import (
	"errors"
	"os"
)

// flock fails: gateways run on Unix. On other systems this program is a host's.
func flock(*os.File) error { return errors.New("this system has no flock: run the gateway on Linux") }
