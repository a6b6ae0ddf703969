package scenario

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"interop/peer"
)

// Rotations, a new root, the loss of the old one and an agent that restarts, all while calls and new connections go on.
func TestRotationsUnderLoad(t *testing.T) {
	w := open(t, options{svidLifetime: 8 * time.Second})
	client := w.newClient(longTokens)
	w.request(client)
	served := w.agent.Served()
	done, ended := context.WithCancel(context.Background())
	failures := make(chan error, 1)
	calls := 0
	go func() {
		defer close(failures)
		for ; done.Err() == nil; calls++ {
			if err := callAnew(w, client); err != nil {
				failures <- err
				return
			}
		}
	}()
	for _, step := range []func(){w.authority.Rotate, w.authority.AddRoot, w.authority.Rotate, w.authority.DropOldRoots, w.restartAgent, w.authority.Rotate} {
		time.Sleep(1500 * time.Millisecond)
		step()
	}
	time.Sleep(1500 * time.Millisecond)
	ended()
	err := <-failures
	must(t, err)
	if given := w.agent.Served() - served; given < 6 {
		t.Fatalf("the forwarder took only %d new SVIDs", given)
	}
	t.Logf("%d calls, each on a new connection, over %d SVIDs", calls, w.agent.Served()-served)
	w.redial(client)
	must(t, client.Close(w.within(peer.CallLimit)))
}

// callAnew makes a handshake of its own, which meets the SVID and the bundle of now.
func callAnew(w *world, client *peer.Client) error {
	link, err := peer.Dial(w.manager.Actor, w.manager.Forwarder(), longTokens)
	if err != nil {
		return err
	}
	defer link.Close()
	client.Link = link
	before, err := w.manager.Actor.GetX509SVID()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), peer.CallLimit)
	defer cancel()
	_, err = client.Request(ctx)
	if after, _ := w.manager.Actor.GetX509SVID(); after != before && status.Code(err) == codes.PermissionDenied {
		return nil // the manager's own SVID was renewed between its handshake and its token, which every peer refuses
	}
	return err
}

func (w *world) restartAgent() {
	w.agent.Stop()
	time.Sleep(500 * time.Millisecond)
	must(w, w.agent.Start())
}

func TestForwarderWaitsForItsAgent(t *testing.T) {
	w := open(t, options{})
	must(t, w.forwarder.Stop())
	w.agent.Stop()
	time.AfterFunc(time.Second, func() { _ = w.agent.Start() })
	must(t, w.forwarder.Start())
	w.request(w.newClient(longTokens))
}
