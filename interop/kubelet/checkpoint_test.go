package kubelet

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"interop/node"
	"interop/nsm"
	"interop/peer"
)

// Whose cgroup a device is opened to is read in the checkpoint that kubelet's own device manager writes: the client sends none.
func TestGrantGoesToThePodOfTheCheckpoint(t *testing.T) {
	cgroups := cgroupsOrSkip(t)
	w := open(t, "none", node.Settings{Env: []string{"NSM_CGROUP_PATH=" + cgroups.Path}})
	pod, other := podWith("pod-1", node.Resource, 1), podWith("pod-2", node.Resource, 1)
	client := w.client(w.admit(pod)[env])
	w.admit(other)
	own, err := cgroups.StartContainer(string(pod.UID), "app")
	must(t, err)
	t.Cleanup(own.Stop)
	foreign, err := cgroups.StartContainer(string(other.UID), "app")
	must(t, err)
	t.Cleanup(foreign.Stop)

	reply, err := client.Request(t.Context())
	must(t, err)
	opens(t, own, w.folder, reply, "")
	opens(t, foreign, w.folder, reply, "EPERM")
	// A kubelet that restarts writes the file again; what is granted stays, also for a forwarder that restarts with it.
	must(t, w.forwarder.Stop())
	must(t, w.kubelet.Stop())
	must(t, w.kubelet.Start())
	must(t, w.forwarder.Start())
	w.counts(node.Resource, vfs, vfs)
	opens(t, own, w.folder, reply, "")
	w.dial(client)
	must(t, client.Close(t.Context()))
	opens(t, own, w.folder, reply, "EPERM")
}

func cgroupsOrSkip(t *testing.T) *node.Cgroups {
	cgroups, err := node.NewCgroups()
	if err != nil {
		if slices.Contains(strings.Split(os.Getenv("TEST_PROMISES"), ","), "cgroup1-devices") {
			t.Fatalf("promised: %v", err)
		}
		t.Skipf("needs cgroup1-devices: %v", err)
	}
	t.Cleanup(func() { must(t, cgroups.Close()) })
	return cgroups
}

// client is that of a pod with this token; its manager's call reaches the forwarder.
func (w *world) client(token string) *peer.Client {
	app := peer.Hop{Name: "pod-1", Actor: w.authority.Actor("/pod-1"), Lifetime: w.manager.Lifetime}
	client := &peer.Client{App: app, Manager: w.manager.Hop, Service: service, TokenID: token}
	client.Preferences = []*nsm.Mechanism{client.Vfio("")}
	w.dial(client)
	return client
}

func (w *world) dial(client *peer.Client) {
	link, err := peer.Dial(w.manager.Actor, w.manager.Forwarder(), w.manager.Lifetime)
	must(w, err)
	w.Cleanup(func() { _ = link.Close() })
	client.Link = link
}

// opens checks what a process can do with the group of the reply.
func opens(t *testing.T, container *node.Container, folder string, reply *nsm.Connection, want string) {
	t.Helper()
	parameters := reply.Mechanism.Parameters
	path := folder + "/vfio/" + parameters["iommuGroup"]
	if _, err := os.Stat(path); err != nil {
		major, _ := strconv.Atoi(parameters["deviceMajor"])
		minor, _ := strconv.Atoi(parameters["deviceMinor"])
		must(t, container.MakeNode(path, uint32(major), uint32(minor)))
	}
	said, err := container.Open(path)
	must(t, err)
	if said == "" {
		must(t, container.Release(path))
	}
	if said != want {
		t.Fatalf("opening %s said %q, and not %q", path, said, want)
	}
}
