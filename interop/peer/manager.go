package peer

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"interop/fdconn"
	"interop/identity"
	"interop/nsm"
)

// Manager is the registry of a node: forwarders register there, endpoints are found there.
type Manager struct {
	nsm.UnimplementedNetworkServiceRegistryServer
	nsm.UnimplementedNetworkServiceEndpointRegistryServer
	Hop
	// Socket is the path it listens on.
	Socket string
	// Expiry of a registration; ExpireAfter changes it while it runs.
	Expiry time.Duration

	mutex         sync.Mutex
	registrations int
	expired       int
	registered    *registered
	offers        []offer
	changed       map[chan struct{}]bool
	server        *grpc.Server
}

// registered is the forwarder's entry; its file is our own.
type registered struct {
	entry   *nsm.NetworkServiceEndpoint
	file    *os.File
	expires *time.Timer
}

// offer is an endpoint; file is its socket on this node, which can be passed even when its path is gone.
type offer struct {
	entry *nsm.NetworkServiceEndpoint
	file  *os.File
}

// Start listens; also again after Stop.
func (m *Manager) Start() error {
	listener, err := fdconn.Listen(m.Socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(m.Actor.ServerTLS())))
	nsm.RegisterNetworkServiceRegistryServer(server, networkServices{m})
	nsm.RegisterNetworkServiceEndpointRegistryServer(server, m)
	m.mutex.Lock()
	m.server, m.changed = server, map[chan struct{}]bool{}
	m.mutex.Unlock()
	go func() { _ = server.Serve(listener) }()
	return nil
}

// Stop breaks every connection and forgets who registered, as a manager that dies does.
func (m *Manager) Stop() {
	m.server.Stop()
	m.drop()
}

// Offer is an endpoint that is found from now on, in the order of the offers.
func (m *Manager) Offer(name, service, where string) error {
	made := offer{entry: &nsm.NetworkServiceEndpoint{Name: name, NetworkServiceNames: []string{service}, Url: where}}
	if parsed, err := url.Parse(where); err == nil && parsed.Scheme == "unix" {
		if made.file, err = fdconn.OpenPath(parsed.Path); err != nil {
			return err
		}
		made.entry.Url = fdconn.InodeURL(made.file)
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.offers = append(m.offers, made)
	return nil
}

// Withdraw takes it out again.
func (m *Manager) Withdraw(name string) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	for i, made := range m.offers {
		if made.entry.Name == name {
			m.offers = append(m.offers[:i], m.offers[i+1:]...)
			return
		}
	}
}

// Forwarder is the URL to dial the forwarder at, by the descriptor that it has passed; "" while it is not registered.
func (m *Manager) Forwarder() string {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.registered == nil {
		return ""
	}
	return fmt.Sprintf("unix:///proc/self/fd/%d", m.registered.file.Fd())
}

// Registrations is how often the forwarder has registered.
func (m *Manager) Registrations() int {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.registrations
}

// Expired is how often a registration was not refreshed in time.
func (m *Manager) Expired() int {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.expired
}

// ExpireAfter is for registrations and refreshes that come from now on.
func (m *Manager) ExpireAfter(expiry time.Duration) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.Expiry = expiry
}

// Register takes the forwarder's entry: the socket comes as a descriptor and is named by its inode.
func (m *Manager) Register(ctx context.Context, entry *nsm.NetworkServiceEndpoint) (*nsm.NetworkServiceEndpoint, error) {
	ids, err := m.extendPath(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := files(ctx)
	if err != nil {
		return nil, err
	}
	file, err := conn.Receive(ctx, entry.Url)
	if err != nil {
		return nil, err
	}
	reply := proto.CloneOf(entry)
	reply.PathIds = ids
	m.mutex.Lock()
	defer m.mutex.Unlock()
	reply.ExpirationTime = timestamppb.New(time.Now().Add(m.Expiry))
	m.registrations++
	if m.registered != nil {
		m.registered.expires.Stop()
		_ = m.registered.file.Close()
	}
	now := &registered{entry: entry, file: file}
	now.expires = time.AfterFunc(m.Expiry, func() { m.expire(now) })
	m.registered = now
	return reply, nil
}

func (m *Manager) expire(old *registered) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.registered != old {
		return // refreshed in the last moment
	}
	m.expired++
	m.dropLocked()
}

// Unregister takes it out.
func (m *Manager) Unregister(ctx context.Context, _ *nsm.NetworkServiceEndpoint) (*emptypb.Empty, error) {
	if _, err := m.extendPath(ctx); err != nil {
		return nil, err
	}
	m.drop()
	return &emptypb.Empty{}, nil
}

