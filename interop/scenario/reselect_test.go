package scenario

import (
	"testing"

	"interop/node"
	"interop/nsm"
	"interop/peer"
)

// A client may want another endpoint although its own is well: the old one is closed first, and the path's ids stay.
func TestReselectFromALivingEndpoint(t *testing.T) {
	w := open(t, options{})
	client := w.newClient(longTokens)
	first := w.request(client)
	second := w.newEndpoint("nse-2", w.folder+"/nse-2.sock")
	second.Context.IpContext.SrcIpAddrs = []string{"172.16.2.2/32"}
	w.manager.Withdraw("nse-1")
	events, err := client.Events(w.within(node.Patience))
	must(t, err)
	w.next(events) // what is established

	client.Change = reselect
	reply := w.request(client)
	if reply.NetworkServiceEndpointName != "nse-2" || reply.State != nsm.State_UP {
		t.Fatalf("reselected %s in state %s", reply.NetworkServiceEndpointName, reply.State)
	}
	for _, index := range []int{0, 1, 2} {
		if reply.Path.PathSegments[index].Id != first.Path.PathSegments[index].Id {
			t.Fatalf("the path was %v and is %v", first.Path, reply.Path)
		}
	}
	if closes := w.endpoint.Closes(); len(closes) != 1 || closes[0].Path.PathSegments[3].Id != first.Path.PathSegments[3].Id {
		t.Fatalf("the endpoint that was left heard %v", closes)
	}
	if link := w.linkOf(client); len(link.Addresses) != 1 || link.Addresses[0] != "172.16.2.2/32" {
		t.Fatalf("the device in the pod is %+v", link)
	}
	// Who watches sees the old one end before the new one begins.
	if event := w.next(events); event.Type != nsm.ConnectionEventType_DELETE {
		t.Fatalf("the first event of a reselection is %v", event)
	}
	checkUpdate(t, w.next(events), reply)
	w.holds(1)
	client.Change = nil
	w.request(client)
	must(t, client.Close(w.within(peer.CallLimit)))
	if len(second.Closes()) != 1 || !w.isIdle() || !w.hasNoLink(client) {
		t.Fatal("the connection outlived its Close")
	}
}

// Heal's own order: Close first, which the dead endpoint cannot hear, then the Request.
func TestHealAfterTheEndpointsDeath(t *testing.T) {
	w := open(t, options{})
	client := w.newClient(longTokens)
	w.request(client)
	watch, err := client.Watch(w.within(node.Patience))
	must(t, err)
	w.newEndpoint("nse-2", w.folder+"/nse-2.sock")
	w.endpoint.Stop()
	must(t, watch.WaitDown())
	reply, err := client.Reselect(w.within(peer.CallLimit))
	must(t, err)
	if reply.NetworkServiceEndpointName != "nse-2" {
		t.Fatalf("reselected %s", reply.NetworkServiceEndpointName)
	}
	w.linkOf(client)
	w.holds(1)
	must(t, client.Close(w.within(peer.CallLimit)))
	if !w.isIdle() {
		t.Fatal("the connection outlived its Close")
	}
}

// With no other endpoint the reselection fails as a first Request would, and leaves nothing; the next one is served.
func TestReselectWithoutAnotherEndpoint(t *testing.T) {
	w := open(t, options{})
	client := w.newClient(longTokens)
	w.request(client)
	w.endpoint.Stop()
	client.Change = reselect
	if _, err := client.Request(w.within(peer.CallLimit)); err == nil {
		t.Fatal("an endpoint was found where there is none")
	}
	if w.eventually("nothing is held", w.isIdle); !w.hasNoLink(client) {
		t.Fatal("the device stayed in the pod")
	}
	w.newEndpoint("nse-2", w.folder+"/nse-2.sock")
	if reply := w.request(client); reply.NetworkServiceEndpointName != "nse-2" {
		t.Fatalf("reselected %s", reply.NetworkServiceEndpointName)
	}
}

// On purpose not as the original, which ends the connection before it checks who calls: docs/interop.md.
func TestReselectUnderAnothersIdEndsNothing(t *testing.T) {
	w := open(t, options{})
	client := w.newClient(longTokens)
	w.request(client)
	thief := w.clientOn(client.Link, longTokens)
	link, err := peer.Dial(w.authority.Actor("/thief"), w.manager.Forwarder(), longTokens)
	must(t, err)
	defer link.Close()
	thief.Link, thief.Manager = link, w.hop("thief", longTokens)
	thief.Change = func(request *nsm.NetworkServiceRequest) {
		reselect(request)
		victim := client.Connection().Path.PathSegments[2]
		request.Connection.Path.PathSegments = append(request.Connection.Path.PathSegments, victim)
	}
	// What its id leads to is the caller's own, and new.
	_, err = thief.Request(w.within(peer.CallLimit))
	must(t, err)
	w.linkOf(thief)
	w.linkOf(client)
	w.holds(2)
	if closes := w.endpoint.Closes(); len(closes) != 0 {
		t.Fatalf("another client has closed %v", closes)
	}
	w.request(client)
}

// reselect is what the default of a client's begin makes of its request.
func reselect(request *nsm.NetworkServiceRequest) {
	request.Connection.State = nsm.State_RESELECT_REQUESTED
	request.Connection.Mechanism, request.Connection.NetworkServiceEndpointName = nil, ""
}

func (w *world) holds(want int) {
	w.Helper()
	if held, err := w.forwarder.Count("held"); err != nil || held != want {
		w.Fatalf("%d functions are held, and not %d: %v", held, want, err)
	}
}
