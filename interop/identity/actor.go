package identity

import (
	"crypto/tls"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Actor is a peer of the trust domain that can prove who it is. It is a source of SVID and bundle for go-spiffe.
type Actor struct {
	authority *Authority
	path      string
	mutex     sync.Mutex
	svid      *x509svid.SVID
}

// Actor makes one; its SVID is renewed when half of its life is over.
func (a *Authority) Actor(path string) *Actor {
	return &Actor{authority: a, path: path}
}

// GetX509SVID implements x509svid.Source.
func (a *Actor) GetX509SVID() (*x509svid.SVID, error) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if a.svid == nil || a.isOld() {
		a.svid = a.authority.Issue(a.path)
	}
	return a.svid, nil
}

// isOld is also true after the authority has begun to sign with another key.
func (a *Actor) isOld() bool {
	leaf := a.svid.Certificates[0]
	return !a.authority.isSigner(leaf) || time.Until(leaf.NotAfter) < a.authority.lifetime/2
}

// GetX509BundleForTrustDomain implements x509bundle.Source.
func (a *Actor) GetX509BundleForTrustDomain(domain spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return a.authority.Bundle().GetX509BundleForTrustDomain(domain)
}

// ID is who this is.
func (a *Actor) ID() string {
	return spiffeid.RequireFromPath(TrustDomain, a.path).String()
}

// ServerTLS is mutual TLS with any peer of the trust domain, as all of NSM has it.
func (a *Actor) ServerTLS() *tls.Config {
	return tlsconfig.MTLSServerConfig(a, a, tlsconfig.AuthorizeAny())
}

// ClientTLS is the same for the calling side.
func (a *Actor) ClientTLS() *tls.Config {
	return tlsconfig.MTLSClientConfig(a, a, tlsconfig.AuthorizeAny())
}
