package scenario

import (
	"context"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"interop/peer"
)

// Rotations, a new root, the loss of the old one and an agent that restarts, all while calls and new connections continue.
func TestRotationsUnderLoad(t *testing.T) {
	w := open(t, options{})
	client := w.newClient(longTokens)
	w.request(client)
	done, ended := context.WithCancel(context.Background())
	defer ended()
	failure := make(chan error, 1)
	var calls, isOver atomic.Int32
	go func() {
		defer isOver.Store(1)
		for done.Err() == nil {
			if err := callAnew(w, client); err != nil {
				failure <- err
				return
			}
			calls.Add(1)
		}
		failure <- nil
	}()
	goOn := func() {
		enough := calls.Load() + 3
		w.eventually("calls continue", func() bool { return calls.Load() >= enough || isOver.Load() == 1 })
	}
	steps := []func(){
		w.authority.Rotate, w.authority.PrepareRoot, w.authority.SignWithNewRoot, w.authority.DropOldRoots, w.restartAgent, w.authority.Rotate,
	}
	for _, step := range steps {
		goOn()
		rotated := w.forwarder.Logged("svid-rotated")
		step()
		w.eventually("the forwarder has a new SVID", func() bool { return w.forwarder.Logged("svid-rotated") > rotated })
	}
	goOn()
	ended()
	must(t, <-failure)
	t.Logf("%d calls, each on a new connection, over %d new SVIDs", calls.Load(), len(steps))
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
	lost := w.forwarder.Logged("workload-api-lost")
	w.agent.Stop()
	w.eventually("the forwarder misses its agent", func() bool { return w.forwarder.Logged("workload-api-lost") > lost })
	must(w, w.agent.Start())
}

func TestForwarderWaitsForItsAgent(t *testing.T) {
	w := open(t, options{})
	must(t, w.forwarder.Stop())
	w.agent.Stop()
	failed := w.forwarder.Logged("workload-api-failed")
	started := make(chan error, 1)
	go func() { started <- w.forwarder.Start() }()
	w.eventually("the forwarder finds no agent", func() bool { return w.forwarder.Logged("workload-api-failed") > failed })
	must(t, w.agent.Start())
	must(t, <-started)
	w.request(w.newClient(longTokens))
}
