package scenario

import (
	"testing"

	"google.golang.org/grpc/codes"

	"interop/node"
	"interop/nsm"
	"interop/peer"
)

// A manager's pod that is made again has another name and another SPIFFE ID. It continues with what the one before it made, and
// that one may no longer: docs/decisions/011. Then the first comes back, as after a rollout that was taken back.
func TestManagersInTurn(t *testing.T) {
	w := open(t, options{})
	client := w.newClient(longTokens)
	first := w.request(client)
	managers := []*peer.Manager{w.manager}
	for turn := range 3 {
		before := w.manager
		next := before
		if turn < 2 {
			next = w.newManager("nsmgr-" + []string{"2", "3"}[turn])
			managers = append(managers, next)
		} else {
			next = managers[0]
		}
		w.replaceManager(next)
		old := client.Link
		w.redial(client)
		client.MoveTo(next.Hop)
		events, err := client.Events(w.within(node.Patience))
		must(t, err)
		reply := w.request(client)
		if reply.Path.PathSegments[2].Id != first.Path.PathSegments[2].Id {
			t.Fatalf("another manager's first Request is no refresh: %v, and was %v", reply.Path, first.Path)
		}
		w.next(events) // what stood has not the new manager's name in its path
		checkUpdate(t, w.next(events), reply)
		w.isRefusedTo(before, old, client)
	}
	if closes := w.endpoint.Closes(); len(closes) != 0 {
		t.Fatalf("a change of managers has closed %v", closes)
	}
	w.linkOf(client)
	w.holds(1)
	must(t, client.Close(w.within(peer.CallLimit)))
	if !w.isIdle() || !w.hasNoLink(client) {
		t.Fatal("the connection outlived its Close")
	}
}

// Without a Request of its own, a new manager may still close what the one before it made.
func TestANewManagerClosesWhatTheOldOneMade(t *testing.T) {
	w := open(t, options{})
	client := w.newClient(longTokens)
	w.request(client)
	w.replaceManager(w.newManager("nsmgr-2"))
	w.redial(client)
	client.MoveTo(w.manager.Hop)
	must(t, client.Close(w.within(peer.CallLimit)))
	if len(w.endpoint.Closes()) != 1 || !w.isIdle() || !w.hasNoLink(client) {
		t.Fatal("the connection outlived its Close")
	}
}

// Two managers at once: only the one that we are registered with is this node's.
func TestASecondManagerBesideTheFirst(t *testing.T) {
	w := open(t, options{})
	client := w.newClient(longTokens)
	w.request(client)
	second := w.newManager("nsmgr-2")
	link, err := peer.Dial(second.Actor, w.manager.Forwarder(), longTokens)
	must(t, err)
	defer link.Close()
	w.isRefusedTo(second, link, client)
	// What it makes itself is its own, and not the first one's.
	own := w.clientOn(link, longTokens)
	own.Manager = second.Hop
	w.endpoint.Context.EthernetContext = nil
	w.request(own)
	w.isRefusedTo(w.manager, client.Link, own)
	must(t, own.Close(w.within(peer.CallLimit)))
	must(t, client.Close(w.within(peer.CallLimit)))
}

func (w *world) newManager(name string) *peer.Manager {
	return &peer.Manager{Hop: w.hop(name, longTokens), Socket: w.manager.Socket, Expiry: w.manager.Expiry}
}

// replaceManager stops the one that runs, and starts the next at its place; it returns when the forwarder is registered there.
func (w *world) replaceManager(next *peer.Manager) {
	w.Helper()
	w.manager.Stop()
	before := next.Registrations()
	must(w, next.Start())
	w.Cleanup(next.Stop)
	must(w, next.Offer("nse-1", service, w.endpoint.URL))
	w.manager = next
	w.registersAgain(before)
}

// isRefusedTo checks that this manager may neither refresh nor close the connection, and does not see it.
func (w *world) isRefusedTo(manager *peer.Manager, link *peer.Link, client *peer.Client) {
	w.Helper()
	other := &peer.Client{Link: link, App: client.App, Manager: manager.Hop, Service: client.Service, TokenID: client.TokenID}
	other.Adopt(client.Connection())
	other.MoveTo(manager.Hop)
	other.Preferences = []*nsm.Mechanism{client.Kernel()}
	_, err := other.Request(w.within(peer.CallLimit))
	refused(w, err, codes.PermissionDenied)
	refused(w, other.Close(w.within(peer.CallLimit)), codes.PermissionDenied)
	stream, err := nsm.NewMonitorConnectionClient(link).MonitorConnections(w.within(peer.CallLimit), &nsm.MonitorScopeSelector{})
	must(w, err)
	event, err := stream.Recv()
	must(w, err)
	if _, isSeen := event.Connections[client.Connection().Path.PathSegments[2].Id]; isSeen {
		w.Fatalf("%s sees %v", manager.Name, event)
	}
}
