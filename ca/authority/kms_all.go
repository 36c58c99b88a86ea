//go:build allkms

package authority

import (
	"context"

	"go.step.sm/crypto/kms/apiv1"
	"go.step.sm/crypto/kms/awskms"
	"go.step.sm/crypto/kms/azurekms"
	"go.step.sm/crypto/kms/cloudkms"
	"go.step.sm/crypto/kms/tpmkms"
)

// managers returns the key managers of this build by the scheme of their URIs, but for files.
func managers() map[string]func(context.Context, apiv1.Options) (apiv1.KeyManager, error) {
	m := map[string]func(context.Context, apiv1.Options) (apiv1.KeyManager, error){
		awskms.Scheme:   func(ctx context.Context, o apiv1.Options) (apiv1.KeyManager, error) { return awskms.New(ctx, o) },
		azurekms.Scheme: func(ctx context.Context, o apiv1.Options) (apiv1.KeyManager, error) { return azurekms.New(ctx, o) },
		cloudkms.Scheme: func(ctx context.Context, o apiv1.Options) (apiv1.KeyManager, error) { return cloudkms.New(ctx, o) },
		tpmkms.Scheme:   func(ctx context.Context, o apiv1.Options) (apiv1.KeyManager, error) { return tpmkms.New(ctx, o) },
	}
	addHardware(m)
	return m
}
