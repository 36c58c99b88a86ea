//go:build cgo

package kms

import (
	"context"

	"go.step.sm/crypto/kms/apiv1"
	"go.step.sm/crypto/kms/pkcs11"
)

func havePKCS11() error { return nil }

func newPKCS11(ctx context.Context, o apiv1.Options) (apiv1.KeyManager, error) {
	return pkcs11.New(ctx, o)
}
