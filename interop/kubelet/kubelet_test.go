package kubelet

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	plugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"interop/identity"
	"interop/node"
	"interop/peer"
)

const (
	vfs   = 8
	other = "worker.domain/intel"
)

// world is a node with its forwarder; the manager is there only to register with.
type world struct {
	*testing.T
	kubelet   *Kubelet
	forwarder *node.Forwarder
}

func open(t *testing.T) *world {
	folder, err := os.MkdirTemp("", "interop-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	authority := identity.NewAuthority(time.Hour)
	agent := identity.NewAgent(authority, folder+"/agent.sock", "/forwarder")
	must(t, agent.Start())
	t.Cleanup(agent.Stop)
	hop := peer.Hop{Name: "nsmgr-1", Actor: authority.Actor("/nsmgr-1"), Lifetime: time.Hour}
	manager := &peer.Manager{Hop: hop, Socket: folder + "/nsm.sock", Expiry: time.Minute}
	must(t, manager.Start())
	t.Cleanup(manager.Stop)
	forwarder, err := node.Open(folder, node.Settings{VFs: vfs, Env: []string{"NSM_RESOURCE_POLL_TIMEOUT=1s"}})
	must(t, err)
	t.Cleanup(func() { must(t, forwarder.Close()) })
	kubelet := New(folder+"/plugins", folder+"/pods")
	must(t, kubelet.Start())
	t.Cleanup(func() { must(t, kubelet.Stop()) })
	must(t, forwarder.Start())
	w := &world{t, kubelet, forwarder}
	w.lists(vfs, vfs)
	return w
}

// lists waits until kubelet knows so many healthy devices of the two resources.
func (w *world) lists(first, second int) {
	w.Helper()
	for end := time.Now().Add(registrationLimit); ; time.Sleep(20 * time.Millisecond) {
		has, hasOther := len(w.kubelet.Healthy(node.Resource)), len(w.kubelet.Healthy(other))
		if has == first && hasOther == second {
			return
		}
		if time.Now().After(end) {
			w.Fatalf("kubelet knows %d and %d healthy devices, and not %d and %d", has, hasOther, first, second)
		}
	}
}

func TestDevicesFromRegistrationToThePodsEnd(t *testing.T) {
	w := open(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	all := w.kubelet.Healthy(node.Resource)
	preferred, err := w.kubelet.Prefer(ctx, node.Resource, all, all[5:6], 2)
	must(t, err)
	if len(preferred) != 2 || !slices.Contains(preferred, all[5]) || preferred[0] == preferred[1] {
		t.Fatalf("of two with %s, preferred are %v", all[5], preferred)
	}
	envs, ids, err := w.kubelet.Admit(ctx, "pod-1", node.Resource, 2)
	must(t, err)
	if named := envs["NSM_SRIOV_TOKENS_"+node.Resource]; len(ids) != 2 || named != strings.Join(ids, ",") {
		t.Fatalf("%v were allocated, and the environment is %v", ids, envs)
	}
	// A function that one resource has given out cannot be the other's.
	w.lists(vfs, vfs-2)

	before := w.kubelet.Connected()
	must(t, w.kubelet.Stop())
	must(t, w.kubelet.Start())
	w.lists(vfs, vfs-2)
	if w.kubelet.Connected() < before+2 || !slices.Equal(sorted(w.kubelet.Healthy(node.Resource)), sorted(all)) {
		t.Fatal("after kubelet's restart the devices are others")
	}

	must(t, w.forwarder.Stop())
	must(t, w.forwarder.Start())
	w.lists(vfs, vfs-2)
	if !slices.Equal(sorted(w.kubelet.Healthy(node.Resource)), sorted(all)) {
		t.Fatal("after the forwarder's restart the devices are others")
	}

	w.kubelet.End("pod-1")
	w.lists(vfs, vfs)
}

func TestAllocateRefusesWhatIsNotThere(t *testing.T) {
	w := open(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ask := &plugin.AllocateRequest{ContainerRequests: []*plugin.ContainerAllocateRequest{{DevicesIds: []string{"no-such-device"}}}}
	if _, err := w.kubelet.plugins[node.Resource].API().Allocate(ctx, ask); err == nil {
		t.Fatal("a device that does not exist was allocated")
	}
	_, _, err := w.kubelet.Admit(ctx, "pod-1", node.Resource, vfs)
	must(t, err)
	w.lists(vfs, 0)
}

func sorted(ids []string) []string { return slices.Sorted(slices.Values(ids)) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
