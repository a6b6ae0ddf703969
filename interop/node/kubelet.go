package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	plugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	pods "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// Resource is what the pretend card is offered as.
const Resource = "worker.domain/10G"

// Kubelet gives devices to pods, as far as scenarios about NSM need it; kubelet's own code plays in ../kubelet.
type Kubelet struct {
	plugin.UnimplementedRegistrationServer
	pods.UnimplementedPodResourcesListerServer
	folder  string
	servers []*grpc.Server
	mutex   sync.Mutex
	changed *sync.Cond
	devices []*plugin.Device
	client  plugin.DevicePluginClient
	holders map[string][]string
	uids    map[string]string
}

// StartKubelet serves registration and pod resources in the folder of the node.
func StartKubelet(folder string) (*Kubelet, error) {
	kubelet := &Kubelet{folder: folder, holders: map[string][]string{}, uids: map[string]string{}}
	kubelet.changed = sync.NewCond(&kubelet.mutex)
	sockets := map[string]func(*grpc.Server){
		"/plugins/kubelet.sock": func(s *grpc.Server) { plugin.RegisterRegistrationServer(s, kubelet) },
		"/pods/kubelet.sock":    func(s *grpc.Server) { pods.RegisterPodResourcesListerServer(s, kubelet) },
	}
	for socket, register := range sockets {
		listener, err := net.Listen("unix", folder+socket)
		if err != nil {
			return nil, err
		}
		server := grpc.NewServer()
		register(server)
		kubelet.servers = append(kubelet.servers, server)
		go func() { _ = server.Serve(listener) }()
	}
	return kubelet, nil
}

// Stop ends its sockets.
func (k *Kubelet) Stop() {
	for _, server := range k.servers {
		server.Stop()
	}
}

// Register follows the plugin's list from then on.
func (k *Kubelet) Register(_ context.Context, request *plugin.RegisterRequest) (*plugin.Empty, error) {
	cc, err := grpc.NewClient("unix://"+k.folder+"/plugins/"+request.Endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	client := plugin.NewDevicePluginClient(cc)
	go func() {
		defer cc.Close()
		k.follow(client, request.ResourceName)
	}()
	return &plugin.Empty{}, nil
}

// follow reads the list until the plugin ends it.
func (k *Kubelet) follow(client plugin.DevicePluginClient, resource string) {
	stream, err := client.ListAndWatch(context.Background(), &plugin.Empty{})
	for err == nil {
		var list *plugin.ListAndWatchResponse
		if list, err = stream.Recv(); err != nil || resource != Resource {
			continue
		}
		k.mutex.Lock()
		k.devices, k.client = list.Devices, client
		k.mutex.Unlock()
		k.changed.Broadcast()
	}
}

// Admit gives a device to a new pod and returns the token that the pod's environment names.
func (k *Kubelet) Admit(ctx context.Context, pod string) (string, error) {
	id, client, err := k.choose(ctx, pod)
	if err != nil {
		return "", err
	}
	if err := k.writeCheckpoint(); err != nil {
		return "", err
	}
	response, err := client.Allocate(ctx, &plugin.AllocateRequest{ContainerRequests: []*plugin.ContainerAllocateRequest{{DevicesIds: []string{id}}}})
	if err != nil {
		return "", err
	}
	for name, value := range response.ContainerResponses[0].Envs {
		if strings.HasPrefix(name, "NSM_SRIOV_TOKENS_") {
			return value, nil
		}
	}
	return "", fmt.Errorf("cannot admit %s: Allocate named no token", pod)
}

func (k *Kubelet) choose(ctx context.Context, pod string) (string, plugin.DevicePluginClient, error) {
	stop := context.AfterFunc(ctx, k.changed.Broadcast)
	defer stop()
	k.mutex.Lock()
	defer k.mutex.Unlock()
	for ctx.Err() == nil {
		for _, device := range k.devices {
			if device.Health == plugin.Healthy && !k.isHeld(device.ID) {
				k.holders[pod] = append(k.holders[pod], device.ID)
				k.uids[pod] = uuid()
				return device.ID, k.client, nil
			}
		}
		k.changed.Wait()
	}
	return "", nil, fmt.Errorf("cannot admit %s: none of %d devices is free", pod, len(k.devices))
}

// UID of a pod that was admitted.
func (k *Kubelet) UID(pod string) string {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	return k.uids[pod]
}

// writeCheckpoint writes to a file which pod has what, as kubelet does (pkg/kubelet/cm/devicemanager/checkpoint).
func (k *Kubelet) writeCheckpoint() error {
	type entry struct {
		PodUID, ContainerName, ResourceName string
		DeviceIDs                           map[string][]string
	}
	k.mutex.Lock()
	defer k.mutex.Unlock()
	var entries []entry
	for pod, held := range k.holders {
		entries = append(entries, entry{k.uids[pod], "app", Resource, map[string][]string{"-1": held}})
	}
	text, err := json.Marshal(map[string]any{"Data": map[string]any{"PodDeviceEntries": entries}})
	if err != nil {
		return err
	}
	return os.WriteFile(k.folder+"/plugins/kubelet_internal_checkpoint", text, 0o600)
}

func uuid() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		panic(err) // Linux has it
	}
	return strings.TrimSpace(string(text))
}

func (k *Kubelet) isHeld(id string) bool {
	for _, held := range k.holders {
		for _, other := range held {
			if other == id {
				return true
			}
		}
	}
	return false
}

// List reports which pod has what.
func (k *Kubelet) List(context.Context, *pods.ListPodResourcesRequest) (*pods.ListPodResourcesResponse, error) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	own := &pods.PodResources{Name: "forwarder", Namespace: "nsm-system"}
	list := []*pods.PodResources{own}
	for name, held := range k.holders {
		devices := []*pods.ContainerDevices{{ResourceName: Resource, DeviceIds: held}}
		containers := []*pods.ContainerResources{{Name: "app", Devices: devices}}
		list = append(list, &pods.PodResources{Name: name, Namespace: "default", Containers: containers})
	}
	return &pods.ListPodResourcesResponse{PodResources: list}, nil
}

// End is the end of a pod.
func (k *Kubelet) End(pod string) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	delete(k.holders, pod)
}
