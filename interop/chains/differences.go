package chains

import "regexp"

// direction says who is stricter.
type direction string

const (
	weRefuse direction = "ours refuses, go-spiffe accepts"
	weAccept direction = "ours accepts, go-spiffe refuses"
)

// class is a difference that is meant; docs/interop.md has the reason of each.
type class struct {
	name string
	direction
	// says is in what the one that refuses says.
	says *regexp.Regexp
	// kind is one that was drawn.
	kind *regexp.Regexp
}

func differ(name string, who direction, says, kind string) class {
	return class{name, who, regexp.MustCompile(says), regexp.MustCompile(kind)}
}

var classes = []class{
	differ("more than ten certificates", weRefuse, `it sent \d+ certificates`, ``),
	differ("more than 16 KB", weRefuse, `certificates have \d+ bytes; 16384 are read`, ``),
	differ("more than twelve checks of a signature", weRefuse, `takes more than 12 signature checks`, ``),
	differ("more than 2,000 comparisons of names", weRefuse, `constraints that take \d+ comparisons`, `^many names`),
	differ("RSA key in a leaf", weRefuse, `its certificate has an RSA key`, `^(RSA key|key RSA 2048): leaf`),
	differ("RSA key below 2048 bits", weRefuse, `RSA key of 1024 bits`, `1024`),
	differ("key on P-224", weRefuse, `curve other than P-256`, `P-224`),
	differ("identifiers of keys that differ", weRefuse, `leads to no authority`, `^names another key of its issuer|^empty identifier`),
	differ("root without the CA flag, of version 1 or 2", weRefuse, `the authority in the trust bundle is none of an authority`, `^version [12]: `),
	differ("leaf that is itself in the bundle", weRefuse, wrongOnTheWay, `^the leaf is believed$|^signs itself`),
	differ("keyUsage without a bit", weRefuse, `no keyCertSign`, `^keyUsage without a bit`),
	differ("path length beyond 31 bits", weRefuse, `a count is negative, huge`, `^path length beyond`),
	differ("extensions in version 1 or 2", weRefuse, `has extensions and is not of version 3`, `version [12]`),
	differ("dates that RFC 5280 forbids", weRefuse, `dates cannot be read|is no X.509`, `dates that RFC 5280 forbids`),
	differ("critical extensions on policies", weRefuse, `unknown here: 2\.5\.29\.(33|54)`, `^(policyMappings|inhibit)`),
	differ("policyConstraints", weRefuse, `unknown here: 2\.5\.29\.36`, `^policyConstraints`),
	differ("any policy mapped", weRefuse, `maps any policy`, `^policyMappings of any`),
	differ("URI constraint with a port, or an odd domain", weRefuse, `name constraint (is no domain|of a URI is an address)`, `^URI constraint`),
	differ("mailbox with quotes, or without a domain", weRefuse, `\\"m e|is no mailbox`, `mail|names of|^malformed constraint`),
	differ("relative URI", weRefuse, `a URI in it is malformed`, `^relative URI|names of`),
	differ("scheme in upper case", weRefuse, `as a SPIFFE ID`, `^scheme in upper case`),
	differ("ID with an empty fragment", weRefuse, `as a SPIFFE ID`, `^ID with an empty fragment`),
	differ("ID of more than 2,048 characters", weRefuse, `longer than 2048 characters`, ``),
	differ("what Go cannot read in a certificate beside the chain", weAccept, `unsupported elliptic curve|incorrectly marked critical`, `^beside: (a curve|malformed)`),
	differ("more than a hundred checks, the chain found before", weAccept, `signature check attempts limit reached`, `vouch for each other`),
	differ("negative serial number", weAccept, `negative serial number`, `negative serial number`),
	differ("leaf with name, key and names of its issuer", weAccept, `signed by unknown authority`, `^twin`),
}

// Ours says what is wrong with the first way up that it tries, and there may be others that lead nowhere.
const wrongOnTheWay = `the authority in the trust bundle|an intermediate certificate|leads to no authority`

var (
	wayFailed = regexp.MustCompile(wrongOnTheWay)
	otherWays = regexp.MustCompile(`cross-signed|the root of before|same name|of one name|vouch for each other|a bridge`)
)

// classOf is the class of a difference; empty when it has none.
func classOf(d *draw, theirs, ours verdict) string {
	for _, class := range classes {
		refused, accepted := theirs, ours
		if class.direction == weRefuse {
			refused, accepted = ours, theirs
		}
		says := class.says.MatchString(refused.Problem) || wayFailed.MatchString(refused.Problem) && d.has(otherWays)
		if accepted.accepts() && !refused.accepts() && says && d.has(class.kind) {
			return class.name
		}
	}
	return ""
}

func (d *draw) has(like *regexp.Regexp) bool {
	for kind := range d.kinds {
		if like.MatchString(kind) {
			return true
		}
	}
	return false
}
