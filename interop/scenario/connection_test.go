package scenario

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"interop/node"
	"interop/nsm"
	"interop/peer"
)

func TestConnectionFromRequestToClose(t *testing.T) {
	w := open(t, options{})
	client := w.newClient(longTokens)
	events, err := client.Events(w.within(node.Patience))
	must(t, err)
	if event := w.next(events); event.Type != nsm.ConnectionEventType_INITIAL_STATE_TRANSFER || len(event.Connections) != 0 {
		t.Fatalf("the first event of an idle forwarder is %v", event)
	}
	first := w.request(client)
	link := w.linkOf(client)
	if link.MAC != mac || link.MTU != 1400 || !link.IsUp || len(link.Addresses) != 1 || link.Addresses[0] != "172.16.1.2/32" {
		t.Fatalf("the device in the pod is %+v", link)
	}
	if first.NetworkServiceEndpointName != "nse-1" || first.Payload != "ETHERNET" || first.Mechanism.Type != "KERNEL" {
		t.Fatalf("the reply is %v", first)
	}
	checkOffer(t, w.endpoint.Requests()[0], "LOCAL")
	checkUpdate(t, w.next(events), first)
	second := w.request(client)
	for i, segment := range second.Path.PathSegments {
		if segment.Id != first.Path.PathSegments[i].Id {
			t.Fatalf("the refresh has moved to another connection: %v, and was %v", second.Path, first.Path)
		}
	}
	if again := w.endpoint.Requests()[1].Connection; again.Mechanism.GetType() != "NOOP" || again.NetworkServiceEndpointName != "nse-1" {
		t.Fatalf("the endpoint hears of the refresh as %v", again)
	}
	must(t, client.Close(w.within(peer.CallLimit)))
	w.until(events, func(event *nsm.ConnectionEvent) bool { return event.Type == nsm.ConnectionEventType_DELETE })
	if closes := w.endpoint.Closes(); len(closes) != 1 || !w.hasNoLink(client) || !w.isIdle() {
		t.Fatalf("after Close: %d closes at the endpoint, without a link %v, idle %v", len(closes), w.hasNoLink(client), w.isIdle())
	}
}

// checkOffer is what is requested of the endpoint of a new connection: nsm-protocol §9.1.
func checkOffer(t *testing.T, request *nsm.NetworkServiceRequest, class string) {
	t.Helper()
	offers := request.MechanismPreferences
	path := request.Connection.Path
	if request.Connection.Mechanism != nil || len(offers) != 1 || offers[0].Type != "NOOP" || offers[0].Cls != class {
		t.Fatalf("the endpoint is offered %v, with %v", offers, request.Connection.Mechanism)
	}
	if path.Index != 2 || len(path.PathSegments) != 3 || path.PathSegments[2].Name != node.ForwarderName {
		t.Fatalf("the endpoint sees the path %v", path)
	}
}

// checkUpdate is what the event must say for a manager's monitor and a client's heal to follow: the forwarder's own id and index.
func checkUpdate(t *testing.T, event *nsm.ConnectionEvent, reply *nsm.Connection) {
	t.Helper()
	own := reply.Path.PathSegments[2].Id
	reported := event.Connections[own]
	if event.Type != nsm.ConnectionEventType_UPDATE || reported == nil || reported.Id != own || reported.Path.Index != 2 || reported.State != nsm.State_UP {
		t.Fatalf("the event is %v", event)
	}
	if reported.Path.PathSegments[1].Id != reply.Id {
		t.Fatalf("the event's path does not lead to the caller: %v", reported.Path)
	}
}

func TestRefreshOverSeveralTokenLifetimesAndExpiry(t *testing.T) {
	w := open(t, options{})
	w.atSomePace(3*time.Second, func(lifetime time.Duration) bool {
		client := w.newClient(lifetime)
		before := len(w.endpoint.Closes())
		if !w.isRefreshedInTime(client, lifetime) {
			_ = client.Close(w.within(peer.CallLimit))
			w.eventually("nothing is left of the client that came too late", w.isIdle)
			return false
		}
		if closes := w.endpoint.Closes(); len(closes) != before {
			t.Fatalf("the forwarder has closed it: %v", closes)
		}
		w.linkOf(client)
		w.eventually("the connection that is not refreshed is taken down", func() bool {
			return w.hasNoLink(client) && w.isIdle() && len(w.endpoint.Closes()) == before+1
		})
		return true
	})
}

// isRefreshedInTime refreshes over three lifetimes of the client's tokens. False: one came too late, or took too long.
func (w *world) isRefreshedInTime(client *peer.Client, lifetime time.Duration) bool {
	limit := lifetime / 6
	// A token's time has whole seconds, and what a caller allows for a call is taken off it.
	allowed := lifetime - time.Second - limit
	last := time.Now()
	for start := last; time.Since(start) < 3*lifetime; time.Sleep(lifetime / 4) {
		signed := time.Now()
		_, err := client.Request(w.within(limit))
		if time.Since(last) > allowed || status.Code(err) == codes.DeadlineExceeded {
			return false
		}
		must(w, err)
		last = signed
	}
	return time.Since(last) < allowed
}

