//go:build !allkms

package authority

import (
	"context"

	"go.step.sm/crypto/kms/apiv1"
)

// moreManagers says how to get the others.
const moreManagers = "build with -tags allkms for TPM, AWS, Azure and Google Cloud, and with cgo too for PKCS #11"

// managers returns the key managers of this build by the scheme of their URIs, but for files.
func managers() map[string]func(context.Context, apiv1.Options) (apiv1.KeyManager, error) {
	return nil
}
