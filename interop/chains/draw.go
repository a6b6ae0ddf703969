package chains

import (
	"encoding/asn1"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// draw is one chain: sound at first, then changed.
type draw struct {
	*rand.Rand
	generator *generator
	now       time.Time
	domain    string
	leaf      *certificate
	// line are the authorities above the leaf, the root last.
	line []*certificate
	// sent is what the peer sends, the leaf first in an honest chain.
	sent []*certificate
	// isSilent sends none of them.
	isSilent bool
	bundles  map[string][]*certificate
	kinds    map[string]bool
	// spire gives all authorities one name, as SPIRE's have.
	spire bool
	taken map[*key]bool
	count int
}

// generator draws chains by a seed. Only the keys and signatures differ from one run to the next.
type generator struct {
	*rand.Rand
	keys map[string][]*key
}

func newGenerator(seed uint64) *generator {
	return &generator{rand.New(rand.NewPCG(seed, 0)), makeKeys()}
}

// epoch is the day on which all chains are judged.
var epoch = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

const (
	leafLevel         = "leaf"
	intermediateLevel = "intermediate"
	rootLevel         = "root"
	besideLevel       = "beside"
)

// next draws a chain. A third of them stay sound; the others are changed in one or two ways, not all of which are faults.
func (g *generator) next() *draw {
	d := &draw{Rand: g.Rand, generator: g, kinds: map[string]bool{}, taken: map[*key]bool{}, spire: g.IntN(4) == 0}
	d.now = epoch.Add(time.Duration(d.IntN(86_400)) * time.Second)
	if d.oneIn(2) {
		d.now = d.now.Add(time.Duration(1+d.IntN(999)) * time.Millisecond)
	}
	d.domain = weighted(d, []string{"home.example", "a.b-c_d.example", "localhost", "10.0.0.1"}, 80, 10, 7, 3)
	d.build(weighted(d, []int{0, 1, 2, 3, 4}, 25, 30, 25, 12, 8))
	chosen := make([]change, weighted(d, []int{0, 1, 2}, 34, 46, 20))
	for i := range chosen {
		chosen[i] = pick(d, changes)
	}
	for _, change := range chosen {
		if len(change.levels) > 0 {
			d.changeOne(change)
		}
	}
	d.vary()
	d.arrange()
	for _, change := range chosen {
		if len(change.levels) == 0 {
			change.apply(d, d.leaf)
			d.mark(change.name)
		}
	}
	d.mark(fmt.Sprintf("%d changes", len(chosen)))
	return d
}

// build makes a line of sound authorities and the leaf below.
func (d *draw) build(intermediates int) {
	d.mark(fmt.Sprintf("%d intermediates", intermediates))
	above := d.authority(rootLevel)
	d.line = []*certificate{above}
	for range intermediates {
		next := d.authority(intermediateLevel)
		next.by, above = above, next
		d.line = slices.Insert(d.line, 0, next)
	}
	d.leaf = d.issue(leafLevel, weighted(d, leafKeys, 76, 8, 5, 8, 3))
	d.leaf.by = above
	d.leaf.subject = "a workload"
	d.leaf.basic = &basic{isCritical: true}
	d.leaf.keyUsage = pointer(digitalSignature)
	path := pick(d, []string{"/nsmgr", "/ns/nsm-system/pod/nsc-7d9f", "/A.b_c-0", "/a/b/c/d"})
	d.leaf.names = []name{{tagURI, "spiffe://" + d.domain + path}}
	d.leaf.from, d.leaf.to = d.whole().Add(-time.Hour), d.whole().Add(time.Hour)
}

var (
	leafKeys      = []string{"P-256", "P-384", "P-521", "Ed25519", "RSA 2048"}
	authorityKeys = []string{"P-256", "P-384", "P-521", "Ed25519", "RSA 2048"}
)

// authority is a sound one, with what authorities may have or not have.
func (d *draw) authority(level string) *certificate {
	c := d.issue(level, weighted(d, authorityKeys, 79, 5, 3, 10, 3))
	d.count++
	c.subject = fmt.Sprintf("authority %d", d.count)
	if d.spire {
		c.subject = "SPIRE"
	}
	c.basic = &basic{isCA: true, isCritical: true}
	c.keyUsage = pointer(keyCertSign | crlSign)
	if !d.oneIn(5) {
		c.keyID = d.bytes(20)
	}
	if d.oneIn(2) {
		c.names = []name{{tagURI, "spiffe://" + d.domain}} // X509-SVID, 3.2
	}
	return c
}

// issue is what all certificates have.
func (d *draw) issue(level, keyKind string) *certificate {
	c := &certificate{
		level: level, version: 2, serial: d.Int64N(1 << 60), key: d.keyOf(keyKind),
		from: d.whole().AddDate(0, -1, 0), to: d.whole().AddDate(1, 0, 0),
		namesIssuerKey: !d.oneIn(5), purposes: weighted(d, purposes, 60, 20, 5, 5, 5, 5),
	}
	d.mark("key " + keyKind + ": " + level)
	return c
}

var (
	serverAuth = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}
	clientAuth = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
	purposes   = [][]asn1.ObjectIdentifier{
		nil, {serverAuth, clientAuth}, {serverAuth}, {clientAuth}, {{2, 5, 29, 37, 0}}, {{1, 2, 3, 4, 5}},
	}
	purposeNames = []string{"none", "server and client", "server", "client", "any", "another"}
)

