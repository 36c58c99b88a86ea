//go:build cloudkms

package kms

import (
	"context"

	"go.step.sm/crypto/kms/apiv1"
	"go.step.sm/crypto/kms/awskms"
	"go.step.sm/crypto/kms/azurekms"
	"go.step.sm/crypto/kms/cloudkms"
)

// haveCloud is nil in a build that has the cloud services.
func haveCloud(string) error { return nil }

func newCloud(ctx context.Context, o apiv1.Options) (apiv1.KeyManager, error) {
	switch o.Type {
	case apiv1.AmazonKMS:
		return awskms.New(ctx, o)
	case apiv1.AzureKMS:
		return azurekms.New(ctx, o)
	}
	return cloudkms.New(ctx, o)
}
