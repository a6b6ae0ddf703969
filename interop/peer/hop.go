// Package peer is who the forwarder talks to, written from the wire contract on grpc-go: a manager with its registry, an
// endpoint, and clients. They check what the forwarder sends them as strictly as the contract allows.
package peer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"interop/fdconn"
	"interop/identity"
	"interop/nsm"
)

// Hop is one program on the path of a connection.
type Hop struct {
	Name  string
	Actor *identity.Actor
	// Lifetime of its tokens.
	Lifetime time.Duration
}

// arrive puts the hop on the path of what has come, as a server does: nsm-protocol §2.1 and §2.3. The function that it
// returns makes the reply the caller's again.
func (h Hop) arrive(ctx context.Context, connection *nsm.Connection) (func(*nsm.Connection), error) {
	path := connection.GetPath()
	before := path.GetIndex()
	if int(before) >= len(path.GetPathSegments()) || path.PathSegments[before].Id != connection.GetId() {
		return nil, status.Error(codes.InvalidArgument, "the connection's id is not that of its path segment")
	}
	token, expires, err := tokenOf(ctx)
	if err != nil {
		return nil, err
	}
	caller := path.PathSegments[before]
	caller.Token, caller.Expires = token, timestamppb.New(expires)
	if err := checkTokens(ctx, path); err != nil {
		return nil, err
	}
	id, err := peerID(ctx)
	if err != nil {
		return nil, err
	}
	own, ownExpires, err := h.Actor.Token(id, h.Lifetime)
	if err != nil {
		return nil, err
	}
	segment := h.segment(path, before+1)
	segment.Token, segment.Expires = own, timestamppb.New(ownExpires)
	path.Index, connection.Id = before+1, segment.Id
	return func(reply *nsm.Connection) { reply.Path.Index, reply.Id = before, caller.Id }, nil
}

// segment is that of the hop: the one that it made before, or a new one.
func (h Hop) segment(path *nsm.Path, index uint32) *nsm.PathSegment {
	if int(index) == len(path.PathSegments) {
		path.PathSegments = append(path.PathSegments, &nsm.PathSegment{Name: h.Name, Id: newID()})
	}
	segment := path.PathSegments[index]
	if segment.Name != h.Name {
		segment.Name, segment.Id = h.Name, newID()
	}
	return segment
}

// tokenOf reads the two headers, each of which must be there once.
func tokenOf(ctx context.Context) (string, time.Time, error) {
	headers, _ := metadata.FromIncomingContext(ctx)
	tokens, times := headers.Get(identity.TokenHeader), headers.Get(identity.ExpiresHeader)
	if len(tokens) != 1 || len(times) != 1 {
		return "", time.Time{}, status.Errorf(codes.InvalidArgument, "%d tokens and %d times in the headers", len(tokens), len(times))
	}
	expires, err := time.Parse(time.RFC3339Nano, times[0])
	return tokens[0], expires, err
}

// checkTokens does what the policies of nsm-protocol §2.4 demand of a server, and more: that the token's subject is the peer,
// that the header's time is the token's, and that only the three known claims are there.
func checkTokens(ctx context.Context, path *nsm.Path) error {
	info, _ := grpcpeer.FromContext(ctx)
	certificate, err := identity.PeerCertificate(info.AuthInfo)
	if err != nil {
		return err
	}
	caller := path.PathSegments[path.Index]
	signed, err := identity.CheckToken(caller.Token, certificate)
	if err != nil {
		return denied("the caller's token: %v", err)
	}
	if id, _ := peerID(ctx); signed.Subject != id {
		return denied("%s calls with a token of %s", id, signed.Subject)
	}
	if lag := signed.ExpiresAt.Sub(caller.Expires.AsTime()).Abs(); lag > time.Second {
		return denied("the token's time and the header's differ by %s", lag)
	}
	return checkChain(path.PathSegments[:path.Index+1])
}

func checkChain(segments []*nsm.PathSegment) error {
	var before *jwt.RegisteredClaims
	for _, segment := range segments {
		claims, err := identity.Claims(segment.Token)
		if err != nil {
			return denied("the token of %s: %v", segment.Name, err)
		}
		if claims.ExpiresAt == nil || claims.ExpiresAt.Before(time.Now()) {
			return denied("the token of %s has expired", segment.Name)
		}
		if before != nil && !slices.Contains(before.Audience, claims.Subject) {
			return denied("the token before %s is for %v", segment.Name, before.Audience)
		}
		before = claims
	}
	return nil
}

func denied(format string, values ...any) error {
	return status.Error(codes.PermissionDenied, fmt.Sprintf(format, values...))
}

func peerID(ctx context.Context) (string, error) {
	info, ok := grpcpeer.FromContext(ctx)
	if !ok {
		return "", errors.New("the call has no peer")
	}
	return identity.PeerID(info.AuthInfo)
}

// files is the connection of a call that has come in.
func files(ctx context.Context) (*fdconn.Conn, error) {
	info, ok := grpcpeer.FromContext(ctx)
	if !ok {
		return nil, errors.New("the call has no peer")
	}
	address, ok := info.Addr.(*fdconn.Addr)
	if !ok {
		return nil, fmt.Errorf("the connection from %s carries no files", info.Addr)
	}
	return address.Conn, nil
}
