package identity

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/credentials"
)

// The headers of a token; nsm-protocol §5.3.
const (
	TokenHeader   = "nsm-client-token"
	ExpiresHeader = "nsm-client-token-expires"
)

// Token signs one for the peer with this SPIFFE ID; nsm-protocol §5.1.
func (a *Actor) Token(audience string, lifetime time.Duration) (string, time.Time, error) {
	svid, err := a.GetX509SVID()
	if err != nil {
		return "", time.Time{}, err
	}
	expires := time.Now().Add(lifetime)
	if notAfter := svid.Certificates[0].NotAfter; notAfter.Before(expires) {
		expires = notAfter
	}
	claims := jwt.RegisteredClaims{Subject: svid.ID.String(), ExpiresAt: jwt.NewNumericDate(expires)}
	if audience != "" {
		claims.Audience = jwt.ClaimStrings{audience}
	}
	text, err := jwt.NewWithClaims(jwt.SigningMethodES256, claims).SignedString(svid.PrivateKey)
	return text, expires, err
}

// CheckToken verifies the signature with the certificate, whatever its lifetime is.
func CheckToken(text string, certificate *x509.Certificate) (*jwt.RegisteredClaims, error) {
	claims := &jwt.RegisteredClaims{}
	key := func(*jwt.Token) (any, error) { return crypto.PublicKey(certificate.PublicKey), nil }
	_, err := jwt.ParseWithClaims(text, claims, key, jwt.WithValidMethods([]string{"ES256"}), jwt.WithExpirationRequired())
	return claims, err
}

// Claims reads a token of a hop that is not the peer.
func Claims(text string) (*jwt.RegisteredClaims, error) {
	claims := &jwt.RegisteredClaims{}
	_, _, err := jwt.NewParser().ParseUnverified(text, claims)
	return claims, err
}

// PeerCertificate is the leaf of the peer.
func PeerCertificate(info credentials.AuthInfo) (*x509.Certificate, error) {
	tlsInfo, ok := info.(credentials.TLSInfo)
	if !ok || len(tlsInfo.State.PeerCertificates) == 0 {
		return nil, errors.New("the connection has no TLS peer")
	}
	return tlsInfo.State.PeerCertificates[0], nil
}

// PeerID is the SPIFFE ID of the peer.
func PeerID(info credentials.AuthInfo) (string, error) {
	certificate, err := PeerCertificate(info)
	if err != nil {
		return "", err
	}
	id, err := x509svid.IDFromCert(certificate)
	return id.String(), err
}

// PerCall puts a new token for the server into each call; it implements credentials.PerRPCCredentials.
type PerCall struct {
	Actor    *Actor
	Lifetime time.Duration
}

// GetRequestMetadata needs the handshake to be over: the token names the server.
func (p PerCall) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	call, _ := credentials.RequestInfoFromContext(ctx)
	audience, err := PeerID(call.AuthInfo)
	if err != nil {
		return nil, err
	}
	text, expires, err := p.Actor.Token(audience, p.Lifetime)
	if err != nil {
		return nil, err
	}
	return map[string]string{TokenHeader: text, ExpiresHeader: expires.Format(time.RFC3339Nano)}, nil
}

// RequireTransportSecurity is true: tokens never travel in the open.
func (PerCall) RequireTransportSecurity() bool { return true }
