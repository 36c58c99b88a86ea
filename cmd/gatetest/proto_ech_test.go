package gatetest

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
)

// echConfig returns an ECHConfigList (RFC 9849) whose public name is www.example.com.
func echConfig() ([]byte, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	vec := func(n int, b []byte) []byte {
		var l [2]byte
		binary.BigEndian.PutUint16(l[:], uint16(len(b)))
		return append(append([]byte{}, l[2-n:]...), b...)
	}
	var c []byte
	c = append(c, 1)                                    // config id
	c = append(c, 0, 0x20)                              // DHKEM(X25519, HKDF-SHA256)
	c = append(c, vec(2, key.PublicKey().Bytes())...)   // public key
	c = append(c, vec(2, []byte{0, 1, 0, 1})...)        // HKDF-SHA256, AES-128-GCM
	c = append(c, 32)                                   // longest name
	c = append(c, vec(1, []byte("www.example.com"))...) // public name
	c = append(c, 0, 0)                                 // no extensions
	return vec(2, append([]byte{0xfe, 0x0d}, vec(2, c)...)), nil
}
