package kubelet

import (
	"context"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/virtual-kubelet/virtual-kubelet/node/api"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// use is what a Pod uses now.
type use struct {
	pod     *corev1.Pod
	seconds float64 // of CPU, since the VM's start
	memory  uint64  // bytes
}

// uses asks the daemon what each Pod uses.
func (k Kubelet) uses(ctx context.Context, pods []*corev1.Pod) (list []use) {
	for _, p := range pods {
		if p.Status.Phase != corev1.PodRunning || len(p.Status.ContainerStatuses) == 0 {
			continue
		}
		id, ok := strings.CutPrefix(p.Status.ContainerStatuses[0].ContainerID, "banger://")
		if !ok {
			continue
		}
		s, err := k.Daemon.Stats(ctx, id)
		if err != nil {
			continue // it has just ended
		}
		list = append(list, use{p, s.CPUTime.Seconds(), uint64(s.Memory)})
	}
	return list
}

// Stats returns what answers /stats/summary.
func (k Kubelet) Stats(node string, pods api.PodListerFunc) api.PodStatsSummaryHandlerFunc {
	return func(ctx context.Context) (*stats.Summary, error) {
		list, err := pods(ctx)
		if err != nil {
			return nil, err
		}
		out := &stats.Summary{Node: stats.NodeStats{NodeName: node}}
		now := metav1.Now()
		var all, memory uint64
		for _, u := range k.uses(ctx, list) {
			nanos, bytes := uint64(u.seconds*1e9), u.memory
			all, memory = all+nanos, memory+bytes
			cpu := &stats.CPUStats{Time: now, UsageCoreNanoSeconds: &nanos}
			mem := &stats.MemoryStats{Time: now, UsageBytes: &bytes, WorkingSetBytes: &bytes}
			out.Pods = append(out.Pods, stats.PodStats{CPU: cpu, Memory: mem, StartTime: *u.pod.Status.StartTime,
				PodRef:     stats.PodReference{Name: u.pod.Name, Namespace: u.pod.Namespace, UID: string(u.pod.UID)},
				Containers: []stats.ContainerStats{{Name: u.pod.Spec.Containers[0].Name, CPU: cpu, Memory: mem}}})
		}
		out.Node.CPU = &stats.CPUStats{Time: now, UsageCoreNanoSeconds: &all}
		out.Node.Memory = &stats.MemoryStats{Time: now, UsageBytes: &memory, WorkingSetBytes: &memory}
		return out, nil
	}
}

// Metrics returns what answers /metrics/resource, which metrics-server reads for kubectl top.
func (k Kubelet) Metrics(_ string, pods api.PodListerFunc) api.PodMetricsResourceHandlerFunc {
	return func(ctx context.Context) ([]*dto.MetricFamily, error) {
		list, err := pods(ctx)
		if err != nil {
			return nil, err
		}
		cpu := family("container_cpu_usage_seconds_total", dto.MetricType_COUNTER)
		memory := family("container_memory_working_set_bytes", dto.MetricType_GAUGE)
		allCPU, allMemory := 0.0, 0.0
		at := time.Now().UnixMilli()
		for _, u := range k.uses(ctx, list) {
			labels := []*dto.LabelPair{label("container", u.pod.Spec.Containers[0].Name),
				label("namespace", u.pod.Namespace), label("pod", u.pod.Name)}
			bytes := float64(u.memory)
			cpu.Metric = append(cpu.Metric, &dto.Metric{Label: labels, Counter: &dto.Counter{Value: &u.seconds},
				TimestampMs: &at})
			memory.Metric = append(memory.Metric, &dto.Metric{Label: labels, Gauge: &dto.Gauge{Value: &bytes},
				TimestampMs: &at})
			allCPU, allMemory = allCPU+u.seconds, allMemory+bytes
		}
		nodeCPU := family("node_cpu_usage_seconds_total", dto.MetricType_COUNTER)
		nodeCPU.Metric = []*dto.Metric{{Counter: &dto.Counter{Value: &allCPU}, TimestampMs: &at}}
		nodeMemory := family("node_memory_working_set_bytes", dto.MetricType_GAUGE)
		nodeMemory.Metric = []*dto.Metric{{Gauge: &dto.Gauge{Value: &allMemory}, TimestampMs: &at}}
		return []*dto.MetricFamily{cpu, memory, nodeCPU, nodeMemory}, nil
	}
}

func family(name string, kind dto.MetricType) *dto.MetricFamily {
	return &dto.MetricFamily{Name: &name, Type: &kind}
}

func label(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }
