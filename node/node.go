package main

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"banger"
	"banger/internal/api/client"
	"banger/internal/host"
)

type listOptions = metav1.ListOptions

// pingTime is how often the daemon is asked how it is.
const pingTime = 10 * time.Second

// Taint keeps Pods away that do not ask for VMs.
const Taint = "banger.dev/vm"

// health tells the cluster how the node is.
type health struct {
	o      options
	daemon *client.Client
}

// Ping returns an error if the daemon does not answer. The lease then runs out.
func (h *health) Ping(ctx context.Context) error {
	_, err := h.daemon.Version(ctx)
	return err
}

// NotifyNodeStatus calls changed when a condition of the node has changed.
func (h *health) NotifyNodeStatus(ctx context.Context, changed func(*corev1.Node)) {
	go func() { // ends with ctx
		ticker := time.NewTicker(pingTime)
		defer ticker.Stop()
		last := ""
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			n, err := h.o.node(ctx, h.daemon)
			if err != nil {
				continue
			}
			if now := fmt.Sprint(states(n.Status.Conditions)); now != last {
				last = now
				changed(n)
			}
		}
	}()
}

func states(list []corev1.NodeCondition) map[corev1.NodeConditionType]corev1.ConditionStatus {
	out := map[corev1.NodeConditionType]corev1.ConditionStatus{}
	for _, c := range list {
		out[c.Type] = c.Status
	}
	return out
}

// node returns this host as a node.
func (o options) node(ctx context.Context, daemon *client.Client) (*corev1.Node, error) {
	v, err := daemon.Version(ctx)
	if err != nil {
		return nil, err
	}
	free, err := host.FreeBytes(v.State)
	if err != nil {
		free = 0
	}
	cpus, memory := o.cpus, o.memory
	if cpus == 0 {
		cpus = int64(runtime.NumCPU())
	}
	available, total := hostMemory()
	if memory == 0 {
		memory = total / 5 * 4
	}
	capacity := corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(cpus, resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(memory, resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(o.pods, resource.DecimalSI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(free, resource.BinarySI),
	}
	labels := map[string]string{corev1.LabelHostname: o.name, corev1.LabelOSStable: "linux",
		corev1.LabelArchStable: runtime.GOARCH, "banger.dev/isolation": isolation(v.KVM)}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: o.name, Labels: maps.Clone(labels)},
		Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: Taint, Value: "true",
			Effect: corev1.TaintEffectNoSchedule}}},
		Status: corev1.NodeStatus{
			Capacity: capacity, Allocatable: capacity,
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: o.address},
				{Type: corev1.NodeHostName, Address: o.name}},
			DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(o.port)}},
			NodeInfo: corev1.NodeSystemInfo{Architecture: runtime.GOARCH, OperatingSystem: "linux",
				KubeletVersion: "banger-" + banger.Version, ContainerRuntimeVersion: "banger://" + v.Version, OSImage: v.VMM},
			Conditions: conditions(free, available, total),
		},
	}, nil
}

// isolation returns what separates Pods from the host.
func isolation(kvm string) string {
	if kvm == "usable" {
		return "kvm"
	}
	return "emulated"
}

// Bounds of what is little: the kubelet's own.
const (
	littleMemory = 100 << 20
	littleDisk   = 2 << 30
)

func conditions(free, available, total int64) []corev1.NodeCondition {
	list := []corev1.NodeCondition{}
	for _, c := range []struct {
		name         corev1.NodeConditionType
		is           bool
		reason, text string
	}{
		{corev1.NodeReady, true, "DaemonReady", "the daemon answers"},
		{corev1.NodeMemoryPressure, total > 0 && available < littleMemory, "Memory", "memory of the host"},
		{corev1.NodeDiskPressure, free < littleDisk, "Disk", "room for the disks of VMs"},
		{corev1.NodePIDPressure, false, "Processes", "a VM is a few processes"},
		{corev1.NodeNetworkUnavailable, false, "Network", "each VM has a network of its own"},
	} {
		status := corev1.ConditionFalse
		if c.is {
			status = corev1.ConditionTrue
		}
		list = append(list, corev1.NodeCondition{Type: c.name, Status: status, Reason: c.reason, Message: c.text,
			LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()})
	}
	return list
}
