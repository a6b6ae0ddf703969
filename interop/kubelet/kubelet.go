// Package kubelet joins what kubelet is for a device plugin, all of it kubelet's own code: the device manager with its plugin
// server and checkpoint, the topology manager, and the pod resources server. What is ours is which pods there are.
package kubelet

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	cadvisor "github.com/google/cadvisor/lib/model"
	"google.golang.org/grpc"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/klog/v2"
	podapi "k8s.io/kubelet/pkg/apis/podresources/v1"
	"k8s.io/kubernetes/pkg/kubelet/apis/podresources"
	"k8s.io/kubernetes/pkg/kubelet/cm/containermap"
	"k8s.io/kubernetes/pkg/kubelet/cm/devicemanager"
	"k8s.io/kubernetes/pkg/kubelet/cm/topologymanager"
	"k8s.io/kubernetes/pkg/kubelet/config"
	"k8s.io/kubernetes/pkg/kubelet/lifecycle"
)

// PodsFolder has the pod resources socket. That of device plugins is fixed in kubelet's code, beside it.
const PodsFolder = "/var/lib/kubelet/pod-resources"

// nodes of the machine, as the pretend card has them.
var nodes = []cadvisor.Node{{Id: 0}, {Id: 1}}

// Kubelet is a node's, as far as devices go.
type Kubelet struct {
	policy     string
	devices    *devicemanager.ManagerImpl
	topology   topologymanager.Manager
	podsServer *grpc.Server
	mutex      sync.Mutex
	pods       []*core.Pod
	lists      atomic.Int32
}

// New makes one with the topology manager's policy.
func New(policy string) *Kubelet { return &Kubelet{policy: policy} }

// Start serves both sockets; also again after Stop, as a kubelet that restarts: what pods have stays theirs.
func (k *Kubelet) Start() error {
	logger := klog.Background()
	topology, err := topologymanager.NewManager(logger, nodes, k.policy, topologymanager.ContainerTopologyScope, nil)
	if err != nil {
		return err
	}
	devices, err := devicemanager.NewManagerImpl(logger, nodes, topology)
	if err != nil {
		return err
	}
	topology.AddHintProvider(logger, devices)
	k.mutex.Lock()
	k.topology, k.devices = topology, devices
	k.mutex.Unlock()
	ready := config.NewSourcesReady(func(sets.Set[string]) bool { return true })
	if err := devices.Start(logger, k.GetPods, ready, containermap.NewContainerMap(), sets.New[string]()); err != nil {
		return err
	}
	return k.servePods()
}

func (k *Kubelet) servePods() error {
	socket := filepath.Join(PodsFolder, "kubelet.sock")
	if err := os.MkdirAll(PodsFolder, 0o750); err != nil {
		return err
	}
	_ = os.Remove(socket)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	providers := podresources.PodResourcesProviders{Pods: k, Devices: k, Cpus: nothing{}, Memory: nothing{}, DynamicResources: nothing{}}
	server := grpc.NewServer(grpc.UnaryInterceptor(k.count))
	podapi.RegisterPodResourcesListerServer(server, podresources.NewV1PodResourcesServer(context.Background(), providers))
	k.podsServer = server
	go func() { _ = server.Serve(listener) }()
	return nil
}

func (k *Kubelet) count(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	answer, err := handle(ctx, request)
	k.lists.Add(1)
	return answer, err
}

// Lists is how often pod resources were listed.
func (k *Kubelet) Lists() int { return int(k.lists.Load()) }

// Stop ends both.
func (k *Kubelet) Stop() error {
	k.podsServer.Stop()
	return k.manager().Stop(klog.Background())
}

func (k *Kubelet) manager() *devicemanager.ManagerImpl {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	return k.devices
}

// Counts are a resource's capacity and allocatable amount, as the node's status shows them.
func (k *Kubelet) Counts(resource string) (capacity, allocatable int64) {
	all, usable, _ := k.manager().GetCapacity(klog.Background())
	name := core.ResourceName(resource)
	has, can := all[name], usable[name]
	return has.Value(), can.Value()
}

