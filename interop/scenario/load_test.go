package scenario

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"interop/node"
	"interop/nsm"
	"interop/peer"
)

const (
	manyLinks = 64
	manyCalls = 1000
)

func TestThousandConcurrentRequestsOnManyConnections(t *testing.T) {
	w := open(t, options{Settings: node.Settings{VFs: manyLinks}})
	w.endpoint.Context.EthernetContext = nil // every pod has an address of its own
	clients := make([]*peer.Client, manyLinks)
	for i := range clients {
		clients[i] = w.newClient(longTokens)
	}
	established := clients[:manyLinks/2]
	for _, client := range established {
		w.request(client)
	}
	start := time.Now()
	failures := make(chan error, manyCalls)
	var all sync.WaitGroup
	var retries atomic.Int32
	for call := range manyCalls {
		client := established[call%len(established)]
		if call >= len(established) && call < manyLinks {
			client = clients[call] // its first; as from any manager, one at a time
		}
		all.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 3*node.Patience)
			defer cancel()
			_, err := client.Request(ctx)
			for status.Code(err) == codes.DeadlineExceeded && ctx.Err() == nil { // the forwarder's own limit, on a busy machine
				retries.Add(1)
				_, err = client.Request(ctx)
			}
			if err != nil {
				failures <- err
			}
		})
	}
	all.Wait()
	took := time.Since(start)
	close(failures)
	for err := range failures {
		t.Fatalf("%d more of %d failed: %v", len(failures), manyCalls, err)
	}
	for _, client := range clients {
		w.linkOf(client)
	}
	count, err := w.forwarder.Count("held")
	must(t, err)
	if count != manyLinks {
		t.Fatalf("%d functions are held by %d pods", count, manyLinks)
	}
	t.Logf("%d Requests and refreshes at once on %d connections: %s, %d of them tried again", manyCalls, manyLinks, took.Round(time.Millisecond), retries.Load())
	for _, client := range clients {
		must(t, client.Close(w.within(peer.CallLimit)))
	}
	if !w.isIdle() {
		t.Fatal("something is held after every Close")
	}
}

// Whatever a call that was given up has left, the client's next try takes it over.
func TestCancelledAndDroppedCallsAreTakenOver(t *testing.T) {
	w := open(t, options{})
	client := w.newClient(longTokens)
	for round := range 20 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(round)*2*time.Millisecond)
		_, err := client.Request(ctx)
		cancel()
		if err != nil {
			// Unknown: it was too late to send it. ResourceExhausted: what the one before has begun is still being undone.
			refused(t, err, codes.DeadlineExceeded, codes.Unknown, codes.ResourceExhausted)
		}
		client.Fail()
	}
	for round := range 10 {
		link, err := peer.Dial(w.manager.Actor, w.manager.Forwarder(), longTokens)
		must(t, err)
		client.Link = link
		drop := time.AfterFunc(time.Duration(10+round*4)*time.Millisecond, link.Drop)
		if _, err = client.Request(w.within(peer.CallLimit)); err != nil {
			refused(t, err, codes.Unavailable, codes.ResourceExhausted)
		}
		drop.Stop()
		_ = link.Close()
		client.Fail()
	}
	client.Link = w.newClient(longTokens).Link
	w.eventually("a try of a client that tries again is served", func() bool {
		_, err := client.Request(w.within(peer.CallLimit))
		return err == nil
	})
	w.linkOf(client)
	must(t, client.Close(w.within(peer.CallLimit)))
	w.eventually("nothing is held", func() bool { return w.isIdle() && w.hasNoLink(client) })
}

func TestMessageLimitsAndKeepAlives(t *testing.T) {
	w := open(t, options{})
	client := w.newClient(longTokens)
	client.Change = func(request *nsm.NetworkServiceRequest) {
		request.Connection.Labels["large"] = strings.Repeat("x", 5<<20) // grpc-go takes 4 MiB and sends whatever
	}
	_, err := client.Request(w.within(peer.CallLimit))
	refused(t, err, codes.ResourceExhausted, codes.InvalidArgument)
	client.Change = nil
	w.request(client)
	// The quickest pings that grpc-go makes; a server of grpc-go with its defaults would end such a connection.
	pings, err := peer.CountKeepAlives(w.folder + "/channelz.sock")
	must(t, err)
	defer pings.Stop()
	kept, err := peer.Dial(w.manager.Actor, w.manager.Forwarder(), longTokens, grpc.WithKeepaliveParams(keepalive.ClientParameters{
		Time: 10 * time.Second, Timeout: node.Patience, PermitWithoutStream: true,
	}))
	must(t, err)
	defer kept.Close()
	client.Link = kept
	w.request(client)
	w.eventually("two pings are sent", func() bool {
		sent, err := pings.Sent(w.within(peer.CallLimit))
		must(t, err)
		return sent >= 2
	})
	w.request(client)
	if dials := kept.Dials(); dials != 1 {
		t.Fatalf("the connection was ended: it was dialled %d times", dials)
	}
}

