package chains

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
)

// key stands in a certificate and signs others.
type key struct {
	kind   string
	signer crypto.Signer
	// public is its SubjectPublicKeyInfo.
	public []byte
}

// keyKinds says how many keys there are of each kind: all chains share them, or making them would take minutes.
var keyKinds = []struct {
	kind  string
	count int
	make  func() (crypto.Signer, error)
}{
	{"P-256", 16, func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }},
	{"P-384", 8, func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) }},
	{"P-521", 8, func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P521(), rand.Reader) }},
	{"Ed25519", 12, func() (crypto.Signer, error) { _, key, err := ed25519.GenerateKey(rand.Reader); return key, err }},
	{"RSA 2048", 8, func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }},
	{"RSA 1024", 4, func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 1024) }},
	{"P-224", 4, func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P224(), rand.Reader) }},
}

func makeKeys() map[string][]*key {
	keys := map[string][]*key{}
	for _, of := range keyKinds {
		for range of.count {
			signer := must(of.make())
			keys[of.kind] = append(keys[of.kind], &key{of.kind, signer, must(x509.MarshalPKIXPublicKey(signer.Public()))})
		}
	}
	return keys
}

// unknownCurve is a key that crypto/x509 cannot read: secp256k1, with the base point for its point (SEC 2, 2.4.1).
var unknownCurve = &key{kind: "secp256k1", public: must(asn1.Marshal(struct {
	Algorithm pkix.AlgorithmIdentifier
	Key       asn1.BitString
}{
	pkix.AlgorithmIdentifier{
		Algorithm:  asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1},
		Parameters: asn1.RawValue{FullBytes: must(asn1.Marshal(asn1.ObjectIdentifier{1, 3, 132, 0, 10}))},
	},
	bitString(must(hex.DecodeString("0479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798" +
		"483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8"))),
}))}

// algorithm is one that certificates are signed with (RFC 5758, RFC 8017, RFC 8410).
type algorithm struct {
	pkix.AlgorithmIdentifier
	hash    crypto.Hash
	options crypto.SignerOpts
}

var null = asn1.RawValue{FullBytes: []byte{5, 0}}

func ecdsaWith(hash crypto.Hash, id ...int) algorithm {
	return algorithm{pkix.AlgorithmIdentifier{Algorithm: append(asn1.ObjectIdentifier{1, 2, 840, 10045, 4}, id...)}, hash, hash}
}

func rsaWith(hash crypto.Hash, id int) algorithm {
	return algorithm{pkix.AlgorithmIdentifier{Algorithm: pkcs1(id), Parameters: null}, hash, hash}
}

func pkcs1(id int) asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, id} }

// pss has parameters of its own; none at all stand for SHA-1 (RFC 8017, A.2.3).
func pss(hash crypto.Hash, parameters []byte) algorithm {
	options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
	return algorithm{pkix.AlgorithmIdentifier{Algorithm: pkcs1(10), Parameters: asn1.RawValue{FullBytes: parameters}}, hash, options}
}

func pssParameters(hash asn1.ObjectIdentifier, salt int) []byte {
	digest := pkix.AlgorithmIdentifier{Algorithm: hash, Parameters: null}
	mask := pkix.AlgorithmIdentifier{Algorithm: pkcs1(8), Parameters: asn1.RawValue{FullBytes: must(asn1.Marshal(digest))}}
	return must(asn1.Marshal(struct {
		Hash pkix.AlgorithmIdentifier `asn1:"explicit,tag:0"`
		Mask pkix.AlgorithmIdentifier `asn1:"explicit,tag:1"`
		Salt int                      `asn1:"explicit,tag:2"`
	}{digest, mask, salt}))
}

var (
	ofEcdsa   = []algorithm{ecdsaWith(crypto.SHA256, 3, 2), ecdsaWith(crypto.SHA384, 3, 3), ecdsaWith(crypto.SHA512, 3, 4)}
	ofRsa     = []algorithm{rsaWith(crypto.SHA256, 11), rsaWith(crypto.SHA384, 12), rsaWith(crypto.SHA512, 13), pssSha256}
	ofEd25519 = algorithm{pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 101, 112}}, 0, crypto.Hash(0)}
	pssSha256 = pss(crypto.SHA256, pssParameters(asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, 32))
	ecdsaSha1 = ecdsaWith(crypto.SHA1, 1)
	rsaSha1   = rsaWith(crypto.SHA1, 5)
	pssSha1   = pss(crypto.SHA1, []byte{0x30, 0})
)

// algorithmsOf are those with SHA-2 that fit the key.
func algorithmsOf(by *key) []algorithm {
	switch by.signer.(type) {
	case *rsa.PrivateKey:
		return ofRsa
	case ed25519.PrivateKey:
		return []algorithm{ofEd25519}
	default:
		return ofEcdsa
	}
}

func (a algorithm) sign(by *key, message []byte) []byte {
	if a.hash != 0 {
		digest := a.hash.New()
		digest.Write(message)
		message = digest.Sum(nil)
	}
	return must(by.signer.Sign(rand.Reader, message, a.options))
}

func bitString(bytes []byte) asn1.BitString {
	return asn1.BitString{Bytes: bytes, BitLength: len(bytes) * 8}
}
