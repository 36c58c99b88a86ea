//go:build allkms && cgo

package authority

import (
	"context"

	"go.step.sm/crypto/kms/apiv1"
	"go.step.sm/crypto/kms/pkcs11"
)

// moreManagers says how to get the others.
const moreManagers = "that is all there are"

// addHardware adds the managers that need cgo.
func addHardware(m map[string]func(context.Context, apiv1.Options) (apiv1.KeyManager, error)) {
	m[pkcs11.Scheme] = func(ctx context.Context, o apiv1.Options) (apiv1.KeyManager, error) { return pkcs11.New(ctx, o) }
}
