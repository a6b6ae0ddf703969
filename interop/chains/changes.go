package chains

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"strings"
	"time"
)

// change spoils a chain, or does only what looks like it. It is counted by its name and the level that it was applied to.
type change struct {
	name string
	// levels of the certificate that it changes; none: it changes what is sent or believed, after all is issued.
	levels []string
	apply  func(d *draw, c *certificate)
}

var (
	all         = []string{leafLevel, intermediateLevel, rootLevel}
	authorities = []string{intermediateLevel, rootLevel}
	leaves      = []string{leafLevel}
	issued      = []string{leafLevel, intermediateLevel}
)

// changes are drawn from evenly; what must be seen more often is there twice.
var changes = slices.Concat(ofAuthorities, ofLeaves, ofNames, ofDates, ofSignatures, ofExtensions, ofSending, ofBelieving)

func withUsage(usage int) func(*draw, *certificate) {
	return func(_ *draw, c *certificate) { c.keyUsage = &usage }
}

func withLength(length func(below int64) int64) func(*draw, *certificate) {
	return func(d *draw, c *certificate) { basicOf(c).length = pointer(length(int64(d.below(c)))) }
}

// basicOf is there again where another change took it away.
func basicOf(c *certificate) *basic {
	if c.basic == nil {
		c.basic = &basic{isCA: c.level != leafLevel, isCritical: true}
	}
	return c.basic
}

// ofAuthorities: what makes one, and how much may stand below it.
var ofAuthorities = []change{
	{"no CA flag", authorities, func(_ *draw, c *certificate) { c.basic = &basic{isCritical: true} }},
	{"no basicConstraints", authorities, func(d *draw, c *certificate) { c.basic = nil }},
	{"basicConstraints not critical", authorities, func(_ *draw, c *certificate) { c.basic = &basic{isCA: true} }},
	{"no keyUsage", authorities, func(_ *draw, c *certificate) { c.keyUsage = nil }},
	{"keyUsage lacks keyCertSign", authorities, withUsage(digitalSignature | crlSign)},
	{"keyUsage with other bits", authorities, withUsage(1<<9 - 1)},
	{"keyUsage without a bit", authorities, withUsage(0)},
	{"path length 0", authorities, withLength(func(int64) int64 { return 0 })},
	{"path length just met", authorities, withLength(func(below int64) int64 { return below })},
	{"path length one more than needed", authorities, withLength(func(below int64) int64 { return below + 1 })},
	{"path length one too short", authorities, withLength(func(below int64) int64 { return max(below-1, 0) })},
	{"path length of -1", authorities, withLength(func(int64) int64 { return -1 })},
	{"path length beyond 31 bits", authorities, withLength(func(int64) int64 { return 1 << 40 })},
	{"version 1", all, func(_ *draw, c *certificate) { plain(c, 0) }},
	{"version 2", authorities, func(_ *draw, c *certificate) { plain(c, 1) }},
	{"version 1 with extensions", all, func(_ *draw, c *certificate) { c.version = 0 }},
	{"version 4", all, func(_ *draw, c *certificate) { c.version = 3 }},
	{"negative serial number", all, func(_ *draw, c *certificate) { c.serial = -c.serial - 1 }},
}

// plain drops all extensions, which only version 3 may have.
func plain(c *certificate, version int) {
	c.version, c.basic, c.keyUsage, c.names, c.purposes, c.keyID, c.limits, c.more = version, nil, nil, nil, nil, nil, nil, nil
	c.namesIssuerKey = false
}