func TestRegistrationIsRefreshedAndMadeAnew(t *testing.T) {
	w := open(t, options{})
	client := w.newClient(longTokens)
	w.request(client)
	before, lost := w.manager.Registrations(), w.forwarder.Logged("registration-lost")
	w.manager.Stop()
	w.eventually("the forwarder misses its manager", func() bool { return w.forwarder.Logged("registration-lost") > lost })
	const shortest = 4 * time.Second
	w.manager.ExpireAfter(shortest)
	must(t, w.manager.Start())
	w.registersAgain(before)
	w.request(client) // the new manager's first Request, with the old path, is a refresh
	w.atSomePace(shortest, func(expiry time.Duration) bool {
		w.manager.ExpireAfter(expiry)
		w.registersAgain(w.manager.Registrations())
		registered, expired := w.manager.Registrations(), w.manager.Expired()
		w.registersAgain(registered + 1)
		return w.manager.Expired() == expired
	})
	must(t, client.Close(w.within(peer.CallLimit)))
	must(t, w.forwarder.Stop())
	if w.manager.Forwarder() != "" {
		t.Fatal("a forwarder that was stopped is still registered")
	}
}

func (w *world) registersAgain(before int) {
	w.Helper()
	w.eventually("the forwarder registers again", func() bool { return w.manager.Registrations() > before })
}

func TestEndpointDeathAndReselect(t *testing.T) {
	w := open(t, options{})
	client := w.newClient(longTokens)
	w.request(client)
	events, err := client.Events(w.within(node.Patience))
	must(t, err)
	second := w.newEndpoint("nse-2", w.folder+"/nse-2.sock")
	second.Context.IpContext.SrcIpAddrs = []string{"172.16.2.2/32"}
	w.endpoint.Stop()
	w.until(events, isDown)
	// What the client's heal does: request another endpoint; the dead one is still listed.
	client.Change = func(request *nsm.NetworkServiceRequest) {
		request.Connection.State = nsm.State_RESELECT_REQUESTED
		request.Connection.Mechanism, request.Connection.NetworkServiceEndpointName = nil, ""
	}
	reply := w.request(client)
	if reply.NetworkServiceEndpointName != "nse-2" || reply.State != nsm.State_UP || len(second.Requests()) != 1 {
		t.Fatalf("reselected %s in state %s", reply.NetworkServiceEndpointName, reply.State)
	}
	if link := w.linkOf(client); len(link.Addresses) != 1 || link.Addresses[0] != "172.16.2.2/32" {
		t.Fatalf("the device in the pod is %+v", link)
	}
	client.Change = nil
	w.request(client)
	must(t, client.Close(w.within(peer.CallLimit)))
}

func isDown(event *nsm.ConnectionEvent) bool {
	for _, connection := range event.Connections {
		if connection.State == nsm.State_DOWN {
			return true
		}
	}
	return false
}

func TestEndpointReportsThatItIsDown(t *testing.T) {
	w := open(t, options{})
	client := w.newClient(longTokens)
	w.request(client)
	events, err := client.Events(w.within(node.Patience))
	must(t, err)
	w.endpoint.Down()
	w.until(events, isDown)
}

func TestForwarderRestartKeepsTheConnection(t *testing.T) {
	w := open(t, options{})
	client := w.newClient(longTokens)
	first := w.request(client)
	device := w.linkOf(client)
	events, err := client.Events(w.within(node.Patience))
	must(t, err)
	must(t, w.forwarder.Stop())
	for range events { // ends: a manager sees that its forwarder has gone
	}
	if w.linkOf(client).MAC != device.MAC {
		t.Fatal("the device did not outlive the forwarder")
	}
	must(t, w.forwarder.Start())
	w.redial(client)
	second := w.request(client)
	if second.Path.PathSegments[2].Id != first.Path.PathSegments[2].Id || !sameDevice(w.linkOf(client), device) {
		t.Fatalf("after the restart: %v with %+v", second.Path, w.linkOf(client))
	}
	must(t, client.Close(w.within(peer.CallLimit)))
	if !w.hasNoLink(client) || !w.isIdle() {
		t.Fatal("the connection outlived its Close")
	}
}

func sameDevice(a, b node.Link) bool {
	return a.Name == b.Name && a.MAC == b.MAC && len(a.Addresses) == len(b.Addresses)
}

func TestRemoteNextHop(t *testing.T) {
	w := open(t, options{})
	w.manager.Withdraw("nse-1")
	remote := w.newEndpoint("nse-remote", "tcp")
	client := w.newClient(longTokens)
	reply := w.request(client)
	checkOffer(t, remote.Requests()[0], "REMOTE")
	if reply.Mechanism.Cls != "LOCAL" || reply.Mechanism.Type != "KERNEL" {
		t.Fatalf("the next hop's mechanism was passed on to the caller: %v", reply.Mechanism)
	}
	w.linkOf(client)
	w.request(client)
	must(t, client.Close(w.within(peer.CallLimit)))
	if len(remote.Closes()) != 1 {
		t.Fatal("the next hop heard of no Close")
	}
}

func TestSecondCloseIsNoError(t *testing.T) {
	w := open(t, options{})
	client := w.newClient(longTokens)
	reply := w.request(client)
	must(t, client.Close(w.within(peer.CallLimit)))
	_, err := nsm.NewNetworkServiceClient(client.Link).Close(w.within(peer.CallLimit), proto.CloneOf(reply))
	must(t, err)
	if len(w.endpoint.Closes()) != 1 {
		t.Fatal("a Close of nothing was passed on")
	}
}
