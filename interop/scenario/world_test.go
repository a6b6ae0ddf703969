// Package scenario plays Go peers against the forwarder's process. Run it with npm run interop.
package scenario

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"interop/identity"
	"interop/node"
	"interop/nsm"
	"interop/peer"
)

const (
	service    = "interop-service"
	longTokens = time.Hour
	mac        = "0a:55:44:33:22:11"
)

// world is one node with everything on it, and the forwarder started.
type world struct {
	*testing.T
	folder    string
	authority *identity.Authority
	agent     *identity.Agent
	forwarder *node.Forwarder
	kubelet   *node.Kubelet
	manager   *peer.Manager
	endpoint  *peer.Endpoint
	pods      int
}

type options struct {
	node.Settings
	registrationExpiry time.Duration
}

func open(t *testing.T, with options) *world {
	t.Parallel() // most of the time they wait
	if with.registrationExpiry == 0 {
		with.registrationExpiry = time.Hour
	}
	folder, err := os.MkdirTemp("", "interop-") // short: a socket path has at most 107 bytes
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	w := &world{T: t, folder: folder, authority: identity.NewAuthority(24 * time.Hour)}
	w.agent = identity.NewAgent(w.authority, folder+"/agent.sock", "/forwarder")
	must(t, w.agent.Start())
	t.Cleanup(w.agent.Stop)
	w.manager = &peer.Manager{Hop: w.hop("nsmgr-1", longTokens), Socket: folder + "/nsm.sock", Expiry: with.registrationExpiry}
	must(t, w.manager.Start())
	t.Cleanup(w.manager.Stop)
	w.endpoint = w.newEndpoint("nse-1", folder+"/nse-1.sock")
	w.forwarder, err = node.Open(folder, with.Settings)
	must(t, err)
	t.Cleanup(func() { w.closeForwarder() })
	w.kubelet, err = node.StartKubelet(folder)
	must(t, err)
	t.Cleanup(w.kubelet.Stop)
	must(t, w.forwarder.Start())
	return w
}

// closeForwarder reads the log before the folder goes: what the forwarder did not expect is a fault of one side.
func (w *world) closeForwarder() {
	if err := w.forwarder.Close(); err != nil {
		w.Errorf("the forwarder's process ended badly: %v", err)
	}
	log, _ := os.ReadFile(w.folder + "/forwarder.log")
	if w.Failed() {
		kept := fmt.Sprintf("%s/interop-%s.log", os.TempDir(), w.Name())
		_ = os.WriteFile(kept, log, 0o600)
		w.Logf("the forwarder's log is kept in %s", kept)
	}
}

func (w *world) hop(name string, lifetime time.Duration) peer.Hop {
	return peer.Hop{Name: name, Actor: w.authority.Actor("/" + name), Lifetime: lifetime}
}

// newEndpoint starts one and has it found.
func (w *world) newEndpoint(name, where string) *peer.Endpoint {
	endpoint := &peer.Endpoint{Hop: w.hop(name, longTokens), Context: &nsm.ConnectionContext{
		IpContext: &nsm.IPContext{
			SrcIpAddrs: []string{"172.16.1.2/32"},
			DstIpAddrs: []string{"172.16.1.1/32"},
			SrcRoutes:  []*nsm.Route{{Prefix: "172.16.1.1/32"}},
		},
		EthernetContext: &nsm.EthernetContext{SrcMac: mac},
		MTU:             1400,
	}}
	must(w, endpoint.Start(where))
	w.Cleanup(endpoint.Stop)
	must(w, w.manager.Offer(name, service, endpoint.URL))
	return endpoint
}

// newClient is a new pod with a device, and its client with a connection of its own to the forwarder.
func (w *world) newClient(lifetime time.Duration) *peer.Client {
	link, err := peer.Dial(w.manager.Actor, w.manager.Forwarder(), lifetime)
	must(w, err)
	w.Cleanup(func() { _ = link.Close() })
	return w.clientOn(link, lifetime)
}

// clientOn shares a connection to the forwarder with others.
func (w *world) clientOn(link *peer.Link, lifetime time.Duration) *peer.Client {
	w.pods++
	name := fmt.Sprintf("pod-%d", w.pods)
	ctx, cancel := context.WithTimeout(context.Background(), node.Patience)
	defer cancel()
	token, err := w.kubelet.Admit(ctx, name)
	must(w, err)
	netns, err := node.NewNetns()
	must(w, err)
	w.Cleanup(netns.Close)
	manager := w.manager.Hop
	manager.Lifetime = lifetime
	return &peer.Client{Link: link, App: w.hop(name, lifetime), Manager: manager, Service: service, Namespace: netns.File, TokenID: token}
}

// redial gives the client a connection to the forwarder that is registered now.
func (w *world) redial(client *peer.Client) {
	w.Helper()
	link, err := peer.Dial(w.manager.Actor, w.manager.Forwarder(), longTokens)
	must(w, err)
	w.Cleanup(func() { _ = link.Close() })
	client.Link = link
}

// linkOf is the device in the client's namespace.
func (w *world) linkOf(client *peer.Client) node.Link {
	w.Helper()
	link, err := (&node.Netns{File: client.Namespace}).Link("nsm-1")
	must(w, err)
	return link
}

func (w *world) hasNoLink(client *peer.Client) bool {
	names, err := (&node.Netns{File: client.Namespace}).Links()
	must(w, err)
	return len(names) == 0
}

// request fails the test when it fails.
func (w *world) request(client *peer.Client) *nsm.Connection {
	w.Helper()
	reply, err := client.Request(w.within(peer.CallLimit))
	must(w, err)
	return reply
}

func (w *world) within(limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	w.Cleanup(cancel)
	return ctx
}

// isIdle holds when no connection and no VF is held.
func (w *world) isIdle() bool {
	connections, err := w.forwarder.Count("connections")
	must(w, err)
	held, err := w.forwarder.Count("held")
	must(w, err)
	return connections == 0 && held == 0
}

// eventually waits for what peers do by themselves.
func (w *world) eventually(what string, is func() bool) {
	w.Helper()
	if !node.Eventually(is) {
		w.Fatalf("not within %s: %s", node.Patience, what)
	}
}

// atSomePace tries longer and longer times until the machine keeps up with one: where certificates and tokens of another process
// run out, real time passes, and no busy machine can be held to short ones. False says that it did not keep up.
func (w *world) atSomePace(shortest time.Duration, play func(time.Duration) bool) {
	w.Helper()
	const longest = 5 // doublings
	for pace, tries := shortest, 0; !play(pace); pace *= 2 {
		if tries++; tries > longest {
			w.Fatalf("the machine does not keep up with %s", pace)
		}
		w.Logf("the machine does not keep up with %s", pace)
	}
}

// next is the stream's next event.
func (w *world) next(events <-chan *nsm.ConnectionEvent) *nsm.ConnectionEvent {
	w.Helper()
	event, isOpen := <-events
	if !isOpen {
		w.Fatal("the stream ended before the event came")
	}
	return event
}

// until passes over events until one is so.
func (w *world) until(events <-chan *nsm.ConnectionEvent, is func(*nsm.ConnectionEvent) bool) {
	w.Helper()
	for !is(w.next(events)) {
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused checks the code of a refusal.
func refused(t testing.TB, err error, allowed ...codes.Code) {
	t.Helper()
	if code := status.Code(err); err == nil || !slices.Contains(allowed, code) {
		t.Fatalf("want a refusal with %v, and it is %v", allowed, err)
	}
}
