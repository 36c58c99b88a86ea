// Package export writes root certificates in the formats that trust stores are fed with.
//
//	pem  certificates one after the other           OpenSSL, most of Unix, Python, Node, curl
//	der  one certificate                            Windows, Android, browsers
//	p7b  PKCS #7 without a signature, DER           Windows group policy, Java's keytool
//	jks  Java KeyStore, trusted certificates        Java before 9, and what was told to use it
//	p12  PKCS #12 with Java's trust attribute       Java from 9 on, .NET
//
// # What is promised
//
// No format holds a key, and none needs a secret: JKS and PKCS #12 have a password all the same, since their readers
// ask for one to check that the file is whole; it protects nothing. Each root stands under an alias that is made of its
// fingerprint, so that a second import changes nothing and two roots never take each other's place.
//
// DER holds one certificate: the first.
package export
