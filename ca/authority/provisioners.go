package authority

import (
	"crypto/x509"
	"encoding/asn1"

	"github.com/smallstep/certificates/authority/policy"
	"github.com/smallstep/certificates/authority/provisioner"
	"go.step.sm/crypto/jose"
)

// The names of the provisioners. That of hosts stands in every identity, as does its key's id, which is the same
// on all gateways although each may have a key of its own: so any gateway renews what another issued.
const (
	hostsName = "hosts"
	hostsKey  = "hosts"
	acmeName  = "acme"
)

// classOID returns the identifier of the extension that holds the class of a host, as a UTF8String. It is under the
// arc that needs no registration (ITU-T X.667, 2.25), with a number that fits the 31 bits that parsers take.
func classOID() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 25, 1592873105} }

// hostTemplate makes the identity of a host. Name, alternative names and class are what the signed token says; nothing
// is taken from the request but the key. Every value goes through toJson, since templates are text.
const hostTemplate = `{
{{- if not .Token.class }}{{ fail "the token names no class" }}{{ end }}
	"subject": {"commonName": {{ toJson .Subject.CommonName }}},
	"sans": {{ toJson .SANs }},
	"keyUsage": ["digitalSignature"],
	"extKeyUsage": ["clientAuth"],
	"extensions": [{"id": "2.25.1592873105", "value": {{ asn1Enc (printf "utf8:%s" .Token.class) | toJson }}}]
}`

// acmeTemplate makes a server certificate of a host. It can never pass for an identity.
const acmeTemplate = `{
	"subject": {"commonName": {{ toJson .Subject.CommonName }}},
	"sans": {{ toJson .SANs }},
	"keyUsage": ["digitalSignature"{{ if typeIs "*rsa.PublicKey" .Insecure.CR.PublicKey }}, "keyEncipherment"{{ end }}],
	"extKeyUsage": ["serverAuth"]
}`

// provisioners returns those of a new generation: smallstep keeps state in them.
func (a *Authority) provisioners() provisioner.List {
	l := provisioner.List{&provisioner.JWK{
		Type:    "JWK",
		Name:    hostsName,
		Key:     &jose.JSONWebKey{Key: a.tokenKey.Public(), KeyID: hostsKey, Algorithm: jose.ES256, Use: "sig"},
		Claims:  claims(a.o.Lifetimes.Identity),
		Options: &provisioner.Options{X509: &provisioner.X509Options{Template: hostTemplate}},
	}}
	if a.o.ACME != nil {
		l = append(l, &provisioner.ACME{
			Type:       "ACME",
			Name:       acmeName,
			Challenges: []provisioner.ACMEChallenge{provisioner.HTTP_01, provisioner.TLS_ALPN_01},
			Claims:     claims(a.o.Lifetimes.Server),
			Options: &provisioner.Options{X509: &provisioner.X509Options{
				Template:     acmeTemplate,
				AllowedNames: &policy.X509NameOptions{DNSDomains: a.o.ACME.Names},
			}},
		})
	}
	return l
}

// fromHosts reports whether c has the extension that smallstep gives to what the provisioner of hosts authorized.
func fromHosts(c *x509.Certificate) bool {
	ext, ok := provisioner.GetProvisionerExtension(c)
	return ok && ext.Type == provisioner.TypeJWK && ext.Name == hostsName && ext.CredentialID == hostsKey
}
