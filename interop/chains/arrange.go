package chains

import (
	"fmt"
	"slices"
	"time"
)

func sending(name string, apply func(d *draw)) change {
	return change{name, nil, func(d *draw, _ *certificate) { apply(d) }}
}

// ofSending: which certificates the peer sends.
var ofSending = []change{
	sending("root sent along", func(d *draw) { d.sent = append(d.sent, d.root()) }),
	sending("root sent first of its authorities", func(d *draw) { d.sent = slices.Insert(d.sent, 1, d.root()) }),
	sending("an intermediate missing", dropOne),
	sending("an intermediate missing", dropOne),
	sending("no intermediate sent", func(d *draw) { d.sent = d.sent[:1] }),
	sending("everything twice", func(d *draw) { d.sent = slices.Concat(d.sent, d.sent) }),
	sending("leaf not first", func(d *draw) {
		if len(d.sent) == 1 {
			d.sent = append(d.sent, d.root())
		}
		d.sent[0], d.sent[len(d.sent)-1] = d.sent[len(d.sent)-1], d.sent[0]
	}),
	sending("nothing sent", func(d *draw) { d.isSilent = true }),
	sending("unrelated certificates beside", func(d *draw) { d.sendBeside(1+d.IntN(3), func(*certificate) {}) }),
	sending("unrelated authorities of the same name", func(d *draw) {
		d.sendBeside(1+d.IntN(2), func(c *certificate) { c.subject, c.printable = d.issuer().name() })
	}),
	sending("beside: a curve unknown to Go", func(d *draw) { d.sendBeside(1, func(c *certificate) { c.by, c.key = d.root(), unknownCurve }) }),
	sending("beside: malformed extension", func(d *draw) { d.sendBeside(1, func(c *certificate) { c.more = append(c.more, malformed(d)) }) }),
	sending("beside: names of any kind", func(d *draw) { d.sendBeside(1, func(c *certificate) { c.names = intermediateNames(d) }) }),
	sending("beside: version 1 with extensions", func(d *draw) { d.sendBeside(1, func(c *certificate) { c.version = 0 }) }),
	sending("beside: negative serial number", func(d *draw) { d.sendBeside(1, func(c *certificate) { c.serial = -5 }) }),
	sending("beside: dates that RFC 5280 forbids", func(d *draw) { d.sendBeside(1, func(c *certificate) { c.dates = oddDates(d) }) }),
	sending("more than ten certificates", func(d *draw) { d.sendBeside(11-len(d.sent)+d.IntN(3), func(*certificate) {}) }),
	sending("ten certificates", func(d *draw) { d.sendBeside(10-len(d.sent), func(*certificate) {}) }),
	sending("more than 16 KB", func(d *draw) {
		d.sendBeside(1, func(c *certificate) { c.names = []name{{tagDNS, string(slices.Repeat([]byte("a"), 16_500))}} })
	}),
	sending("issued by a workload", func(d *draw) {
		workload := *d.leaf
		workload.level, workload.subject, workload.key = besideLevel, "another workload", d.keyOf("P-256")
		d.leaf = &certificate{}
		*d.leaf = workload
		d.leaf.level, d.leaf.subject, d.leaf.key, d.leaf.by = leafLevel, "a workload", d.keyOf("P-256"), &workload
		d.leaf.algorithm = algorithm{}
		d.sent = slices.Insert(d.sent, 1, &workload)
		d.sent[0] = d.leaf
	}),
	sending("a cross-signed issuer beside", func(d *draw) { d.crossSign(false) }),
	sending("a cross-signed issuer that has expired beside", func(d *draw) { d.crossSign(true) }),
	sending("authorities that vouch for each other", func(d *draw) {
		a, b := d.authority(besideLevel), d.authority(besideLevel)
		a.subject, b.subject = "one of a circle", "other of a circle"
		a.by, b.by = b, a
		again := *d.issuer()
		again.level, again.by, again.algorithm, again.issuerKeyID, again.der = besideLevel, a, algorithm{}, nil, nil
		d.insert(a, b, &again)
	}),
	sending("many authorities of one name that vouch for each other", func(d *draw) {
		key, name := d.issuer().key, d.issuer()
		for range 10 - len(d.sent) {
			c := d.authority(besideLevel)
			c.subject, c.printable = name.name()
			c.key, c.keyID, c.namesIssuerKey = key, nil, false
			c.by = c
			d.insert(c)
		}
	}),
}