// Admit gives each container of a new pod what it requests, and answers with the environment of the last one.
func (k *Kubelet) Admit(ctx context.Context, pod *core.Pod) (map[string]string, error) {
	k.mutex.Lock()
	k.pods = append(k.pods, pod)
	topology := k.topology
	k.mutex.Unlock()
	result := topology.Admit(ctx, &lifecycle.PodAdmitAttributes{Pod: pod, Operation: lifecycle.AddOperation})
	if !result.Admit {
		k.End(pod)
		return nil, fmt.Errorf("cannot admit %s: %s: %s", pod.Name, result.Reason, result.Message)
	}
	envs := map[string]string{}
	for _, container := range pod.Spec.Containers {
		options, err := k.manager().GetDeviceRunContainerOptions(ctx, pod, &container)
		if err != nil {
			return nil, err
		}
		for _, env := range options.Envs {
			envs[env.Name] = env.Value
		}
	}
	return envs, nil
}

// End is the end of a pod; the checkpoint names it until the next Allocate.
func (k *Kubelet) End(pod *core.Pod) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.pods = slices.DeleteFunc(k.pods, func(other *core.Pod) bool { return other.UID == pod.UID })
}

// Has are the devices of a container with their NUMA nodes.
func (k *Kubelet) Has(pod *core.Pod, container, resource string) map[string]int64 {
	has := map[string]int64{}
	for id, device := range k.manager().GetDevices(string(pod.UID), container)[resource] {
		has[id] = -1
		for _, node := range device.GetTopology().GetNodes() {
			has[id] = node.ID
		}
	}
	return has
}

// GetPods implements podresources.PodsProvider; a node is never without pods.
func (k *Kubelet) GetPods() []*core.Pod {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	own := newPod("forwarder")
	own.Namespace = "nsm-system"
	return append([]*core.Pod{own}, k.pods...)
}

// GetActivePods implements podresources.PodsProvider.
func (k *Kubelet) GetActivePods() []*core.Pod { return k.GetPods() }

// GetPodByName implements podresources.PodsProvider.
func (k *Kubelet) GetPodByName(namespace, name string) (*core.Pod, bool) {
	for _, pod := range k.GetPods() {
		if pod.Namespace == namespace && pod.Name == name {
			return pod, true
		}
	}
	return nil, false
}

// UpdateAllocatedDevices implements podresources.DevicesProvider.
func (k *Kubelet) UpdateAllocatedDevices(logger klog.Logger) {
	k.manager().UpdateAllocatedDevices(logger)
}

// GetDevices implements podresources.DevicesProvider, with an entry for each device as kubelet's container manager has it.
func (k *Kubelet) GetDevices(uid, container string) []*podapi.ContainerDevices {
	return entries(k.manager().GetDevices(uid, container))
}

// GetAllocatableDevices implements podresources.DevicesProvider.
func (k *Kubelet) GetAllocatableDevices(logger klog.Logger) []*podapi.ContainerDevices {
	return entries(k.manager().GetAllocatableDevices(logger))
}

func entries(resources devicemanager.ResourceDeviceInstances) []*podapi.ContainerDevices {
	var list []*podapi.ContainerDevices
	for resource, devices := range resources {
		for id := range devices {
			list = append(list, &podapi.ContainerDevices{ResourceName: resource, DeviceIds: []string{id}})
		}
	}
	return list
}

// nothing is a node without managers of CPUs, memory and dynamic resources.
type nothing struct{}

func (nothing) GetCPUs(*core.Pod, *core.Container) []int64 { return nil }
func (nothing) GetPodCPUs(string) []int64                  { return nil }
func (nothing) GetAllocatableCPUs() []int64                { return nil }
func (nothing) GetMemory(klog.Logger, *core.Pod, *core.Container) []*podapi.ContainerMemory {
	return nil
}
func (nothing) GetPodMemory(klog.Logger, string) []*podapi.ContainerMemory { return nil }
func (nothing) GetAllocatableMemory(klog.Logger) []*podapi.ContainerMemory { return nil }
func (nothing) GetDynamicResources(klog.Logger, *core.Pod, *core.Container) []*podapi.DynamicResource {
	return nil
}
