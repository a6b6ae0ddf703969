package scenario

import (
	"context"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/timestamppb"

	"interop/identity"
	"interop/nsm"
	"interop/peer"
)

// The endpoint and the manager check each token of the forwarder (peer/hop.go); here it checks theirs. Codes:
// nsm-protocol §1.7; where the original has Unknown for what a caller did wrong, ours says INVALID_ARGUMENT (docs/interop.md).
func TestEachCorruptionOfPathAndTokensIsRefused(t *testing.T) {
	w := open(t, options{})
	foreign := w.authority.Actor("/another")
	client := w.newClient(longTokens)
	token := func(audience string, lifetime time.Duration) string {
		text, _, err := foreign.Token(audience, lifetime)
		must(t, err)
		return text
	}
	corruptions := map[string]struct {
		change func(path *nsm.Path, connection *nsm.Connection)
		codes  []codes.Code
	}{
		"a token that is no token": {func(path *nsm.Path, _ *nsm.Connection) {
			path.PathSegments[0].Token = "a.b.c"
		}, []codes.Code{codes.PermissionDenied}},
		"no token": {func(path *nsm.Path, _ *nsm.Connection) {
			path.PathSegments[0].Token = ""
		}, []codes.Code{codes.PermissionDenied}},
		"a token that has expired": {func(path *nsm.Path, _ *nsm.Connection) {
			text, _, err := client.App.Actor.Token(client.Manager.Actor.ID(), -time.Minute)
			must(t, err)
			path.PathSegments[0].Token = text
		}, []codes.Code{codes.PermissionDenied}},
		"a token for another peer": {func(path *nsm.Path, _ *nsm.Connection) {
			path.PathSegments[0].Token = token("spiffe://interop.test/unknown", longTokens)
		}, []codes.Code{codes.PermissionDenied}},
		"an index behind the end": {func(path *nsm.Path, _ *nsm.Connection) {
			path.Index = 7
		}, []codes.Code{codes.InvalidArgument}},
		"an id that is not the segment's": {func(_ *nsm.Path, connection *nsm.Connection) {
			connection.Id = "another"
		}, []codes.Code{codes.InvalidArgument}},
	}
	for name, corruption := range corruptions {
		t.Run(name, func(t *testing.T) {
			client.Forget()
			client.Change = func(request *nsm.NetworkServiceRequest) {
				corruption.change(request.Connection.Path, request.Connection)
			}
			_, err := client.Request(w.within(peer.CallLimit))
			refused(t, err, corruption.codes...)
		})
	}
	if count := len(w.endpoint.Requests()); count != 0 || !w.isIdle() {
		t.Fatalf("the endpoint heard of %d refused Requests; idle %v", count, w.isIdle())
	}
	client.Change = nil
	client.Forget()
	w.request(client)
}

// An older time in the path does not count: the call's own headers do.
func TestTheCallersTokenComesFromTheHeaders(t *testing.T) {
	w := open(t, options{})
	client := w.newClient(longTokens)
	client.Change = func(request *nsm.NetworkServiceRequest) {
		request.Connection.Path.PathSegments[1].Token = "a.b.c"
		request.Connection.Path.PathSegments[1].Expires = timestamppb.New(time.Now().Add(-time.Hour))
	}
	w.request(client)
}

// headers are what a call brings in place of a token of its own; it implements credentials.PerRPCCredentials.
type headers map[string]string

func (h headers) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return h, nil
}

func (headers) RequireTransportSecurity() bool { return true }

// As by the original, whose chain with its default policies was tried the same way by hand: docs/interop.md.
func TestEachCorruptionOfTheHeadersIsRefused(t *testing.T) {
	w := open(t, options{})
	server := w.authority.Actor("/forwarder").ID()
	caller := w.manager.Actor
	with := func(text string, expires string) headers {
		return headers{identity.TokenHeader: text, identity.ExpiresHeader: expires}
	}
	soon := time.Now().Add(longTokens).Format(time.RFC3339Nano)
	token := func(actor *identity.Actor, audience string, lifetime time.Duration) string {
		text, _, err := actor.Token(audience, lifetime)
		must(t, err)
		return text
	}
	claims := jwt.RegisteredClaims{Subject: caller.ID(), Audience: jwt.ClaimStrings{server}, ExpiresAt: jwt.NewNumericDate(time.Now().Add(longTokens))}
	unsigned, err := jwt.NewWithClaims(jwt.SigningMethodNone, claims).SignedString(jwt.UnsafeAllowNoneSignatureType)
	must(t, err)
	shared, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte("secret"))
	must(t, err)
	sound := token(caller, server, longTokens)
	for name, sent := range map[string]headers{
		"none":                   {},
		"no token":               {identity.ExpiresHeader: soon},
		"no time":                {identity.TokenHeader: sound},
		"a time that is no time": with(sound, "soon"),
		"a token that is none":   with("a.b.c", soon),
		"a token that expired":   with(token(caller, server, -time.Minute), soon),
		"one for another peer":   with(token(caller, "spiffe://interop.test/unknown", longTokens), soon),
		"one for no peer":        with(token(caller, "", longTokens), soon),
		"one of another key":     with(token(w.authority.Actor("/nsmgr-1"), server, longTokens), soon),
		"one about another peer": with(token(w.authority.Actor("/another"), server, longTokens), soon),
		"one that is not signed": with(unsigned, soon),
		"one of a shared secret": with(shared, soon),
	} {
		t.Run(name, func(t *testing.T) { refused(t, w.callWith(sent), codes.PermissionDenied) })
	}
	// With sound ones the same call comes as far as its namespace, which it does not bring.
	refused(t, w.callWith(with(sound, soon)), codes.InvalidArgument)
}

