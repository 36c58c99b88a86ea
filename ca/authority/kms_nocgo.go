//go:build allkms && !cgo

package authority

import (
	"context"

	"go.step.sm/crypto/kms/apiv1"
)

// moreManagers says how to get the others.
const moreManagers = "build with cgo too for PKCS #11"

// addHardware adds the managers that need cgo: none.
func addHardware(map[string]func(context.Context, apiv1.Options) (apiv1.KeyManager, error)) {}
