package scenario

import (
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"interop/node"
	"interop/nsm"
	"interop/peer"
)

// A forwarder that is killed takes no leave: the manager's entry stays, its streams break, and what pods have stays.
func TestKilledForwarderIsHealed(t *testing.T) {
	w := open(t, options{Settings: node.Settings{Killable: true}})
	client, other := w.newClient(longTokens), w.newClient(longTokens)
	w.endpoint.Context.EthernetContext = nil // each pod has an address of its own
	first := w.request(client)
	w.request(other)
	device := w.linkOf(client)
	watch, err := client.Watch(w.within(node.Patience))
	must(t, err)

	must(t, w.forwarder.Kill())
	if err := watch.WaitDown(); status.Code(err) != codes.Unavailable {
		t.Fatalf("heal hears of the forwarder's death as %v", err)
	}
	if !sameDevice(w.linkOf(client), device) {
		t.Fatal("the device did not outlive the forwarder")
	}
	registrations := w.manager.Registrations()
	must(t, w.forwarder.Start())
	if w.manager.Registrations() == registrations {
		t.Fatal("the forwarder has not registered again")
	}
	w.redial(client)
	w.isTransferred(client, first)

	// What heal does while the data plane works: the same Request again.
	second := w.request(client)
	if second.Path.PathSegments[2].Id != first.Path.PathSegments[2].Id || !sameDevice(w.linkOf(client), device) {
		t.Fatalf("after the restart: %v with %+v", second.Path, w.linkOf(client))
	}
	if closes := w.endpoint.Closes(); len(closes) != 0 {
		t.Fatalf("the restart has closed %v", closes)
	}
	// What it does where the data plane cannot be looked at: Close, which may fail, and reselect.
	w.redial(other)
	if reply, err := other.Reselect(w.within(peer.CallLimit)); err != nil || reply.State != nsm.State_UP {
		t.Fatalf("reselected %v: %v", reply, err)
	}
	w.linkOf(other)
	must(t, client.Close(w.within(peer.CallLimit)))
	must(t, other.Close(w.within(peer.CallLimit)))
	if !w.hasNoLink(client) || !w.hasNoLink(other) || !w.isIdle() {
		t.Fatal("a connection outlived its Close")
	}
}

// Killed while Requests are on their way: whatever they had come to, the clients' next tries are served, and nothing is left.
func TestForwarderKilledInTheMiddleOfRequests(t *testing.T) {
	w := open(t, options{Settings: node.Settings{Killable: true}})
	w.endpoint.Context.EthernetContext = nil
	clients := []*peer.Client{w.newClient(longTokens), w.newClient(longTokens), w.newClient(longTokens)}
	killed := make(chan struct{})
	var isSilent atomic.Bool
	w.endpoint.Answer = func(*nsm.Connection) error {
		if isSilent.Load() {
			<-killed
		}
		return nil
	}
	w.killedWhen("at once", clients, func() bool { return true })
	w.areServed(clients)
	isSilent.Store(true) // no Request can be done before the kill
	cut := w.killedWhen("while the endpoint is requested", clients, func() bool { return len(w.endpoint.Requests()) > 0 })
	if cut != len(clients) {
		t.Fatalf("%d of %d Requests were cut short, and the endpoint had answered none", cut, len(clients))
	}
	isSilent.Store(false)
	close(killed)
	w.areServed(clients)
	w.killedWhen("when a pod has its device", clients, func() bool { return !w.hasNoLink(clients[0]) })
	w.areServed(clients)
	established := w.forwarder.Logged("connection-established")
	w.killedWhen("when one is established", clients, func() bool { return w.forwarder.Logged("connection-established") > established })
	w.areServed(clients)
}

// killedWhen kills the forwarder when the Requests of all clients have come so far, and starts the next one. It returns how many
// were cut short.
func (w *world) killedWhen(what string, clients []*peer.Client, has func() bool) int {
	w.Helper()
	w.endpoint.Forget()
	ended := make(chan error, len(clients))
	for _, client := range clients {
		must(w, client.Link.Ready(w.within(peer.CallLimit)))
		go func() {
			_, err := client.Request(w.within(peer.CallLimit))
			ended <- err
		}()
	}
	w.eventually(what, has)
	must(w, w.forwarder.Kill())
	cut := 0
	for range clients {
		if err := <-ended; err != nil {
			cut++
			refused(w, err, codes.Unavailable)
		}
	}
	w.Logf("killed %s: %d of %d Requests were cut short", what, cut, len(clients))
	must(w, w.forwarder.Start())
	for _, client := range clients {
		w.redial(client)
	}
	return cut
}

// areServed tries until each client is, and closes what it got.
func (w *world) areServed(clients []*peer.Client) {
	w.Helper()
	for _, client := range clients {
		w.eventually("the client's next try is served", func() bool {
			_, err := client.Request(w.within(peer.CallLimit))
			return err == nil
		})
		w.linkOf(client)
		must(w, client.Close(w.within(peer.CallLimit)))
	}
	w.eventually("nothing is held", w.isIdle)
}

// isTransferred checks the first event of a new stream as the manager's monitor and the client's heal read it: the connection as
// it was, so that neither sees a change.
func (w *world) isTransferred(client *peer.Client, reply *nsm.Connection) {
	w.Helper()
	events, err := client.Events(w.within(node.Patience))
	must(w, err)
	event := w.next(events)
	if event.Type != nsm.ConnectionEventType_INITIAL_STATE_TRANSFER {
		w.Fatalf("the first event is %v", event)
	}
	event.Type = nsm.ConnectionEventType_UPDATE
	checkUpdate(w.T, event, reply)
	reported := event.Connections[reply.Path.PathSegments[2].Id]
	if reported.NetworkServiceEndpointName != reply.NetworkServiceEndpointName || len(reported.Path.PathSegments) != len(reply.Path.PathSegments) {
		w.Fatalf("the transfer reports %v of %v", reported, reply)
	}
}