// ofLeaves: SPIFFE IDs, and what distinguishes a workload from an authority.
var ofLeaves = []change{
	{"CA flag", leaves, func(_ *draw, c *certificate) { basicOf(c).isCA = true }},
	{"no basicConstraints", leaves, func(_ *draw, c *certificate) { c.basic = nil }},
	{"path length without CA flag", leaves, func(_ *draw, c *certificate) { basicOf(c).length = pointer(int64(0)) }},
	{"no keyUsage", leaves, func(_ *draw, c *certificate) { c.keyUsage = nil }},
	{"keyUsage lacks digitalSignature", leaves, withUsage(1 << 4)},
	{"keyUsage with keyCertSign", leaves, withUsage(digitalSignature | keyCertSign)},
	{"keyUsage with cRLSign", leaves, withUsage(digitalSignature | crlSign)},
	{"no names", leaves, func(_ *draw, c *certificate) { c.names = nil }},
	{"a DNS name alone", leaves, func(d *draw, c *certificate) { c.names = []name{{tagDNS, "pod." + d.domain}} }},
	{"two URIs", leaves, func(d *draw, c *certificate) {
		c.names = append(c.names, name{tagURI, "spiffe://" + d.domain + "/other"})
	}},
	{"the same URI twice", leaves, func(_ *draw, c *certificate) { c.names = append(c.names, c.names...) }},
	{"other names beside", leaves, func(d *draw, c *certificate) { besideNames(d, c) }},
	{"names critical", leaves, func(_ *draw, c *certificate) { c.isCritical = true }},
	{"ID without a path", leaves, withID(func(d *draw) string { return "spiffe://" + d.domain })},
	{"ID of another trust domain", leaves, withID(func(*draw) string { return "spiffe://abroad.example/nsmgr" })},
	{"ID of a trust domain below", leaves, withID(func(d *draw) string { return "spiffe://below." + d.domain + "/nsmgr" })},
	{"scheme in upper case", leaves, withID(func(d *draw) string { return "SPIFFE://" + d.domain + "/nsmgr" })},
	{"trust domain in upper case", leaves, withID(func(d *draw) string { return "spiffe://" + strings.ToUpper(d.domain) + "/nsmgr" })},
	{"ID with an empty fragment", leaves, withID(func(d *draw) string { return "spiffe://" + d.domain + "/nsmgr#" })},
	{"ID of 2,100 characters", leaves, withID(func(d *draw) string { return "spiffe://" + d.domain + strings.Repeat("/abcdefghi", 210) })},
	{"bad ID", leaves, withID(badID)},
	{"bad ID", leaves, withID(badID)},
}

func withID(id func(d *draw) string) func(*draw, *certificate) {
	return func(d *draw, c *certificate) { c.names = []name{{tagURI, id(d)}} }
}

func badID(d *draw) string {
	own := "spiffe://" + d.domain
	return pick(d, []string{
		"", "spiffe://", "spiffe:///nsmgr", "spiffe:" + d.domain, "https://" + d.domain + "/nsmgr", d.domain + "/nsmgr", "urn:uuid:1",
		own + "/", own + "//nsmgr", own + "/nsmgr/", own + "/./nsmgr", own + "/../nsmgr", own + "/ns mgr", own + "/ns%20mgr",
		own + "/nsmgr?a=b", own + "/nsmgr?", own + "/nsmgr#a", own + ":8443/nsmgr", own + ":/nsmgr", "spiffe://me@" + d.domain + "/nsmgr",
		"spiffe://@" + d.domain + "/nsmgr", own + "./nsmgr", own + "..a/nsmgr", own + "/nsmgr\x00", own + "/n\xc3\xa4", " " + own + "/nsmgr",
		"spiffe://[::1]/nsmgr", "spiffe://[::1/nsmgr", own + "/%", own + "/nsmgr,URI:" + own,
	})
}

// besideNames adds names of other kinds, as SPIRE does for DNS.
func besideNames(d *draw, c *certificate) {
	c.names = append(c.names, pick(d, [][]name{
		{{tagDNS, "pod." + d.domain}},
		{{tagDNS, "*." + d.domain}, {tagDNS, "pod." + d.domain}},
		{{tagEmail, "me@" + d.domain}},
		{{tagIP, "\x0a\x01\x02\x03"}},
		{{tagIP, "\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"}},
		{{0xa0, "\x06\x03\x2a\x03\x04\xa0\x04\x0c\x02hi"}}, // otherName
	})...)
}

