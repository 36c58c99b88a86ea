//go:build !cgo

package kms

import (
	"context"
	"errors"

	"go.step.sm/crypto/kms/apiv1"
)

func havePKCS11() error {
	return errors.New("this build cannot use PKCS #11, which loads a C library: build exitgate with CGO_ENABLED=1, or keep the root offline")
}

func newPKCS11(context.Context, apiv1.Options) (apiv1.KeyManager, error) { return nil, havePKCS11() }
