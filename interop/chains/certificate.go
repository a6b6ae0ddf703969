package chains

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"time"
)

// certificate is what one contains, whether or not it makes sense; crypto/x509 itself writes only sound ones.
type certificate struct {
	// level is its place in the chain: "leaf", "intermediate", "root", or "beside" it.
	level string
	// version as it is written: 2 for version 3.
	version int
	serial  int64
	subject string
	// printable writes the subject as another type of string, with other bytes.
	printable bool
	key       *key
	// by issued it; itself when nil.
	by *certificate
	// issuer and signer stand in place of the issuer's subject and key.
	issuer string
	signer *key
	algorithm
	isSpoilt   bool
	from, to   time.Time
	dates      []asn1.RawValue
	basic      *basic
	keyUsage   *int
	names      []name
	isCritical bool // its names
	limits     *limits
	// purposes is the value of extendedKeyUsage.
	purposes []asn1.ObjectIdentifier
	// keyID is its subjectKeyIdentifier; issuerKeyID, unless nil, stands in place of that of its issuer.
	keyID, issuerKeyID []byte
	namesIssuerKey     bool
	more               []pkix.Extension
	der                []byte
}

// basic is basicConstraints.
type basic struct {
	isCA, isCritical bool
	// length is written where there is one.
	length *int64
}

// name is a GeneralName: its tag in DER and its value.
type name struct {
	tag   byte
	value string
}

// Tags of GeneralName (RFC 5280, 4.2.1.6).
const (
	tagEmail = 0x81
	tagDNS   = 0x82
	tagURI   = 0x86
	tagIP    = 0x87
)

// limits are nameConstraints.
type limits struct {
	permitted, excluded []name
	isCritical          bool
}

// Bits of keyUsage, first bit lowest (RFC 5280, 4.2.1.3).
const (
	digitalSignature = 1 << 0
	keyCertSign      = 1 << 5
	crlSign          = 1 << 6
)

type toBeSigned struct {
	Version      int `asn1:"optional,explicit,default:0,tag:0"`
	Serial       *big.Int
	Algorithm    pkix.AlgorithmIdentifier
	Issuer       asn1.RawValue
	Validity     []asn1.RawValue
	Subject, Key asn1.RawValue
	Extensions   []pkix.Extension `asn1:"optional,explicit,tag:3,omitempty"`
}

// encode writes and signs it once: nothing in it may be changed afterwards.
func (c *certificate) encode() []byte {
	if c.der != nil {
		return c.der
	}
	by := c.by
	if by == nil {
		by = c
	}
	signer := by.key
	if c.signer != nil {
		signer = c.signer
	}
	if c.algorithm.options == nil {
		c.algorithm = algorithmsOf(signer)[0]
	}
	issuer := by.distinguishedName()
	if c.issuer != "" {
		issuer = distinguished(c.issuer, c.printable)
	}
	inner := must(asn1.Marshal(toBeSigned{
		c.version, big.NewInt(c.serial), c.AlgorithmIdentifier, issuer, c.validity(),
		c.distinguishedName(), asn1.RawValue{FullBytes: c.key.public}, c.extensions(by),
	}))
	signature := c.sign(signer, inner)
	if c.isSpoilt {
		signature[len(signature)-1] ^= 1
	}
	c.der = must(asn1.Marshal(struct {
		Inner     asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: inner}, c.AlgorithmIdentifier, bitString(signature)}))
	return c.der
}

func (c *certificate) distinguishedName() asn1.RawValue { return distinguished(c.subject, c.printable) }

func distinguished(commonName string, printable bool) asn1.RawValue {
	kind := asn1.TagUTF8String
	if printable {
		kind = asn1.TagPrintableString
	}
	value := pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: asn1.RawValue{Tag: kind, Bytes: []byte(commonName)}}
	return asn1.RawValue{FullBytes: must(asn1.Marshal(pkix.RDNSequence{{value}}))}
}

// validity is written as RFC 5280 wants it, unless dates say otherwise.
func (c *certificate) validity() []asn1.RawValue {
	if c.dates != nil {
		return c.dates
	}
	return []asn1.RawValue{dateOf(c.from), dateOf(c.to)}
}

func dateOf(at time.Time) asn1.RawValue {
	if at.Year() >= 2050 {
		return asn1.RawValue{Tag: asn1.TagGeneralizedTime, Bytes: []byte(at.UTC().Format("20060102150405Z"))}
	}
	return asn1.RawValue{Tag: asn1.TagUTCTime, Bytes: []byte(at.UTC().Format("060102150405Z"))}
}

func standard(id int, isCritical bool, value []byte) pkix.Extension {
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, id}, Critical: isCritical, Value: value}
}

func (c *certificate) extensions(by *certificate) []pkix.Extension {
	var all []pkix.Extension
	add := func(id int, isCritical bool, value []byte) { all = append(all, standard(id, isCritical, value)) }
	if c.keyID != nil {
		add(14, false, must(asn1.Marshal(c.keyID)))
	}
	if c.keyUsage != nil {
		add(15, true, must(asn1.Marshal(usageBits(*c.keyUsage))))
	}
	if len(c.names) > 0 {
		add(17, c.isCritical, sequence(0x30, generalNames(c.names)))
	}
	if c.basic != nil {
		add(19, c.basic.isCritical, c.basic.value())
	}
	if c.limits != nil {
		add(30, c.limits.isCritical, sequence(0x30, append(subtrees(0xa0, c.limits.permitted), subtrees(0xa1, c.limits.excluded)...)))
	}
	issuerKey := c.issuerKeyID
	if issuerKey == nil && c.namesIssuerKey {
		issuerKey = by.keyID
	}
	if issuerKey != nil {
		add(35, false, sequence(0x30, sequence(0x80, issuerKey)))
	}
	if c.purposes != nil {
		add(37, false, must(asn1.Marshal(c.purposes)))
	}
	return append(all, c.more...)
}

func (b *basic) value() []byte {
	var inside []byte
	if b.isCA {
		inside = must(asn1.Marshal(true))
	}
	if b.length != nil {
		inside = append(inside, must(asn1.Marshal(*b.length))...)
	}
	return sequence(0x30, inside)
}

// usageBits drops the zeros at the end, as DER wants a list of named bits.
func usageBits(usage int) asn1.BitString {
	bits := asn1.BitString{Bytes: make([]byte, 2)}
	for bit := range 9 {
		if usage&(1<<bit) != 0 {
			bits.Bytes[bit/8] |= 0x80 >> (bit % 8)
			bits.BitLength = bit + 1
		}
	}
	bits.Bytes = bits.Bytes[:(bits.BitLength+7)/8]
	return bits
}

func generalNames(names []name) []byte {
	var all []byte
	for _, name := range names {
		all = append(all, sequence(name.tag, []byte(name.value))...)
	}
	return all
}

func subtrees(tag byte, names []name) []byte {
	if len(names) == 0 {
		return nil
	}
	var all []byte
	for _, name := range names {
		all = append(all, sequence(0x30, sequence(name.tag, []byte(name.value)))...)
	}
	return sequence(tag, all)
}

// sequence is an element of DER with this tag.
func sequence(tag byte, body []byte) []byte {
	whole := must(asn1.Marshal(asn1.RawValue{Tag: asn1.TagOctetString, Bytes: body}))
	whole[0] = tag
	return whole
}

func pointer[T any](value T) *T { return &value }

// must is for what fails only where the generator itself is wrong.
func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