func (m *Manager) drop() {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.dropLocked()
}

func (m *Manager) dropLocked() {
	if m.registered == nil {
		return
	}
	m.registered.expires.Stop()
	_ = m.registered.file.Close()
	m.registered = nil
	for change := range m.changed {
		close(change)
		delete(m.changed, change)
	}
}

// extendPath reads the path of the header and answers with our token behind the caller's: nsm-protocol §4.3.
func (m *Manager) extendPath(ctx context.Context) ([]string, error) {
	token, _, err := tokenOf(ctx)
	if err != nil {
		return nil, err
	}
	info, _ := grpcpeer.FromContext(ctx)
	certificate, err := identity.PeerCertificate(info.AuthInfo)
	if err != nil {
		return nil, err
	}
	claims, err := identity.CheckToken(token, certificate)
	if err != nil {
		return nil, denied("%v", err)
	}
	type segment struct {
		Token string `json:"token"`
	}
	var path struct {
		Index        int
		PathSegments []segment
	}
	headers, _ := metadata.FromIncomingContext(ctx)
	if texts := headers.Get("path"); len(texts) != 1 || json.Unmarshal([]byte(texts[0]), &path) != nil || path.Index != 0 {
		return nil, status.Errorf(codes.InvalidArgument, "the path header is %v", texts)
	}
	own, _, err := m.Actor.Token(claims.Subject, m.Lifetime)
	if err != nil {
		return nil, err
	}
	path.PathSegments = []segment{{token}, {own}}
	text, err := json.Marshal(path)
	if err != nil {
		return nil, err
	}
	return []string{claims.Subject, m.Actor.ID()}, grpc.SetHeader(ctx, metadata.Pairs("path", string(text)))
}

// Find lists endpoints with their descriptors; with watch it continues until the forwarder's entry is gone.
func (m *Manager) Find(query *nsm.NetworkServiceEndpointQuery, stream nsm.NetworkServiceEndpointRegistry_FindServer) error {
	found, change := m.match(query.NetworkServiceEndpoint)
	for _, made := range found {
		if err := send(stream, made); err != nil {
			return err
		}
	}
	if !query.Watch {
		return nil
	}
	select {
	case <-change:
		gone := &nsm.NetworkServiceEndpointResponse{NetworkServiceEndpoint: query.NetworkServiceEndpoint, Deleted: true}
		if err := stream.Send(gone); err != nil {
			return err
		}
		<-stream.Context().Done()
	case <-stream.Context().Done():
	}
	return stream.Context().Err()
}

func (m *Manager) match(wanted *nsm.NetworkServiceEndpoint) ([]offer, chan struct{}) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	all := m.offers
	if m.registered != nil {
		all = append([]offer{{entry: m.registered.entry}}, all...)
	}
	var found []offer
	for _, made := range all {
		isNamed := wanted.GetName() == "" || wanted.Name == made.entry.Name
		names := wanted.GetNetworkServiceNames()
		if isNamed && (len(names) == 0 || names[0] == made.entry.NetworkServiceNames[0]) {
			found = append(found, made)
		}
	}
	change := make(chan struct{})
	m.changed[change] = true
	return found, change
}

// send passes the socket of an endpoint on this node with the answer that names it by its inode.
func send(stream nsm.NetworkServiceEndpointRegistry_FindServer, made offer) error {
	if made.file != nil {
		conn, err := files(stream.Context())
		if err != nil {
			return err
		}
		if err := conn.Send(made.file); err != nil {
			return err
		}
	}
	return stream.Send(&nsm.NetworkServiceEndpointResponse{NetworkServiceEndpoint: made.entry})
}

// networkServices knows every service that is requested.
type networkServices struct{ *Manager }

// Find answers with the service itself, without rules.
func (networkServices) Find(query *nsm.NetworkServiceQuery, stream nsm.NetworkServiceRegistry_FindServer) error {
	service := &nsm.NetworkService{Name: query.GetNetworkService().GetName(), Payload: "ETHERNET"}
	return stream.Send(&nsm.NetworkServiceResponse{NetworkService: service})
}

func (networkServices) Register(context.Context, *nsm.NetworkService) (*nsm.NetworkService, error) {
	return nil, status.Error(codes.Unimplemented, "services need no registration here")
}

func (networkServices) Unregister(context.Context, *nsm.NetworkService) (*emptypb.Empty, error) {
	return nil, status.Error(codes.Unimplemented, "services need no registration here")
}
