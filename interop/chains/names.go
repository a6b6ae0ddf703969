package chains

import (
	"fmt"
	"slices"
	"strings"
)

// ofNames: nameConstraints, and the names that they are about.
var ofNames = []change{
	{"URI permitted", authorities, withLimits(uriLimits, true)},
	{"URI permitted", authorities, withLimits(uriLimits, true)},
	{"URI excluded", authorities, withLimits(uriLimits, false)},
	{"URI excluded", authorities, withLimits(uriLimits, false)},
	{"DNS permitted", authorities, withLimits(dnsLimits, true)},
	{"DNS excluded", authorities, withLimits(dnsLimits, false)},
	{"mail permitted", authorities, withLimits(mailLimits, true)},
	{"mail excluded", authorities, withLimits(mailLimits, false)},
	{"address permitted", authorities, withLimits(addressLimits, true)},
	{"address excluded", authorities, withLimits(addressLimits, false)},
	{"URI constraint with a port", authorities, withLimits(func(d *draw) []name { return []name{{tagURI, d.domain + ":8443"}} }, false)},
	{"URI constraint that is an address", authorities, withLimits(func(*draw) []name { return []name{{tagURI, "10.0.0.1"}} }, false)},
	{"URI constraint with a long label", authorities, withLimits(func(*draw) []name { return []name{{tagURI, strings.Repeat("a", 64)}} }, false)},
	{"many names below many constraints", authorities, manyNames},
	{"mailbox with quotes", authorities, withLimits(func(d *draw) []name { return []name{{tagEmail, `"m e"@elsewhere.example`}} }, false)},
	{"malformed constraint", authorities, withLimits(badLimits, false)},
	{"constraint on an unknown kind of name", authorities, withLimits(func(*draw) []name { return []name{{0xa4, "\x30\x00"}} }, true)},
	{"empty constraints", authorities, func(_ *draw, c *certificate) { c.limits = &limits{isCritical: true} }},
	{"names of an intermediate below constraints", []string{intermediateLevel}, constrainedIntermediate},
	{"names of an intermediate below constraints", []string{intermediateLevel}, constrainedIntermediate},
	{"relative URI", authorities, func(d *draw, c *certificate) { c.names = []name{{tagURI, pick(d, []string{"/ca", "ca"})}} }},
	{"names of an intermediate", []string{intermediateLevel}, func(d *draw, c *certificate) { c.names = intermediateNames(d) }},
}

// withLimits adds one to three constraints; the leaf has names that they are about, most of the time.
func withLimits(of func(d *draw) []name, isPermitted bool) func(*draw, *certificate) {
	return func(d *draw, c *certificate) {
		chosen := of(d)
		if c.limits == nil {
			c.limits = &limits{isCritical: !d.oneIn(5)}
		}
		if isPermitted {
			c.limits.permitted = append(c.limits.permitted, chosen...)
		} else {
			c.limits.excluded = append(c.limits.excluded, chosen...)
		}
		if tag := chosen[0].tag; !d.oneIn(4) {
			d.leaf.names = append(d.leaf.names, namesOf(d, tag)...)
		}
	}
}

// manyNames are 60 that 60 constraints have to be held against.
func manyNames(d *draw, c *certificate) {
	c.limits = &limits{isCritical: true}
	for i := range 60 {
		c.limits.excluded = append(c.limits.excluded, name{tagDNS, fmt.Sprintf("excluded-%d.example", i)})
		d.leaf.names = append(d.leaf.names, name{tagDNS, fmt.Sprintf("pod-%d.%s", i, d.domain)})
	}
}

// namesOf are names of the leaf that constraints of the kind are about; its URI is there.
func namesOf(d *draw, tag byte) []name {
	switch tag {
	case tagDNS:
		return []name{{tag, pick(d, []string{"pod." + d.domain, d.domain, "POD." + strings.ToUpper(d.domain), "*." + d.domain, "a..b"})}}
	case tagEmail:
		return []name{{tag, pick(d, []string{"me@" + d.domain, "me@pod." + d.domain, "Me@" + strings.ToUpper(d.domain), `"m e"@` + d.domain, "me", "@"})}}
	case tagIP:
		return []name{{tag, pick(d, []string{"\x0a\x01\x02\x03", "\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"})}}
	default:
		return nil
	}
}

