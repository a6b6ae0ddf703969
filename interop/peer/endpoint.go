package peer

import (
	"context"
	"net"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"interop/fdconn"
	"interop/nsm"
)

// Endpoint serves a network service.
type Endpoint struct {
	nsm.UnimplementedNetworkServiceServer
	nsm.UnimplementedMonitorConnectionServer
	Hop
	// URL that it is reached at.
	URL string
	// Context of each connection.
	Context *nsm.ConnectionContext
	// Answer may change or refuse a reply before it leaves.
	Answer func(*nsm.Connection) error

	mutex       sync.Mutex
	requests    []*nsm.NetworkServiceRequest
	closes      []*nsm.Connection
	connections map[string]*nsm.Connection
	monitors    map[chan *nsm.ConnectionEvent]bool
	server      *grpc.Server
}

// Start listens: on a unix socket at the path, or on a TCP port of this machine for "tcp".
func (e *Endpoint) Start(where string) error {
	var listener net.Listener
	var err error
	if where == "tcp" {
		listener, err = net.Listen("tcp", "127.0.0.1:0")
	} else {
		listener, err = fdconn.Listen(where)
	}
	if err != nil {
		return err
	}
	e.URL = "unix://" + where
	if where == "tcp" {
		e.URL = "tcp://" + listener.Addr().String()
	}
	e.connections, e.monitors = map[string]*nsm.Connection{}, map[chan *nsm.ConnectionEvent]bool{}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(e.Actor.ServerTLS())))
	nsm.RegisterNetworkServiceServer(server, e)
	nsm.RegisterMonitorConnectionServer(server, e)
	e.server = server
	go func() { _ = server.Serve(listener) }()
	return nil
}

// Stop breaks every connection, as an endpoint that dies does.
func (e *Endpoint) Stop() { e.server.Stop() }

// Requests and closes that came, in their order.
func (e *Endpoint) Requests() []*nsm.NetworkServiceRequest {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	return append([]*nsm.NetworkServiceRequest(nil), e.requests...)
}

// Closes that came, in their order.
func (e *Endpoint) Closes() []*nsm.Connection {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	return append([]*nsm.Connection(nil), e.closes...)
}

// Forget what came so far.
func (e *Endpoint) Forget() {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	e.requests, e.closes = nil, nil
}

// Request accepts every connection whose tokens are sound.
func (e *Endpoint) Request(ctx context.Context, request *nsm.NetworkServiceRequest) (*nsm.Connection, error) {
	connection := request.GetConnection()
	e.mutex.Lock()
	e.requests = append(e.requests, proto.CloneOf(request))
	e.mutex.Unlock()
	restore, err := e.arrive(ctx, connection)
	if err != nil {
		return nil, err
	}
	if connection.Mechanism, err = e.mechanism(request); err != nil {
		return nil, err
	}
	if e.Context != nil {
		connection.Context = proto.CloneOf(e.Context)
	}
	connection.NetworkServiceEndpointName = e.Name
	if e.Answer != nil {
		if err := e.Answer(connection); err != nil {
			return nil, err
		}
	}
	e.keep(connection, nsm.ConnectionEventType_UPDATE)
	restore(connection)
	return connection, nil
}

// mechanism is the first that is offered, which must be NOOP of the class that the way here has: nsm-protocol §3.1.
func (e *Endpoint) mechanism(request *nsm.NetworkServiceRequest) (*nsm.Mechanism, error) {
	class := "LOCAL"
	if strings.HasPrefix(e.URL, "tcp:") {
		class = "REMOTE"
	}
	offers := append([]*nsm.Mechanism{request.Connection.Mechanism}, request.MechanismPreferences...)
	for _, offer := range offers {
		if offer != nil && offer.Type == "NOOP" && offer.Cls == class {
			return &nsm.Mechanism{Cls: class, Type: "NOOP"}, nil
		}
	}
	return nil, status.Errorf(codes.InvalidArgument, "no NOOP of class %s is offered: %v", class, offers)
}

// Close forgets the connection.
func (e *Endpoint) Close(ctx context.Context, connection *nsm.Connection) (*emptypb.Empty, error) {
	if _, err := e.arrive(ctx, connection); err != nil {
		return nil, err
	}
	e.mutex.Lock()
	e.closes = append(e.closes, proto.CloneOf(connection))
	e.mutex.Unlock()
	e.keep(connection, nsm.ConnectionEventType_DELETE)
	return &emptypb.Empty{}, nil
}

// Down reports to every monitor that the endpoint's connections have failed.
func (e *Endpoint) Down() {
	e.mutex.Lock()
	connections := make([]*nsm.Connection, 0, len(e.connections))
	for _, connection := range e.connections {
		connections = append(connections, proto.CloneOf(connection))
	}
	e.mutex.Unlock()
	for _, connection := range connections {
		connection.State = nsm.State_DOWN
		e.keep(connection, nsm.ConnectionEventType_UPDATE)
	}
}

func (e *Endpoint) keep(connection *nsm.Connection, what nsm.ConnectionEventType) {
	connection = proto.CloneOf(connection)
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if what == nsm.ConnectionEventType_DELETE {
		delete(e.connections, connection.Id)
	} else {
		e.connections[connection.Id] = connection
	}
	event := &nsm.ConnectionEvent{Type: what, Connections: map[string]*nsm.Connection{connection.Id: connection}}
	for monitor := range e.monitors {
		monitor <- event
	}
}

// MonitorConnections reports all of them, whatever is selected, as a peer may.
func (e *Endpoint) MonitorConnections(_ *nsm.MonitorScopeSelector, stream nsm.MonitorConnection_MonitorConnectionsServer) error {
	events := make(chan *nsm.ConnectionEvent, 10_000)
	e.mutex.Lock()
	all := &nsm.ConnectionEvent{Connections: map[string]*nsm.Connection{}}
	for id, connection := range e.connections {
		all.Connections[id] = proto.CloneOf(connection)
	}
	e.monitors[events] = true
	e.mutex.Unlock()
	defer func() {
		e.mutex.Lock()
		defer e.mutex.Unlock()
		delete(e.monitors, events)
	}()
	for event := all; ; {
		if err := stream.Send(event); err != nil {
			return err
		}
		select {
		case event = <-events:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