// A monitor that does not read must hold up no other, and those that do read hear everything. What waits for it is bounded: of a
// thousand events, each of many KiB, the forwarder keeps the last few hundred at most.
func TestSlowMonitorStream(t *testing.T) {
	w := open(t, options{})
	quick := w.newClient(longTokens)
	quick.Labels = map[string]string{"serviceDomain": "worker.domain"}
	for i := range noteLabels {
		quick.Labels[fmt.Sprintf("note-%d", i)] = strings.Repeat("n", noteBytes)
	}
	events, err := quick.Events(w.within(5 * time.Minute))
	must(t, err)
	w.next(events)
	w.refresh(quick, events, 100) // what it takes without a slow reader
	before := w.live()
	slow, err := nsm.NewMonitorConnectionClient(w.newClient(longTokens).Link).
		MonitorConnections(w.within(3*node.Patience), &nsm.MonitorScopeSelector{})
	must(t, err)
	const rounds = 1000
	w.refresh(quick, events, rounds)
	grown := w.live() - before
	const sent, kept = rounds * eventBytes, 256 * eventBytes
	t.Logf("%d events, %d KiB, to a reader that does not read: %d KiB more in use", rounds, sent>>10, grown>>10)
	if grown > 2*kept {
		t.Fatalf("the forwarder keeps %d KiB for it, and the last 256 events are %d", grown>>10, kept>>10)
	}
	must(t, quick.Close(w.within(peer.CallLimit)))
	for read := 0; ; read++ { // it comes to the same end, and has missed what lay between
		event, err := slow.Recv()
		must(t, err)
		if event.Type == nsm.ConnectionEventType_DELETE {
			if read > rounds/2 {
				t.Fatalf("the slow reader was sent %d events: nothing was left out", read)
			}
			return
		}
	}
}

// Labels make each event a large one: what the kernel and the windows of the connection take is little beside them.
const (
	noteLabels, noteBytes = 8, 4000
	eventBytes            = noteLabels * noteBytes
)

// refresh does so many and waits until the reader has heard of each.
func (w *world) refresh(client *peer.Client, events <-chan *nsm.ConnectionEvent, rounds int) {
	w.Helper()
	for range rounds {
		w.request(client)
	}
	for heard := range rounds {
		select {
		case _, isOpen := <-events:
			if !isOpen {
				w.Fatalf("the quick reader's stream ended after %d of %d events", heard, rounds)
			}
		case <-time.After(node.Patience):
			w.Fatalf("the quick reader heard %d of %d events", heard, rounds)
		}
	}
}

// Many rounds leave neither descriptors nor namespaces; memory is logged, and grows only so far.
func TestManyRequestsAndCloses(t *testing.T) {
	rounds := 500
	if text := os.Getenv("INTEROP_ROUNDS"); text != "" {
		rounds, _ = strconv.Atoi(text)
	}
	w := open(t, options{})
	const pods = 8
	clients := make([]*peer.Client, pods)
	link := w.newClient(longTokens).Link
	for i := range pods - 1 {
		clients[i] = w.clientOn(link, longTokens)
	}
	clients = clients[:pods-1]
	play := func(count int) {
		for range count / len(clients) {
			var all sync.WaitGroup
			for _, client := range clients {
				all.Go(func() {
					if err := requestAndClose(client); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if t.Failed() {
				t.FailNow()
			}
		}
		w.endpoint.Forget()
		must(t, w.forwarder.Command("forget", nil))
	}
	const parts = 5
	live := 0
	var seen []node.Usage
	var resident []string
	for range parts {
		play(rounds / parts)
		w.eventually("everything is let go of", w.isIdle)
		if len(seen) == 0 {
			live = w.live()
		}
		seen = append(seen, usage(t, w))
		resident = append(resident, fmt.Sprint(seen[len(seen)-1].ResidentKiB))
	}
	before, after := seen[0], seen[parts-1]
	// A file that is being read, or a query of kubelet, has a descriptor for a moment.
	isAsBefore := func() bool {
		after = usage(t, w)
		return after.Descriptors <= before.Descriptors && after.Namespaces <= before.Namespaces
	}
	if !node.Eventually(isAsBefore) {
		t.Fatalf("descriptors or namespaces are left: %+v, and there were %+v", after, before)
	}
	t.Logf("%d Request and Close: descriptors %+d, namespaces %+d, %+d KiB in use since the first fifth; KiB resident after each fifth: %s",
		rounds, after.Descriptors-before.Descriptors, after.Namespaces-before.Namespaces, (w.live()-live)>>10, strings.Join(resident, ", "))
}

func requestAndClose(client *peer.Client) error {
	ctx, cancel := context.WithTimeout(context.Background(), node.Patience)
	defer cancel()
	if _, err := client.Request(ctx); err != nil {
		return fmt.Errorf("Request: %w", err)
	}
	if err := client.Close(ctx); err != nil {
		return fmt.Errorf("Close: %w", err)
	}
	return nil
}

// live is what the forwarder's process has in use.
func (w *world) live() int {
	w.Helper()
	bytes, err := w.forwarder.Count("live")
	must(w, err)
	return bytes
}

func usage(t *testing.T, w *world) node.Usage {
	t.Helper()
	found, err := w.forwarder.Usage()
	must(t, err)
	return found
}
