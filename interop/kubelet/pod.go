package kubelet

import (
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// newPod has one container that requests no device.
func newPod(name string) *core.Pod {
	return &core.Pod{
		ObjectMeta: meta.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name + "-uid")},
		Spec:       core.PodSpec{Containers: []core.Container{{Name: "app"}}},
	}
}

// podWith has one container that requests so many devices.
func podWith(name, of string, count int64) *core.Pod {
	pod := newPod(name)
	pod.Spec.Containers[0].Resources = requestOf(of, count)
	return pod
}

func requestOf(of string, count int64) core.ResourceRequirements {
	list := core.ResourceList{core.ResourceName(of): *resource.NewQuantity(count, resource.DecimalSI)}
	return core.ResourceRequirements{Limits: list, Requests: list}
}
