// Package kubelet joins what kubelet is for a device plugin from its own code: the registration server and plugin client of its
// device manager, its pod resources server, and its checkpoint. What is ours is which pod asks for what.
package kubelet

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	plugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	podapi "k8s.io/kubelet/pkg/apis/podresources/v1"
	"k8s.io/kubernetes/pkg/kubelet/apis/podresources"
	"k8s.io/kubernetes/pkg/kubelet/checkpointmanager"
	"k8s.io/kubernetes/pkg/kubelet/cm/devicemanager/checkpoint"
	"k8s.io/kubernetes/pkg/kubelet/cm/devicemanager/plugin/v1beta1"
)

const checkpointName = "kubelet_internal_checkpoint"

// Kubelet is a node's, as far as devices go.
type Kubelet struct {
	pluginFolder, podsFolder string
	registration             v1beta1.Server
	podsServer               *grpc.Server
	mutex                    sync.Mutex
	plugins                  map[string]v1beta1.DevicePlugin
	options                  map[string]*plugin.DevicePluginOptions
	devices                  map[string][]*plugin.Device
	connected                int
	pods                     []*core.Pod
	held                     map[types.UID]*held
}

// held is what one pod has.
type held struct {
	resource string
	ids      []string
	response []byte
}

// New makes one for the folders.
func New(pluginFolder, podsFolder string) *Kubelet {
	return &Kubelet{pluginFolder: pluginFolder, podsFolder: podsFolder, held: map[types.UID]*held{}}
}

// Start serves both sockets; also again after Stop, as a kubelet that restarts: what pods have stays theirs.
func (k *Kubelet) Start() error {
	k.mutex.Lock()
	k.plugins, k.options = map[string]v1beta1.DevicePlugin{}, map[string]*plugin.DevicePluginOptions{}
	k.devices = map[string][]*plugin.Device{}
	k.mutex.Unlock()
	var err error
	k.registration, err = v1beta1.NewServer(klog.Background(), filepath.Join(k.pluginFolder, "kubelet.sock"), k, k)
	if err != nil {
		return err
	}
	if err := k.registration.Start(klog.Background()); err != nil {
		return err
	}
	providers := podresources.PodResourcesProviders{Pods: k, Devices: k, Cpus: nothing{}, Memory: nothing{}, DynamicResources: nothing{}}
	socket := filepath.Join(k.podsFolder, "kubelet.sock")
	_ = os.Remove(socket)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	podapi.RegisterPodResourcesListerServer(server, podresources.NewV1PodResourcesServer(context.Background(), providers))
	k.podsServer = server
	go func() { _ = server.Serve(listener) }()
	return nil
}

// Stop ends both.
func (k *Kubelet) Stop() error {
	k.podsServer.Stop()
	return k.registration.Stop(klog.Background())
}

// CleanupPluginDirectory removes every socket, as kubelet's device manager does when it starts.
func (k *Kubelet) CleanupPluginDirectory(_ klog.Logger, folder string) error {
	entries, err := os.ReadDir(folder)
	for _, entry := range entries {
		if entry.Name() != checkpointName {
			err = os.RemoveAll(filepath.Join(folder, entry.Name()))
		}
	}
	return err
}

// PluginConnected asks for the options, as the device manager does before it takes a plugin.
func (k *Kubelet) PluginConnected(ctx context.Context, resource string, connected v1beta1.DevicePlugin) error {
	options, err := connected.API().GetDevicePluginOptions(ctx, &plugin.Empty{})
	if err != nil {
		return err
	}
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.plugins[resource], k.options[resource] = connected, options
	k.connected++
	return nil
}

// PluginDisconnected makes every device of the resource unhealthy.
func (k *Kubelet) PluginDisconnected(_ klog.Logger, resource, _ string) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	delete(k.plugins, resource)
	delete(k.devices, resource)
}

// PluginListAndWatchReceiver takes a list.
func (k *Kubelet) PluginListAndWatchReceiver(_ klog.Logger, resource string, list *plugin.ListAndWatchResponse) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.devices[resource] = list.Devices
}

// Healthy are the ids of a resource that could be given out by their health.
func (k *Kubelet) Healthy(resource string) []string {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	var ids []string
	for _, device := range k.devices[resource] {
		if device.Health == plugin.Healthy {
			ids = append(ids, device.ID)
		}
	}
	return ids
}

// Connected is how often a plugin was taken.
func (k *Kubelet) Connected() int {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	return k.connected
}

// Prefer asks the plugin which of the ids it would give.
func (k *Kubelet) Prefer(ctx context.Context, resource string, from, must []string, count int) ([]string, error) {
	k.mutex.Lock()
	connected, options := k.plugins[resource], k.options[resource]
	k.mutex.Unlock()
	if connected == nil || !options.GetPreferredAllocationAvailable {
		return nil, fmt.Errorf("nobody offers a preference for %s", resource)
	}
	request := &plugin.ContainerPreferredAllocationRequest{AvailableDeviceIDs: from, MustIncludeDeviceIDs: must, AllocationSize: int32(count)}
	response, err := connected.API().GetPreferredAllocation(ctx, &plugin.PreferredAllocationRequest{ContainerRequests: []*plugin.ContainerPreferredAllocationRequest{request}})
	if err != nil {
		return nil, err
	}
	return response.ContainerResponses[0].DeviceIDs, nil
}

// Admit gives devices to a new pod and returns the environment of its container.
func (k *Kubelet) Admit(ctx context.Context, name, resource string, count int) (map[string]string, []string, error) {
	free := slices.DeleteFunc(k.Healthy(resource), k.isHeld)
	ids, err := k.Prefer(ctx, resource, free, nil, count)
	if err != nil {
		return nil, nil, err
	}
	k.mutex.Lock()
	connected := k.plugins[resource]
	k.mutex.Unlock()
	response, err := connected.API().Allocate(ctx, &plugin.AllocateRequest{ContainerRequests: []*plugin.ContainerAllocateRequest{{DevicesIds: ids}}})
	if err != nil {
		return nil, nil, err
	}
	bytes, err := proto.Marshal(response.ContainerResponses[0])
	if err != nil {
		return nil, nil, err
	}
	pod := &core.Pod{ObjectMeta: meta.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name)}, Spec: core.PodSpec{Containers: []core.Container{{Name: "app"}}}}
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.pods = append(k.pods, pod)
	k.held[pod.UID] = &held{resource, ids, bytes}
	return response.ContainerResponses[0].Envs, ids, k.writeCheckpoint()
}

// End is the end of a pod; the checkpoint names it until the next Allocate, as kubelet's does.
func (k *Kubelet) End(name string) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.pods = slices.DeleteFunc(k.pods, func(pod *core.Pod) bool { return pod.Name == name })
	delete(k.held, types.UID(name))
}

func (k *Kubelet) isHeld(id string) bool {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	for _, held := range k.held {
		if slices.Contains(held.ids, id) {
			return true
		}
	}
	return false
}

func (k *Kubelet) writeCheckpoint() error {
	manager, err := checkpointmanager.NewCheckpointManager(k.pluginFolder)
	if err != nil {
		return err
	}
	var entries []checkpoint.PodDevicesEntry
	for uid, held := range k.held {
		entries = append(entries, checkpoint.PodDevicesEntry{
			PodUID: string(uid), ContainerName: "app", ResourceName: held.resource, DeviceIDs: checkpoint.DevicesPerNUMA{0: held.ids}, AllocResp: held.response,
		})
	}
	registered := map[string][]string{}
	for resource, devices := range k.devices {
		for _, device := range devices {
			registered[resource] = append(registered[resource], device.ID)
		}
	}
	return manager.CreateCheckpoint(checkpointName, checkpoint.New(entries, registered))
}

// GetPods implements podresources.PodsProvider; a node is never without pods.
func (k *Kubelet) GetPods() []*core.Pod {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	own := &core.Pod{ObjectMeta: meta.ObjectMeta{Name: "forwarder", Namespace: "nsm-system", UID: "forwarder"}}
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
func (k *Kubelet) UpdateAllocatedDevices(klog.Logger) {}

// GetDevices implements podresources.DevicesProvider.
func (k *Kubelet) GetDevices(uid, _ string) []*podapi.ContainerDevices {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	held := k.held[types.UID(uid)]
	if held == nil {
		return nil
	}
	return []*podapi.ContainerDevices{{ResourceName: held.resource, DeviceIds: held.ids}}
}

// GetAllocatableDevices implements podresources.DevicesProvider.
func (k *Kubelet) GetAllocatableDevices(klog.Logger) []*podapi.ContainerDevices { return nil }

// registrationLimit is how long a plugin may take to come back after a restart of kubelet.
const registrationLimit = 10 * time.Second

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