// vary counts what was drawn, and takes other algorithms for signatures.
func (d *draw) vary() {
	for _, c := range append([]*certificate{d.leaf}, d.line...) {
		at := slices.IndexFunc(purposes, func(one []asn1.ObjectIdentifier) bool {
			return slices.EqualFunc(one, c.purposes, asn1.ObjectIdentifier.Equal)
		})
		d.mark("extended key usage, " + purposeNames[at] + ": " + c.level)
		if c.algorithm.options == nil {
			signer := c.signer
			if signer == nil {
				signer = d.above(c).key
			}
			c.algorithm = pick(d, algorithmsOf(signer))
		}
		if c.by != nil && (!c.namesIssuerKey || c.by.keyID == nil) {
			d.mark("no identifier of the issuer's key, or none in the issuer: " + c.level)
		}
	}
}

// arrange says what is sent and what is believed.
func (d *draw) arrange() {
	d.sent = append([]*certificate{d.leaf}, d.line[:len(d.line)-1]...)
	d.bundles = map[string][]*certificate{d.domain: {d.root()}}
	behind := d.sent[1:]
	switch d.IntN(4) {
	case 0:
		d.Shuffle(len(behind), func(i, j int) { behind[i], behind[j] = behind[j], behind[i] })
		d.mark("intermediates in any order")
	case 1:
		slices.Reverse(behind)
		d.mark("intermediates from the root down")
	default:
		d.mark("intermediates from the leaf up")
	}
}

func (d *draw) changeOne(change change) {
	all := append([]*certificate{d.leaf}, d.line...)
	fit := slices.DeleteFunc(all, func(c *certificate) bool { return !slices.Contains(change.levels, c.level) })
	if len(fit) == 0 {
		return // an intermediate is wanted where there is none
	}
	c := pick(d, fit)
	change.apply(d, c)
	d.mark(change.name + ": " + c.level)
}

func (d *draw) root() *certificate { return d.line[len(d.line)-1] }

// issuer is that of the leaf.
func (d *draw) issuer() *certificate { return d.above(d.leaf) }

func (d *draw) above(c *certificate) *certificate {
	if c.by == nil {
		return c
	}
	return c.by
}

// below is how many authorities stand between this one and the leaf.
func (d *draw) below(c *certificate) int { return slices.Index(d.line, c) }

func (d *draw) whole() time.Time { return d.now.Truncate(time.Second) }

func (d *draw) mark(kind string) { d.kinds[kind] = true }

func (d *draw) oneIn(n int) bool { return d.IntN(n) == 0 }

func (d *draw) bytes(n int) []byte {
	bytes := make([]byte, n)
	for i := range bytes {
		bytes[i] = byte(d.IntN(256))
	}
	return bytes
}

// keyOf is one that no other certificate of this chain has, unless all of the kind are taken.
func (d *draw) keyOf(kind string) *key {
	keys := d.generator.keys[kind]
	from := d.IntN(len(keys))
	for i := range keys {
		if key := keys[(from+i)%len(keys)]; !d.taken[key] {
			d.taken[key] = true
			return key
		}
	}
	return keys[from]
}

func pick[T any](d *draw, from []T) T { return from[d.IntN(len(from))] }

// weighted picks the i-th with the i-th weight.
func weighted[T any](d *draw, from []T, weights ...int) T {
	sum := 0
	for _, weight := range weights {
		sum += weight
	}
	at := d.IntN(sum)
	for i, weight := range weights {
		if at -= weight; at < 0 {
			return from[i]
		}
	}
	panic("the weights do not add up")
}