// ofBelieving: what the bundles hold.
var ofBelieving = []change{
	sending("no bundle of the trust domain", func(d *draw) { delete(d.bundles, d.domain); d.bundles["abroad.example"] = []*certificate{d.root()} }),
	sending("bundle of another trust domain beside", func(d *draw) { d.bundles["abroad.example"] = []*certificate{d.authority(besideLevel)} }),
	sending("another root of the same name believed", func(d *draw) { d.bundles[d.domain] = []*certificate{d.impostor()} }),
	sending("another root of the same name and key identifier believed", func(d *draw) {
		other := d.impostor()
		other.keyID = d.root().keyID
		d.bundles[d.domain] = []*certificate{other}
	}),
	sending("roots of one name, the right one among them", func(d *draw) {
		roots := []*certificate{d.impostor(), d.root(), d.impostor()}
		d.Shuffle(3, func(i, j int) { roots[i], roots[j] = roots[j], roots[i] })
		d.bundles[d.domain] = roots
	}),
	sending("20 roots of one name without identifiers of their keys", func(d *draw) {
		d.bundles[d.domain] = nil
		for range 19 {
			other := d.impostor()
			other.keyID = nil
			d.bundles[d.domain] = append(d.bundles[d.domain], other)
		}
		d.bundles[d.domain] = append(d.bundles[d.domain], d.root())
	}),
	sending("the root of before beside the one of now", func(d *draw) {
		old := *d.root()
		old.to, old.algorithm, old.der = d.whole().Add(-time.Hour), algorithm{}, nil
		d.bundles[d.domain] = []*certificate{&old, d.root()}
	}),
	sending("the leaf is believed", func(d *draw) { d.bundles[d.domain] = []*certificate{d.leaf} }),
	sending("the leaf's issuer is believed", func(d *draw) { d.bundles[d.domain] = []*certificate{d.issuer()} }),
	sending("the leaf's issuer is believed as well", func(d *draw) { d.bundles[d.domain] = append(d.bundles[d.domain], d.issuer()) }),
	sending("a bridge is believed in place of the root", func(d *draw) {
		bridge := d.authority(besideLevel)
		again := *d.root()
		again.level, again.by, again.algorithm, again.issuerKeyID, again.der = besideLevel, bridge, algorithm{}, nil, nil
		d.insert(&again)
		d.bundles[d.domain] = []*certificate{bridge}
	}),
}

func dropOne(d *draw) {
	if len(d.sent) > 1 {
		at := 1 + d.IntN(len(d.sent)-1)
		d.sent = slices.Delete(d.sent, at, at+1)
	} else {
		d.bundles[d.domain] = []*certificate{d.impostor()}
	}
}

// insert puts certificates anywhere behind the first.
func (d *draw) insert(certificates ...*certificate) {
	for _, c := range certificates {
		d.sent = slices.Insert(d.sent, 1+d.IntN(len(d.sent)), c)
	}
}

func (d *draw) sendBeside(count int, change func(c *certificate)) {
	for i := range max(count, 0) {
		c := d.authority(besideLevel)
		c.subject = fmt.Sprintf("beside %d", i)
		change(c)
		d.insert(c)
	}
}

// crossSign sends the leaf's issuer once more, signed by an authority that leads nowhere.
func (d *draw) crossSign(isExpired bool) {
	again := *d.issuer()
	again.level, again.by, again.algorithm, again.issuerKeyID, again.der = besideLevel, d.authority(besideLevel), algorithm{}, nil, nil
	if isExpired {
		again.to = d.whole().Add(-time.Hour)
	}
	d.insert(&again)
}

func (d *draw) impostor() *certificate {
	c := d.authority(besideLevel)
	c.subject, c.printable = d.root().name()
	return c
}

func (c *certificate) name() (string, bool) { return c.subject, c.printable }
