package kubelet

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	core "k8s.io/api/core/v1"

	"interop/identity"
	"interop/node"
	"interop/nsm"
	"interop/peer"
)

// insideVariable is set in the mount namespace that the tests run in.
const insideVariable = "INTEROP_KUBELET_INSIDE"

// hide puts an empty folder in the place of this machine's kubelet: the device manager's own has a fixed path.
const hide = `mount -t tmpfs none /var/lib && exec "$0" "$@"`

func TestMain(m *testing.M) {
	node.RunContainer()
	if os.Getenv(insideVariable) != "" {
		os.Exit(m.Run())
	}
	program, err := os.Executable()
	if err != nil {
		panic(err)
	}
	again := exec.Command("unshare", append([]string{"--mount", "sh", "-c", hide, program}, os.Args[1:]...)...)
	again.Env = append(os.Environ(), insideVariable+"=1")
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := again.Run(); err != nil {
		os.Exit(1)
	}
}

const service = "interop-service"

// world is a node with its forwarder, a manager, and an endpoint for the clients that request a connection.
type world struct {
	*testing.T
	folder    string
	authority *identity.Authority
	manager   *peer.Manager
	kubelet   *Kubelet
	forwarder *node.Forwarder
}

func open(t *testing.T, policy string, settings node.Settings) *world {
	folder, err := os.MkdirTemp("", "interop-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	must(t, os.RemoveAll("/var/lib/kubelet"))
	authority := identity.NewAuthority(24 * time.Hour)
	agent := identity.NewAgent(authority, folder+"/agent.sock", "/forwarder")
	must(t, agent.Start())
	t.Cleanup(agent.Stop)
	hop := peer.Hop{Name: "nsmgr-1", Actor: authority.Actor("/nsmgr-1"), Lifetime: time.Hour}
	manager := &peer.Manager{Hop: hop, Socket: folder + "/nsm.sock", Expiry: time.Hour}
	must(t, manager.Start())
	t.Cleanup(manager.Stop)
	end := peer.Hop{Name: "nse-1", Actor: authority.Actor("/nse-1"), Lifetime: time.Hour}
	endpoint := &peer.Endpoint{Hop: end, Context: &nsm.ConnectionContext{}}
	must(t, endpoint.Start(folder+"/nse-1.sock"))
	t.Cleanup(endpoint.Stop)
	must(t, manager.Offer(endpoint.Name, service, endpoint.URL))
	settings.VFs = vfs
	settings.PluginFolder, settings.PodResourcesFolder = "/var/lib/kubelet/device-plugins", PodsFolder
	settings.Env = append(settings.Env, "NSM_RESOURCE_POLL_TIMEOUT=1s")
	kubelet := New(policy)
	must(t, kubelet.Start())
	t.Cleanup(func() { must(t, kubelet.Stop()) })
	forwarder, err := node.Open(folder, settings)
	must(t, err)
	w := &world{t, folder, authority, manager, kubelet, forwarder}
	t.Cleanup(w.closeForwarder)
	must(t, forwarder.Start())
	w.counts(node.Resource, vfs, vfs)
	w.counts(other, vfs, vfs)
	return w
}

func (w *world) closeForwarder() {
	if err := w.forwarder.Close(); err != nil {
		w.Errorf("the forwarder's process ended badly: %v", err)
	}
	if w.Failed() {
		log, _ := os.ReadFile(w.folder + "/forwarder.log")
		kept := os.TempDir() + "/interop-" + w.Name() + ".log"
		_ = os.WriteFile(kept, log, 0o600)
		w.Logf("the forwarder's log is kept in %s", kept)
	}
}

// counts waits until kubelet shows these.
func (w *world) counts(resource string, capacity, allocatable int64) {
	w.Helper()
	var has, can int64
	isSo := func() bool {
		has, can = w.kubelet.Counts(resource)
		return has == capacity && can == allocatable
	}
	if !node.Eventually(isSo) {
		w.Fatalf("%s has %d devices, %d of them allocatable, and not %d and %d", resource, has, can, capacity, allocatable)
	}
}

// isListed waits until the forwarder has listed the pods that there are now.
func (w *world) isListed() {
	w.Helper()
	before := w.kubelet.Lists()
	if !node.Eventually(func() bool { return w.kubelet.Lists() >= before+2 }) {
		w.Fatal("the forwarder does not query which pod has what")
	}
}

func (w *world) admit(pod *core.Pod) map[string]string {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), node.Patience)
	defer cancel()
	envs, err := w.kubelet.Admit(ctx, pod)
	must(w, err)
	return envs
}

func keys[K cmp.Ordered, V any](of map[K]V) []K { return slices.Sorted(maps.Keys(of)) }

func values[K comparable, V any](of map[K]V) iter.Seq[V] { return maps.Values(of) }

func sorted(ids []string) []string { return slices.Sorted(slices.Values(ids)) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
