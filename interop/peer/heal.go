package peer

import (
	"context"

	"google.golang.org/protobuf/proto"

	"interop/nsm"
)

// Watch is one connection as a client's heal follows it: nsm-protocol §3.4. The selector names the client's own hop.
type Watch struct {
	stream  nsm.MonitorConnection_MonitorConnectionsClient
	watched *nsm.Connection
}

// Watch opens the stream for the client's connection.
func (c *Client) Watch(ctx context.Context) (*Watch, error) {
	connection := c.Connection()
	own := connection.Path.PathSegments[connection.Path.Index]
	selector := &nsm.MonitorScopeSelector{PathSegments: []*nsm.PathSegment{{Id: own.Id, Name: own.Name}}}
	stream, err := nsm.NewMonitorConnectionClient(c.Link).MonitorConnections(ctx, selector)
	return &Watch{stream, connection}, err
}

// WaitDown returns when heal would start: nil where the connection was reported down or gone, and otherwise the stream's end.
func (w *Watch) WaitDown() error {
	for {
		event, err := w.stream.Recv()
		if err != nil {
			return err
		}
		for _, reported := range event.Connections {
			if w.isOurs(reported) && (reported.State == nsm.State_DOWN || event.Type == nsm.ConnectionEventType_DELETE) {
				return nil
			}
		}
	}
}

// isOurs holds for what the next hop reports of the connection: its path has our hop where we are, and it is there or one behind.
func (w *Watch) isOurs(reported *nsm.Connection) bool {
	index := w.watched.Path.Index
	segments := reported.GetPath().GetPathSegments()
	return int(index) < len(segments) && segments[index].Id == w.watched.Id && (reported.Path.Index == index || reported.Path.Index == index+1)
}

// Reselect does what a client's begin does when heal wants another endpoint: nsm-protocol §9.7. The Close may fail: the
// endpoint is mostly gone.
func (c *Client) Reselect(ctx context.Context) (*nsm.Connection, error) {
	before := c.Connection()
	_ = c.Close(ctx)
	c.mutex.Lock()
	c.connection = proto.CloneOf(before)
	c.connection.Mechanism, c.connection.NetworkServiceEndpointName = nil, ""
	c.connection.State = nsm.State_RESELECT_REQUESTED
	c.mutex.Unlock()
	return c.Request(ctx)
}
