package scenario

import (
	"testing"
	"time"

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
	watch, err := client.Watch(w.within(time.Minute))
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
	cut := 0
	const rounds = 4
	for round := range rounds {
		ended := make(chan error, len(clients))
		for _, client := range clients {
			must(t, client.Link.Ready(w.within(peer.CallLimit)))
			go func() {
				_, err := client.Request(w.within(peer.CallLimit))
				ended <- err
			}()
		}
		time.Sleep(time.Duration(5+150*round) * time.Millisecond)
		must(t, w.forwarder.Kill())
		for range clients {
			if err := <-ended; err != nil {
				cut++
				refused(t, err, codes.Unavailable)
			}
		}
		must(t, w.forwarder.Start())
		for _, client := range clients {
			w.redial(client)
			w.eventually("the client's next try is served", 10*time.Second, func() bool {
				_, err := client.Request(w.within(peer.CallLimit))
				return err == nil
			})
			w.linkOf(client)
			must(t, client.Close(w.within(peer.CallLimit)))
		}
		w.eventually("nothing is held", 5*time.Second, w.isIdle)
	}
	t.Logf("%d of %d Requests were cut short", cut, rounds*len(clients))
	if cut == 0 {
		t.Fatal("no kill met a Request")
	}
}

// isTransferred checks the first event of a new stream as the manager's monitor and the client's heal read it: the connection as
// it was, so that neither sees a change.
func (w *world) isTransferred(client *peer.Client, reply *nsm.Connection) {
	w.Helper()
	events, err := client.Events(w.within(time.Minute))
	must(w, err)
	event := <-events
	if event == nil || event.Type != nsm.ConnectionEventType_INITIAL_STATE_TRANSFER {
		w.Fatalf("the first event is %v", event)
	}
	event.Type = nsm.ConnectionEventType_UPDATE
	checkUpdate(w.T, event, reply)
	told := event.Connections[reply.Path.PathSegments[2].Id]
	if told.NetworkServiceEndpointName != reply.NetworkServiceEndpointName || len(told.Path.PathSegments) != len(reply.Path.PathSegments) {
		w.Fatalf("the transfer tells %v of %v", told, reply)
	}
}
