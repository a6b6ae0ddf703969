package identity

import (
	"context"
	"crypto/x509"
	"net"
	"sync"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Agent serves the SPIFFE Workload API on a unix socket: one workload, a new SVID after each change of the authority.
type Agent struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	authority *Authority
	socket    string
	path      string
	mutex     sync.Mutex
	server    *grpc.Server
	served    int
}

// NewAgent makes one that gives out the SPIFFE ID of the path.
func NewAgent(authority *Authority, socket, path string) *Agent {
	return &Agent{authority: authority, socket: socket, path: path}
}

// Start listens; also again after Stop.
func (a *Agent) Start() error {
	listener, err := net.Listen("unix", a.socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(server, a)
	a.mutex.Lock()
	a.server = server
	a.mutex.Unlock()
	go func() { _ = server.Serve(listener) }()
	return nil
}

// Stop breaks every stream, as an agent that dies does.
func (a *Agent) Stop() {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if a.server != nil {
		a.server.Stop()
	}
	a.server = nil
}

// Served is how many SVIDs were given out.
func (a *Agent) Served() int {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return a.served
}

// FetchX509SVID streams SVID and bundle. As the SPIFFE Workload Endpoint specification (section 6) demands, a call without the security header is refused.
func (a *Agent) FetchX509SVID(_ *workload.X509SVIDRequest, stream grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	if err := checkHeader(stream.Context()); err != nil {
		return err
	}
	changes := a.authority.changes()
	defer a.authority.forget(changes)
	for {
		response, err := a.response()
		if err != nil {
			return err
		}
		if err := stream.Send(response); err != nil {
			return err
		}
		a.mutex.Lock()
		a.served++
		a.mutex.Unlock()
		select {
		case <-changes:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (a *Agent) response() (*workload.X509SVIDResponse, error) {
	svid := a.authority.Issue(a.path)
	key, err := x509.MarshalPKCS8PrivateKey(svid.PrivateKey)
	if err != nil {
		return nil, err
	}
	return &workload.X509SVIDResponse{Svids: []*workload.X509SVID{{
		SpiffeId:    svid.ID.String(),
		X509Svid:    chain(svid),
		X509SvidKey: key,
		Bundle:      concat(a.authority.Bundle().X509Authorities()),
	}}}, nil
}

func checkHeader(ctx context.Context) error {
	headers, _ := metadata.FromIncomingContext(ctx)
	if values := headers.Get("workload.spiffe.io"); len(values) == 1 && values[0] == "true" {
		return nil
	}
	return status.Error(codes.InvalidArgument, "security header missing from request")
}

func chain(svid *x509svid.SVID) []byte { return concat(svid.Certificates) }

func concat(certificates []*x509.Certificate) []byte {
	var der []byte
	for _, certificate := range certificates {
		der = append(der, certificate.Raw...)
	}
	return der
}