// ofDates: around the second in which the chain is judged.
var ofDates = []change{
	{"expired", all, func(d *draw, c *certificate) { c.to = d.whole().Add(-time.Minute) }},
	{"expired a second ago", all, func(d *draw, c *certificate) { c.to = d.whole().Add(-time.Second) }},
	{"in its last second", all, func(d *draw, c *certificate) { c.to = d.whole() }},
	{"valid for a second more", all, func(d *draw, c *certificate) { c.to = d.whole().Add(time.Second) }},
	{"not yet valid", all, func(d *draw, c *certificate) { c.from = d.whole().Add(time.Minute) }},
	{"valid in a second", all, func(d *draw, c *certificate) { c.from = d.whole().Add(time.Second) }},
	{"in its first second", all, func(d *draw, c *certificate) { c.from = d.whole() }},
	{"valid until 9999", all, func(_ *draw, c *certificate) { c.to = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }},
	{"valid since 1950", all, func(_ *draw, c *certificate) { c.from = time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC) }},
	{"ends before it begins", all, func(d *draw, c *certificate) { c.from, c.to = c.to, c.from }},
	{"dates that RFC 5280 forbids", all, func(d *draw, c *certificate) { c.dates = oddDates(d) }},
}

// oddDates are in the past and in the future; only their form is odd.
func oddDates(d *draw) []asn1.RawValue {
	date := func(tag int, text string) asn1.RawValue { return asn1.RawValue{Tag: tag, Bytes: []byte(text)} }
	short, long := asn1.TagUTCTime, asn1.TagGeneralizedTime
	return pick(d, [][]asn1.RawValue{
		{date(short, "2501010000Z"), date(short, "2801010000Z")},
		{date(short, "250101000000+0100"), date(short, "280101000000-0100")},
		{date(long, "20250101000000.5Z"), date(long, "20280101000000.5Z")},
		{date(short, "250101000000"), date(short, "280101000000")},
		{date(short, "250101000000Z"), date(short, "281301000000Z")},
		{date(long, "20250101000000Z"), date(long, "20280101000000+0100")},
	})
}

// ofSignatures: who signed, and how an issuer is found.
var ofSignatures = []change{
	{"signature broken", all, func(_ *draw, c *certificate) { c.isSpoilt = true }},
	{"signed by another key", issued, func(d *draw, c *certificate) { c.signer = d.keyOf("P-256") }},
	{"signed with SHA-1", all, func(d *draw, c *certificate) { c.algorithm = sha1Of(d.above(c).key) }},
	{"signed with PSS", all, func(d *draw, c *certificate) { d.rsaAbove(c); c.algorithm = pssSha256 }},
	{"signed with PSS and SHA-1", all, func(d *draw, c *certificate) { d.rsaAbove(c); c.algorithm = pssSha1 }},
	{"names another issuer", issued, func(_ *draw, c *certificate) { c.issuer = "authority 0" }},
	{"names its issuer in another type of string", issued, func(d *draw, c *certificate) { c.issuer = d.above(c).subject; c.printable = !c.printable }},
	{"name in another type of string", authorities, func(_ *draw, c *certificate) { c.printable = true }},
	{"names another key of its issuer", issued, func(d *draw, c *certificate) { c.issuerKeyID = d.bytes(20) }},
	{"names another key of its issuer", issued, func(d *draw, c *certificate) { c.issuerKeyID = append(d.bytes(2), d.above(c).keyID...) }},
	{"names no key of its issuer", issued, func(_ *draw, c *certificate) { c.namesIssuerKey = false }},
	{"no identifier of its key", authorities, func(_ *draw, c *certificate) { c.keyID = nil }},
	{"empty identifier of its key", authorities, func(_ *draw, c *certificate) { c.keyID = []byte{} }},
	{"key on P-224", authorities, func(d *draw, c *certificate) { c.key = d.keyOf("P-224") }},
	{"RSA key of 1024 bits", authorities, func(d *draw, c *certificate) { c.key = d.keyOf("RSA 1024") }},
	{"RSA key", leaves, func(d *draw, c *certificate) { c.key = d.keyOf("RSA 2048") }},
	{"key on P-224", leaves, func(d *draw, c *certificate) { c.key = d.keyOf("P-224") }},
	{"signs itself", leaves, func(_ *draw, c *certificate) { c.by = nil }},
	{"twin of its issuer: name, key, names", leaves, func(d *draw, c *certificate) {
		issuer := d.above(c)
		c.subject, c.printable, c.key, issuer.names = issuer.subject, issuer.printable, issuer.key, c.names
	}},
}

