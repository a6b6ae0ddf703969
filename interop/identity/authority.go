// Package identity is what SPIRE is to a node: an authority, the Workload API of its agent, and NSM's tokens that are
// signed with the identities it gives out. It knows nothing of NSM's messages.
package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// clockSkew is how far in the past a certificate begins to be valid.
const clockSkew = 10 * time.Second

// TrustDomain is that of all who take part.
var TrustDomain = spiffeid.RequireTrustDomainFromString("interop.test")

// Authority signs X.509-SVIDs (https://spiffe.io X509-SVID) and publishes whom to believe.
type Authority struct {
	mutex    sync.Mutex
	roots    []*root
	signer   *root
	lifetime time.Duration
	listens  []chan struct{}
	serial   int64
}

type root struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority makes one whose SVIDs are valid for the given time.
func NewAuthority(lifetime time.Duration) *Authority {
	authority := &Authority{lifetime: lifetime}
	authority.PrepareRoot()
	authority.SignWithNewRoot()
	return authority
}

// PrepareRoot puts a new key into the bundle, as SPIRE does some time before it signs with it: all who verify must have it by then.
func (a *Authority) PrepareRoot() {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	a.mutex.Lock()
	defer a.mutex.Unlock()
	template := a.template(24 * time.Hour)
	template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	template.URIs = []*url.URL{TrustDomain.ID().URL()}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	a.roots = append(a.roots, &root{must(x509.ParseCertificate(der)), key})
	a.publish()
}

// SignWithNewRoot has the last key sign from now on; earlier ones stay in the bundle.
func (a *Authority) SignWithNewRoot() {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.signer = a.roots[len(a.roots)-1]
	a.publish()
}

// DropOldRoots leaves only the key that signs in the bundle.
func (a *Authority) DropOldRoots() {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.roots = []*root{a.signer}
	a.publish()
}

// isSigner says whether the certificate is of the key that signs now.
func (a *Authority) isSigner(of *x509.Certificate) bool {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return of.CheckSignatureFrom(a.signer.certificate) == nil
}

// Rotate has the agent give out a new SVID at once.
func (a *Authority) Rotate() {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.publish()
}

// Issue signs a new SVID with a key of its own.
func (a *Authority) Issue(path string) *x509svid.SVID {
	id := spiffeid.RequireFromPath(TrustDomain, path)
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	a.mutex.Lock()
	defer a.mutex.Unlock()
	template := a.template(a.lifetime)
	template.URIs, template.KeyUsage = []*url.URL{id.URL()}, x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	by := a.signer
	der := must(x509.CreateCertificate(rand.Reader, template, by.certificate, key.Public(), by.key))
	return &x509svid.SVID{ID: id, Certificates: []*x509.Certificate{must(x509.ParseCertificate(der))}, PrivateKey: key}
}

// Bundle is the set of roots that are believed now.
func (a *Authority) Bundle() *x509bundle.Bundle {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	certificates := make([]*x509.Certificate, len(a.roots))
	for i, root := range a.roots {
		certificates[i] = root.certificate
	}
	return x509bundle.FromX509Authorities(TrustDomain, certificates)
}

// changes is written to after each change; the caller gives it back to forget.
func (a *Authority) changes() chan struct{} {
	listen := make(chan struct{}, 1)
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.listens = append(a.listens, listen)
	return listen
}

func (a *Authority) forget(listen chan struct{}) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	for i, other := range a.listens {
		if other == listen {
			a.listens = append(a.listens[:i], a.listens[i+1:]...)
			return
		}
	}
}

func (a *Authority) publish() {
	for _, listen := range a.listens {
		select {
		case listen <- struct{}{}:
		default: // has not yet looked at the change before
		}
	}
}

func (a *Authority) template(lifetime time.Duration) *x509.Certificate {
	a.serial++
	return &x509.Certificate{
		SerialNumber:          big.NewInt(a.serial),
		Subject:               pkix.Name{Organization: []string{"interop"}},
		NotBefore:             time.Now().Add(-clockSkew),
		NotAfter:              time.Now().Add(lifetime),
		BasicConstraintsValid: true,
	}
}

// must is for what fails only when the machine has no randomness.
func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
