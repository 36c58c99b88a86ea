// Package kms finds keys that are not kept in the folder of an authority: in an HSM by PKCS #11, in a TPM, or in a file
// of its own. A key is named by a URI as go.step.sm/crypto/kms defines them:
//
//	pkcs11:module-path=/usr/lib/softhsm/libsofthsm2.so;token=exitgate;id=01;object=root?pin-source=/etc/exitgate/pin
//	tpmkms:name=exitgate-root;device=/dev/tpmrm0;storage-directory=/var/lib/exitgate/tpm
//	softkms:path=/media/stick/root.key
//
// A URI holds no secret: it is written to files and shown. A PIN is read from the file that pin-source names, which
// may be a systemd credential, and pin-value is refused.
//
// # What is not here
//
// PKCS #11 loads a C library, so it needs a build with cgo; the others do not. Which schemes this build has is what
// [Check] says. The cloud services of go.step.sm/crypto (awskms, azurekms, cloudkms) are in builds with the tag cloudkms:
// they make the program larger by half. Without, a root in one of them signs issuers elsewhere, as an offline root does.
//
// The drivers stand in one switch, in place of the registry that go.step.sm/crypto fills when it is imported.
//
//	Check ─ Create, or use the key that is there ─ Open ─▶ crypto.Signer ─ Close
package kms