func sha1Of(by *key) algorithm {
	switch by.kind {
	case "Ed25519":
		return ofEd25519
	case "RSA 2048", "RSA 1024":
		return rsaSha1
	default:
		return ecdsaSha1
	}
}

func (d *draw) rsaAbove(c *certificate) {
	if issuer := d.above(c); issuer.key.kind != "RSA 2048" {
		issuer.key = d.keyOf("RSA 2048")
	}
}

func withExtension(make func(d *draw) pkix.Extension) func(*draw, *certificate) {
	return func(d *draw, c *certificate) { c.more = append(c.more, make(d)) }
}

func extension(isCritical bool, id asn1.ObjectIdentifier, value ...byte) func(*draw) pkix.Extension {
	return func(*draw) pkix.Extension { return pkix.Extension{Id: id, Critical: isCritical, Value: value} }
}

// ofExtensions: known, unknown, malformed.
var ofExtensions = []change{
	{"critical unknown extension", all, withExtension(extension(true, asn1.ObjectIdentifier{1, 2, 3, 4}, 5, 0))},
	{"unknown extension", all, withExtension(extension(false, asn1.ObjectIdentifier{1, 2, 3, 4}, 5, 0))},
	{"extension twice", all, func(_ *draw, c *certificate) {
		one := extension(false, asn1.ObjectIdentifier{1, 2, 3, 4}, 5, 0)(nil)
		c.more = append(c.more, one, one)
	}},
	{"certificatePolicies", all, withExtension(policies)},
	{"policyMappings", all, withExtension(onPolicies(33, []byte{0x30, 0x0a, 0x30, 0x08, 6, 2, 0x2a, 3, 6, 2, 0x2a, 4}))},
	{"policyMappings of any policy", all, withExtension(onPolicies(33, []byte{0x30, 0x0c, 0x30, 0x0a, 6, 4, 0x55, 0x1d, 0x20, 0, 6, 2, 0x2a, 4}))},
	{"policyConstraints", all, withExtension(onPolicies(36, []byte{0x30, 3, 0x80, 1, 0}))},
	{"policyConstraints for later", all, withExtension(onPolicies(36, []byte{0x30, 3, 0x80, 1, 9}))},
	{"inhibitAnyPolicy", all, withExtension(onPolicies(54, []byte{2, 1, 0}))},
	{"critical cRLDistributionPoints", all, withExtension(func(*draw) pkix.Extension { return standard(31, true, []byte{0x30, 0}) })},
	{"malformed extension", all, withExtension(malformed)},
}

func policies(d *draw) pkix.Extension {
	return standard(32, d.oneIn(2), pick(d, [][]byte{{0x30, 6, 0x30, 4, 6, 2, 0x2a, 3}, {0x30, 8, 0x30, 6, 6, 4, 0x55, 0x1d, 0x20, 0}}))
}

func onPolicies(id int, value []byte) func(*draw) pkix.Extension {
	return func(d *draw) pkix.Extension { return standard(id, d.oneIn(3), value) }
}

func malformed(d *draw) pkix.Extension {
	return pick(d, []pkix.Extension{
		standard(31, false, []byte{0x30, 2, 5, 0}),
		standard(32, false, []byte{0x30, 0x0c, 0x30, 4, 6, 2, 0x2a, 3, 0x30, 4, 6, 2, 0x2a, 3}), // one policy twice
		standard(32, false, []byte{0x30, 2, 5, 0}),
		standard(54, false, []byte{5, 0}),
		{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 1}, Value: []byte{5, 0}}, // authorityInfoAccess
		{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 1}, Critical: true, Value: []byte{0x30, 0}},
	})
}