// callWith requests a connection without a namespace.
func (w *world) callWith(sent headers) error {
	w.Helper()
	tls := grpc.WithTransportCredentials(credentials.NewTLS(w.manager.Actor.ClientTLS()))
	connection, err := grpc.NewClient(w.manager.Forwarder(), tls, grpc.WithPerRPCCredentials(sent))
	must(w, err)
	defer connection.Close()
	client := &peer.Client{Link: &peer.Link{ClientConn: connection}, App: w.hop("pod", longTokens), Manager: w.manager.Hop, Service: service, TokenID: "none"}
	_, err = client.Request(w.within(peer.CallLimit))
	return err
}

func TestTokensOfAnotherSignerAreRefused(t *testing.T) {
	w := open(t, options{})
	client := w.newClient(longTokens)
	// Another workload of the trust domain calls with its own certificate and the manager's token.
	link, err := peer.DialAs(w.authority.Actor("/another"), w.manager.Actor, w.manager.Forwarder(), longTokens)
	must(t, err)
	defer link.Close()
	client.Link = link
	_, err = client.Request(w.within(peer.CallLimit))
	refused(t, err, codes.PermissionDenied)
}

func TestAnotherPodCannotTouchTheConnection(t *testing.T) {
	w := open(t, options{})
	client := w.newClient(longTokens)
	w.request(client)
	thief := w.authority.Actor("/thief")
	link, err := peer.Dial(thief, w.manager.Forwarder(), longTokens)
	must(t, err)
	defer link.Close()
	stolen := client.Connection()
	app, _, err := client.App.Actor.Token(thief.ID(), longTokens)
	must(t, err)
	stolen.Path.PathSegments[0].Token = app
	_, err = nsm.NewNetworkServiceClient(link).Close(w.within(peer.CallLimit), stolen)
	refused(t, err, codes.PermissionDenied)
	w.linkOf(client)
	w.request(client)
}

// As the stock manager sends it on: the stored path, and in its first segment the token of who calls.
func TestAnotherClientOfTheManagerCannotTouchTheConnection(t *testing.T) {
	w := open(t, options{})
	client := w.newClient(longTokens)
	w.request(client)
	stolen := client.Connection()
	app, _, err := w.authority.Actor("/thief").Token(client.Manager.Actor.ID(), longTokens)
	must(t, err)
	stolen.Path.PathSegments[0].Token = app
	manager := nsm.NewNetworkServiceClient(client.Link)
	_, err = manager.Close(w.within(peer.CallLimit), stolen)
	refused(t, err, codes.PermissionDenied)
	for _, state := range []nsm.State{nsm.State_UP, nsm.State_RESELECT_REQUESTED} {
		stolen.State = state
		_, err = manager.Request(w.within(peer.CallLimit), &nsm.NetworkServiceRequest{Connection: stolen})
		refused(t, err, codes.PermissionDenied)
	}
	if closes := w.endpoint.Closes(); len(closes) != 0 {
		t.Fatalf("another client has closed %v", closes)
	}
	w.linkOf(client)
	w.request(client)
	must(t, client.Close(w.within(peer.CallLimit)))
}

func TestAReplyWithAnUnsoundPathIsUndone(t *testing.T) {
	w := open(t, options{})
	client := w.newClient(longTokens)
	w.endpoint.Answer = func(connection *nsm.Connection) error {
		connection.Path.PathSegments = connection.Path.PathSegments[:1]
		return nil
	}
	_, err := client.Request(w.within(peer.CallLimit))
	if err == nil {
		t.Fatal("a reply whose path has lost the caller was taken")
	}
	w.eventually("what was begun is undone", func() bool { return w.isIdle() && w.hasNoLink(client) })
}
