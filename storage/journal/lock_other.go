//go:build !unix

package journal

import (
	"errors"
	"os"
)

// tryLock fails: gateways run on Unix. On other systems this program is a host's.
func tryLock(*os.File) error { return errors.New("this system has no flock: run the gateway on Linux") }
