package peer

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"interop/fdconn"
	"interop/nsm"
)

// Client requests one connection. It plays the pod's client and the node's manager: both are on the path, and the manager's call
// reaches the forwarder.
type Client struct {
	Link *Link
	// App and Manager are the two first hops.
	App, Manager Hop
	Service      string
	// Namespace is passed to the forwarder.
	Namespace *os.File
	TokenID   string
	// Preferences in place of KERNEL with the namespace.
	Preferences []*nsm.Mechanism
	// Labels of the connection; that of the pretend card's service domain by default.
	Labels map[string]string
	// Change is the last hand on a message before it leaves.
	Change func(*nsm.NetworkServiceRequest)

	mutex      sync.Mutex
	connection *nsm.Connection
	// ids of the two hops, which stay the same for the client's life and the manager's.
	appID, managerID string
}

// Connection is what the last successful Request gave.
func (c *Client) Connection() *nsm.Connection {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return proto.CloneOf(c.connection)
}

// Request requests the connection, or refreshes it.
func (c *Client) Request(ctx context.Context) (*nsm.Connection, error) {
	request, err := c.request(ctx)
	if err != nil {
		return nil, err
	}
	if c.Namespace != nil {
		if err := c.Link.Send(ctx, c.Namespace); err != nil {
			return nil, err
		}
	}
	reply, err := nsm.NewNetworkServiceClient(c.Link).Request(ctx, request)
	if err != nil {
		return nil, err
	}
	if err := c.check(reply); err != nil {
		return nil, fmt.Errorf("the forwarder's reply is not sound: %w", err)
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.connection = reply
	return proto.CloneOf(reply), nil
}

func (c *Client) request(ctx context.Context) (*nsm.NetworkServiceRequest, error) {
	connection := c.Connection()
	if connection == nil {
		appID, managerID := c.ids()
		labels := c.Labels
		if labels == nil {
			labels = map[string]string{"serviceDomain": "worker.domain"}
		}
		connection = &nsm.Connection{NetworkService: c.Service, Labels: labels, Path: &nsm.Path{PathSegments: []*nsm.PathSegment{
			{Name: c.App.Name, Id: appID}, {Name: c.Manager.Name, Id: managerID},
		}}}
	}
	if err := c.sign(connection); err != nil {
		return nil, err
	}
	request := &nsm.NetworkServiceRequest{Connection: connection, MechanismPreferences: c.Preferences}
	if c.Preferences == nil {
		request.MechanismPreferences = []*nsm.Mechanism{c.Kernel()}
	}
	if c.Change != nil {
		c.Change(request)
	}
	return request, ctx.Err()
}

func (c *Client) ids() (app, manager string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.appID == "" {
		c.appID = newID()
	}
	if c.managerID == "" {
		c.managerID = newID()
	}
	return c.appID, c.managerID
}

// sign renews the tokens of the two hops; the second one's is replaced by that of the call's headers when it arrives.
func (c *Client) sign(connection *nsm.Connection) error {
	segments := connection.Path.PathSegments
	token, expires, err := c.App.Actor.Token(c.Manager.Actor.ID(), c.App.Lifetime)
	if err != nil {
		return err
	}
	segments[0].Token, segments[0].Expires = token, timestamppb.New(expires)
	token, expires, err = c.Manager.Actor.Token(c.App.Actor.ID(), c.Manager.Lifetime)
	segments[1].Token, segments[1].Expires = token, timestamppb.New(expires)
	connection.Path.Index, connection.Id = 1, segments[1].Id
	return err
}

// Kernel requests a network device in the namespace.
func (c *Client) Kernel() *nsm.Mechanism {
	parameters := map[string]string{"name": "nsm-1", "tokenID": c.TokenID}
	if c.Namespace != nil {
		parameters["inodeURL"] = fdconn.InodeURL(c.Namespace)
	}
	return &nsm.Mechanism{Cls: "LOCAL", Type: "KERNEL", Parameters: parameters}
}

// Vfio requests a device that the processes of a cgroup can open.
func (c *Client) Vfio(cgroupDir string) *nsm.Mechanism {
	parameters := map[string]string{"tokenID": c.TokenID, "cgroupDir": cgroupDir}
	return &nsm.Mechanism{Cls: "LOCAL", Type: "VFIO", Parameters: parameters}
}

// check is what every client and manager of NSM takes for granted in a reply.
func (c *Client) check(reply *nsm.Connection) error {
	path := reply.GetPath()
	switch {
	case path.GetIndex() != 1 || len(path.GetPathSegments()) < 4:
		return fmt.Errorf("path of %d segments with index %d", len(path.GetPathSegments()), path.GetIndex())
	case reply.Id != path.PathSegments[1].Id:
		return fmt.Errorf("id %s, and that of the segment is %s", reply.Id, path.PathSegments[1].Id)
	case c.Namespace != nil && reply.Mechanism.GetParameters()["inodeURL"] != fdconn.InodeURL(c.Namespace):
		return fmt.Errorf("inodeURL %s", reply.Mechanism.GetParameters()["inodeURL"])
	}
	return checkChain(path.PathSegments)
}

// Close ends the connection.
func (c *Client) Close(ctx context.Context) error {
	connection := c.Connection()
	if connection == nil {
		return nil
	}
	if err := c.sign(connection); err != nil {
		return err
	}
	_, err := nsm.NewNetworkServiceClient(c.Link).Close(ctx, connection)
	if err == nil {
		c.Forget()
	}
	return err
}

// Forget makes the next Request a first one.
func (c *Client) Forget() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.connection = nil
}

// Fail is what a client and its manager know after a first Request that failed: the manager takes the next one for new.
func (c *Client) Fail() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.connection, c.managerID = nil, ""
}

// Adopt takes a connection for its own.
func (c *Client) Adopt(connection *nsm.Connection) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.connection = connection
}

// MoveTo has another manager take the client over, as one that was made again: it puts its own name and id on the client's path.
func (c *Client) MoveTo(manager Hop) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.Manager, c.managerID = manager, newID()
	if c.connection != nil {
		segment := c.connection.Path.PathSegments[1]
		segment.Name, segment.Id = manager.Name, c.managerID
	}
}

// Events follows the connections of the manager until ctx ends; the channel is closed with the stream.
func (c *Client) Events(ctx context.Context) (<-chan *nsm.ConnectionEvent, error) {
	selector := &nsm.MonitorScopeSelector{PathSegments: []*nsm.PathSegment{{Name: c.Manager.Name}}}
	stream, err := nsm.NewMonitorConnectionClient(c.Link).MonitorConnections(ctx, selector)
	if err != nil {
		return nil, err
	}
	events := make(chan *nsm.ConnectionEvent, 1000)
	go func() {
		defer close(events)
		for {
			event, err := stream.Recv()
			if err != nil {
				return
			}
			events <- event
		}
	}()
	return events, nil
}

// CallLimit of one call: more than a manager allows, for a machine that is busy with other work.
const CallLimit = 2 * time.Minute