func some(d *draw, tag byte, values ...string) []name {
	d.Shuffle(len(values), func(i, j int) { values[i], values[j] = values[j], values[i] })
	var names []name
	for _, value := range values[:1+d.IntN(3)] {
		names = append(names, name{tag, value})
	}
	return names
}

// hostLimits are around the host, or its parents.
func hostLimits(host string) []string {
	_, parent, _ := strings.Cut(host, ".")
	if parent == "" {
		parent = "example"
	}
	return []string{host, "." + host, parent, "." + parent, strings.ToUpper(host), "pod." + host, "elsewhere.example", host[1:], "", "x-" + host, "." + host[1:]}
}

func uriLimits(d *draw) []name {
	host := d.domain
	if host == "10.0.0.1" {
		host = "home.example" // an address cannot be constrained
	}
	return some(d, tagURI, hostLimits(host)...)
}

func dnsLimits(d *draw) []name { return some(d, tagDNS, hostLimits(d.domain)...) }

func mailLimits(d *draw) []name {
	return some(d, tagEmail, append(hostLimits(d.domain), "me@"+d.domain, "ME@"+d.domain, "you@"+d.domain, "me@"+strings.ToUpper(d.domain), `"m e"@`+d.domain)...)
}

func addressLimits(d *draw) []name {
	zeros := strings.Repeat("\x00", 15)
	return some(d, tagIP,
		"\x0a\x00\x00\x00\xff\x00\x00\x00", "\x0a\x01\x02\x03\xff\xff\xff\xff", "\xc0\xa8\x00\x00\xff\xff\x00\x00", "\x00\x00\x00\x00\x00\x00\x00\x00",
		"\x0a\x01\x02\x02\xff\xff\xff\xfe", "\xfd"+zeros+"\xff"+zeros, "\xfe"+zeros+"\xff"+zeros, "\x00"+zeros+"\x00"+zeros)
}

func badLimits(d *draw) []name {
	return []name{pick(d, []name{
		{tagURI, d.domain + "."}, {tagURI, "a..b"}, {tagURI, "a b"}, {tagURI, "\xc3\xa4"}, {tagDNS, "a..b"}, {tagDNS, "a."}, {tagEmail, "a@"},
		{tagEmail, "@" + d.domain}, {tagEmail, "a b@" + d.domain}, {tagEmail, "a@b@c"}, {tagIP, "\x0a\x00\x00\x00"}, {tagIP, "\x0a\x00\x00\x00\xff\x00\xff\x00"},
	})}
}

// intermediateNames: X509-SVID, 3.2, wants the ID of a trust domain or nothing.
func intermediateNames(d *draw) []name {
	return pick(d, [][]name{
		{{tagURI, "spiffe://" + d.domain}},
		{{tagURI, "spiffe://" + strings.ToUpper(d.domain)}},
		{{tagURI, "spiffe://elsewhere.example"}},
		{{tagURI, "spiffe://" + d.domain}, {tagURI, "spiffe://elsewhere.example"}},
		{{tagURI, "https://" + d.domain + ":8443/ca"}},
		{{tagURI, "https://me@pod." + d.domain + "/ca"}},
		{{tagURI, "https://10.0.0.1/ca"}},
		{{tagURI, "https://[fd00::1]/ca"}},
		{{tagURI, "https://[fd00::1]:8443/ca"}},
		{{tagURI, "urn:uuid:1"}},
		{{tagURI, "/ca"}},
		{{tagURI, "ca"}},
		{{tagURI, "https://a..b/ca"}},
		{{tagURI, "https://a b/ca"}},
		{{tagURI, "%zz"}},
		{{tagDNS, "ca." + d.domain}},
		{{tagDNS, "\xc3\xa4"}},
		{{tagEmail, "ca@" + d.domain}},
		{{tagEmail, "ca"}},
		{{tagIP, "\x0a\x01\x02\x03"}},
		{{tagIP, "\x0a\x01"}},
	})
}

// constrainedIntermediate has names of any kind below constraints on its kind.
func constrainedIntermediate(d *draw, c *certificate) {
	c.names = intermediateNames(d)
	above := d.above(c)
	of := map[byte]func(*draw) []name{tagURI: uriLimits, tagDNS: dnsLimits, tagEmail: mailLimits, tagIP: addressLimits}[c.names[0].tag]
	chosen := of(d)
	above.limits = &limits{isCritical: true}
	if d.oneIn(2) {
		above.limits.excluded = chosen
	} else {
		above.limits.permitted = slices.Concat(chosen, of(d))
	}
}
