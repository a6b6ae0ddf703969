package scenario

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"

	"interop/node"
	"interop/nsm"
	"interop/peer"
)

func TestMain(m *testing.M) {
	node.RunContainer()
	os.Exit(m.Run())
}

// vfioPod is a client with its token, and a process in the pod's cgroup.
type vfioPod struct {
	*peer.Client
	container *node.Container
	folder    string
}

// standIns for VFIO's nodes are devices of this machine, the same in each world: a process that has one open holds up all of them.
var standIns sync.Mutex

func openVfio(t *testing.T, settings node.Settings) (*world, *node.Cgroups) {
	cgroups, err := node.NewCgroups()
	if err != nil {
		if slices.Contains(strings.Split(os.Getenv("TEST_PROMISES"), ","), "cgroup1-devices") {
			t.Fatalf("promised: %v", err)
		}
		t.Skipf("needs cgroup1-devices: %v", err)
	}
	t.Cleanup(func() { must(t, cgroups.Close()) })
	settings.Env = append(settings.Env, "NSM_CGROUP_PATH="+cgroups.Path)
	w := open(t, options{Settings: settings})
	standIns.Lock()
	t.Cleanup(standIns.Unlock)
	return w, cgroups
}

func (w *world) newVfioPod(cgroups *node.Cgroups) vfioPod {
	client := w.newClient(longTokens)
	container, err := cgroups.StartContainer(w.kubelet.UID(client.App.Name), "app")
	must(w, err)
	w.Cleanup(container.Stop)
	directory, err := container.CgroupDir()
	must(w, err)
	client.Namespace = nil
	client.Preferences = []*nsm.Mechanism{client.Vfio(directory)}
	return vfioPod{client, container, filepath.Join(w.folder, client.App.Name)}
}

// makeNodes makes those that the reply names.
func (p vfioPod) makeNodes(w *world, reply *nsm.Connection) {
	w.Helper()
	parameters := reply.Mechanism.Parameters
	number := func(key string) uint32 {
		value, err := strconv.ParseUint(parameters[key], 10, 32)
		must(w, err)
		return uint32(value)
	}
	must(w, p.container.MakeNode(p.folder+"/vfio", number("vfioMajor"), number("vfioMinor")))
	must(w, p.container.MakeNode(p.folder+"/"+parameters["iommuGroup"], number("deviceMajor"), number("deviceMinor")))
}

// opening is what the kernel lets the pod's process do with the two nodes.
func (p vfioPod) opening(w *world, reply *nsm.Connection) [2]string {
	w.Helper()
	var said [2]string
	for i, name := range []string{"vfio", reply.Mechanism.Parameters["iommuGroup"]} {
		errno, err := p.container.Open(p.folder + "/" + name)
		must(w, err)
		if errno == "" {
			must(w, p.container.Release(p.folder+"/"+name))
		}
		said[i] = errno
	}
	return said
}

var (
	permitted = [2]string{}
	forbidden = [2]string{"EPERM", "EPERM"}
)

func (w *world) opens(pod vfioPod, reply *nsm.Connection, want [2]string) {
	w.Helper()
	if said := pod.opening(w, reply); said != want {
		w.Fatalf("%s opens the container and the group with %q, and it should be %q", pod.App.Name, said, want)
	}
}

func TestVfioFromRequestToClose(t *testing.T) {
	w, cgroups := openVfio(t, node.Settings{})
	pod, other := w.newVfioPod(cgroups), w.newVfioPod(cgroups)
	reply := w.request(pod.Client)
	if reply.Mechanism.Cls != "LOCAL" || reply.Mechanism.Type != "VFIO" || reply.Mechanism.Parameters["pciAddress"] == "" {
		t.Fatalf("the reply's mechanism is %v", reply.Mechanism)
	}
	checkOffer(t, w.endpoint.Requests()[0], "LOCAL")
	pod.makeNodes(w, reply)
	other.makeNodes(w, reply)
	w.opens(pod, reply, permitted)
	w.opens(other, reply, forbidden)
	if again := w.request(pod.Client); again.Mechanism.Parameters["iommuGroup"] != reply.Mechanism.Parameters["iommuGroup"] {
		t.Fatalf("a refresh has moved the pod from %v to %v", reply.Mechanism, again.Mechanism)
	}

	must(t, w.forwarder.Stop())
	w.opens(pod, reply, permitted)
	must(t, w.forwarder.Start())
	w.redial(pod.Client)
	w.request(pod.Client)
	w.opens(pod, reply, permitted)
	w.opens(other, reply, forbidden)

	must(t, pod.Close(w.within(peer.CallLimit)))
	w.opens(pod, reply, forbidden)
	if !w.isIdle() || len(w.endpoint.Closes()) != 1 {
		t.Fatal("the connection outlived its Close")
	}
}

func TestVfioOutlivesAKilledForwarder(t *testing.T) {
	w, cgroups := openVfio(t, node.Settings{Killable: true})
	pod, other := w.newVfioPod(cgroups), w.newVfioPod(cgroups)
	reply := w.request(pod.Client)
	pod.makeNodes(w, reply)
	other.makeNodes(w, reply)
	for range 2 {
		must(t, w.forwarder.Kill())
		w.opens(pod, reply, permitted)
		must(t, w.forwarder.Start())
		w.opens(pod, reply, permitted)
		w.opens(other, reply, forbidden)
	}
	w.redial(pod.Client)
	w.isTransferred(pod.Client, reply)
	if again := w.request(pod.Client); again.Mechanism.Parameters["iommuGroup"] != reply.Mechanism.Parameters["iommuGroup"] {
		t.Fatalf("the death of the forwarder has moved the pod from %v to %v", reply.Mechanism, again.Mechanism)
	}
	must(t, pod.Close(w.within(peer.CallLimit)))
	w.opens(pod, reply, forbidden)
	if !w.isIdle() || len(w.endpoint.Closes()) != 1 {
		t.Fatal("the connection outlived its Close")
	}
}

func TestVfioIsNobodyElsesWhileAProcessHasItOpen(t *testing.T) {
	w, cgroups := openVfio(t, node.Settings{})
	pod := w.newVfioPod(cgroups)
	reply := w.request(pod.Client)
	pod.makeNodes(w, reply)
	group := pod.folder + "/" + reply.Mechanism.Parameters["iommuGroup"]
	if errno, err := pod.container.Open(group); err != nil || errno != "" {
		t.Fatalf("the pod cannot open its group: %s %v", errno, err)
	}
	refused(t, pod.Close(w.within(peer.CallLimit)), codes.Unavailable)
	if held, err := w.forwarder.Count("held"); err != nil || held != 1 {
		t.Fatalf("%d functions are held while a process has one open; %v", held, err)
	}
	must(t, pod.container.Release(group))
	w.eventually("the VF is restored", w.isIdle)
	w.opens(pod, reply, forbidden)
}

func TestAnotherPodsCgroupIsRefused(t *testing.T) {
	w, cgroups := openVfio(t, node.Settings{})
	pod, victim := w.newVfioPod(cgroups), w.newVfioPod(cgroups)
	directory, err := victim.container.CgroupDir()
	must(t, err)
	pod.Preferences = []*nsm.Mechanism{pod.Vfio(directory)}
	_, err = pod.Request(w.within(peer.CallLimit))
	refused(t, err, codes.PermissionDenied)
	w.eventually("nothing is held", w.isIdle)
}
