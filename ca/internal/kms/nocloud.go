//go:build !cloudkms

package kms

import (
	"context"
	"fmt"

	"go.step.sm/crypto/kms/apiv1"
)

// haveCloud says what to do in a build without the cloud services.
func haveCloud(scheme string) error {
	return fmt.Errorf("this build has no %s: build exitgate with -tags cloudkms, or treat the root as an offline one, and let whatever reaches "+
		"that service sign what \"exitgate ca issuer-request\" writes", scheme)
}

func newCloud(_ context.Context, o apiv1.Options) (apiv1.KeyManager, error) {
	return nil, haveCloud(string(o.Type))
}
