package kubelet

import (
	"context"
	"slices"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"

	"interop/node"
)

const (
	vfs   = 8
	other = "worker.domain/intel"
	env   = "NSM_SRIOV_TOKENS_" + node.Resource
)

func TestDevicesFromRegistrationToThePodsEnd(t *testing.T) {
	w := open(t, "none", node.Settings{})
	pod := podWith("pod-1", node.Resource, 2)
	envs := w.admit(pod)
	has := w.kubelet.Has(pod, "app", node.Resource)
	if named := strings.Split(envs[env], ","); len(has) != 2 || !slices.Equal(sorted(named), keys(has)) {
		t.Fatalf("%v were allocated, and the environment is %v", has, envs)
	}
	// A VF that one resource has given out cannot be the other's.
	w.counts(node.Resource, vfs, vfs)
	w.counts(other, vfs, vfs-2)
	w.isListed() // a pod that was never listed could still be on its way
	w.kubelet.End(pod)
	w.counts(other, vfs, vfs)
}

// What is left is what others do not have, to the last one, and then a pod is refused.
func TestPodsShareOutTheDevices(t *testing.T) {
	w := open(t, "none", node.Settings{})
	var given []string
	for _, name := range []string{"pod-1", "pod-2", "pod-3", "pod-4"} {
		pod := podWith(name, node.Resource, 2)
		w.admit(pod)
		has := w.kubelet.Has(pod, "app", node.Resource)
		given = append(given, keys(has)...)
		// Without a policy kubelet takes any two, unless the plugin prefers some: those of one NUMA node.
		if nodes := slices.Collect(values(has)); nodes[0] != nodes[1] || nodes[0] < 0 {
			t.Fatalf("%s has devices of different NUMA nodes: %v", name, has)
		}
	}
	if slices.Sort(given); len(slices.Compact(given)) != vfs {
		t.Fatalf("four pods with two devices each have %v", given)
	}
	w.counts(other, vfs, 0)
	if _, err := w.kubelet.Admit(context.Background(), podWith("pod-5", node.Resource, 1)); err == nil {
		t.Fatal("a ninth device was given out")
	}
}

// The topology manager decides by what the list says of each device.
func TestTopologyManagerAligns(t *testing.T) {
	w := open(t, "single-numa-node", node.Settings{})
	pod := podWith("pod-1", node.Resource, 3)
	w.admit(pod)
	has := w.kubelet.Has(pod, "app", node.Resource)
	if nodes := slices.Compact(slices.Sorted(values(has))); len(has) != 3 || len(nodes) != 1 {
		t.Fatalf("three devices of one node were requested, and given %v", has)
	}
	if _, err := w.kubelet.Admit(context.Background(), podWith("pod-2", node.Resource, vfs/2+1)); err == nil {
		t.Fatal("more than a node has were given out as of one node")
	}
	w.admit(podWith("pod-3", node.Resource, vfs/2))
}

// Kubelet gives an init container's devices to the containers after it: the same ones are requested of the plugin again.
func TestInitContainersPassTheirDevicesOn(t *testing.T) {
	w := open(t, "none", node.Settings{})
	pod := podWith("pod-1", node.Resource, 2)
	pod.Spec.InitContainers = []core.Container{{Name: "init", Resources: requestOf(node.Resource, 1)}}
	w.admit(pod)
	first, then := w.kubelet.Has(pod, "init", node.Resource), w.kubelet.Has(pod, "app", node.Resource)
	if len(first) != 1 || len(then) != 2 || !slices.Contains(keys(then), keys(first)[0]) {
		t.Fatalf("init has %v, and app %v", first, then)
	}
	w.counts(other, vfs, vfs-2)
}

func TestRestartsOfKubelet(t *testing.T) {
	w := open(t, "none", node.Settings{})
	pod := podWith("pod-1", node.Resource, 2)
	w.admit(pod)
	has := keys(w.kubelet.Has(pod, "app", node.Resource))
	for range 3 {
		must(t, w.kubelet.Stop())
		must(t, w.kubelet.Start())
		w.counts(node.Resource, vfs, vfs)
		w.counts(other, vfs, vfs-2)
		if now := keys(w.kubelet.Has(pod, "app", node.Resource)); !slices.Equal(now, has) {
			t.Fatalf("%s had %v, and has %v", pod.Name, has, now)
		}
	}
	// Kubelet comes back while no plugin is there to register: it knows what was given, and offers nothing.
	must(t, w.forwarder.Stop())
	must(t, w.kubelet.Stop())
	must(t, w.kubelet.Start())
	w.counts(node.Resource, 0, 0)
	must(t, w.forwarder.Start())
	w.counts(node.Resource, vfs, vfs)
	second := podWith("pod-2", node.Resource, vfs-2)
	w.admit(second)
	for _, id := range keys(w.kubelet.Has(second, "app", node.Resource)) {
		if slices.Contains(has, id) {
			t.Fatalf("%s was given out twice", id)
		}
	}
}

// A plugin comes back at the same socket; kubelet takes it only when it has seen the end of the one before.
func TestRestartsOfTheForwarder(t *testing.T) {
	w := open(t, "none", node.Settings{Killable: true})
	pod := podWith("pod-1", node.Resource, 2)
	w.admit(pod)
	has := keys(w.kubelet.Has(pod, "app", node.Resource))
	for range 3 {
		must(t, w.forwarder.Kill())
		w.counts(node.Resource, vfs, 0)
		must(t, w.forwarder.Start())
		w.counts(node.Resource, vfs, vfs)
		w.counts(other, vfs, vfs-2)
	}
	w.isListed()
	if now := keys(w.kubelet.Has(pod, "app", node.Resource)); !slices.Equal(now, has) {
		t.Fatalf("%s had %v, and has %v", pod.Name, has, now)
	}
	w.kubelet.End(pod)
	w.counts(other, vfs, vfs)
}
