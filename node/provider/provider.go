// Package provider is what the library of virtual-kubelet asks for: Pods that come, change and go. It has a worker
// for each Pod, and finds the VMs of Pods again after a restart.
//
// It must not know how a Pod is run.
package provider

import (
	"context"
	"strings"
	"sync"

	"github.com/virtual-kubelet/virtual-kubelet/errdefs"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"banger"
	"banger/node/pod"
	"banger/node/worker"
)

// Provider keeps the Pods of a node. The caller sets its exported fields before it is used.
type Provider struct {
	Machines worker.Machines
	Cluster  worker.Cluster
	Node     string // its name
	HostIP   string

	mu      sync.Mutex
	workers map[string]*worker.Worker // by namespace/name
	ending  map[types.UID]bool        // Pods that are being ended
	changed func(*corev1.Pod)
	wg      sync.WaitGroup
}

func key(namespace, name string) string { return namespace + "/" + name }

// NotifyPods takes what is to be called after each change of a Pod's status.
func (p *Provider) NotifyPods(_ context.Context, changed func(*corev1.Pod)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed = changed
}

func (p *Provider) tell(one *corev1.Pod) {
	p.mu.Lock()
	changed := p.changed
	p.mu.Unlock()
	if changed != nil {
		changed(one)
	}
}

// CreatePod takes a Pod, which may have a VM already, from a process of this node before.
func (p *Provider) CreatePod(_ context.Context, one *corev1.Pod) error {
	w := worker.New(one)
	w.Machines, w.Cluster, w.Node, w.HostIP, w.Changed = p.Machines, p.Cluster, p.Node, p.HostIP, p.tell
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.workers == nil {
		p.workers, p.ending = map[string]*worker.Worker{}, map[types.UID]bool{}
	}
	p.workers[key(one.Namespace, one.Name)] = w
	p.wg.Go(w.Run)
	return nil
}

// UpdatePod takes what may change of a Pod.
func (p *Provider) UpdatePod(_ context.Context, one *corev1.Pod) error {
	if w := p.worker(one.Namespace, one.Name); w != nil {
		w.Update(one)
	}
	return nil
}

func (p *Provider) worker(namespace, name string) *worker.Worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.workers[key(namespace, name)]
}

// DeletePod ends a Pod within its grace, in the background, and removes its VM. The last status is told at the end.
func (p *Provider) DeletePod(ctx context.Context, one *corev1.Pod) error {
	w := p.worker(one.Namespace, one.Name)
	if w == nil || one.UID != "" && w.Pod().UID != one.UID {
		return p.remove(ctx, one)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	uid := w.Pod().UID
	if p.ending[uid] {
		return nil
	}
	p.ending[uid] = true
	p.wg.Go(func() {
		err := w.Stop(context.WithoutCancel(ctx), one)
		p.mu.Lock()
		delete(p.ending, uid)
		if err == nil && p.workers[key(one.Namespace, one.Name)] == w {
			delete(p.workers, key(one.Namespace, one.Name))
		}
		p.mu.Unlock()
		if err != nil {
			p.Cluster.Event(one, true, "FailedKillPod", err.Error())
		}
	})
	return nil
}

// remove removes the VM of a Pod that no worker has: one that was deleted while the node was away.
func (p *Provider) remove(ctx context.Context, one *corev1.Pod) error {
	list, err := p.Machines.List(ctx, true, []string{"label=" + pod.LabelUID + "=" + string(one.UID)})
	if err != nil {
		return err
	}
	for _, vm := range list {
		if err := p.Machines.Remove(ctx, vm.ID, true); err != nil && banger.CodeOf(err) != banger.CodeNotFound {
			return err
		}
	}
	return nil
}

// GetPod returns a Pod that this process keeps.
func (p *Provider) GetPod(_ context.Context, namespace, name string) (*corev1.Pod, error) {
	w := p.worker(namespace, name)
	if w == nil {
		return nil, errdefs.NotFound("there is no Pod " + key(namespace, name))
	}
	return w.Pod(), nil
}

// GetPodStatus returns the status of a Pod that this process keeps.
func (p *Provider) GetPodStatus(ctx context.Context, namespace, name string) (*corev1.PodStatus, error) {
	one, err := p.GetPod(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	return &one.Status, nil
}

// GetPods returns the Pods that this process keeps, and those that only have a VM, from a process before.
func (p *Provider) GetPods(ctx context.Context) ([]*corev1.Pod, error) {
	vms, err := p.Machines.List(ctx, true, []string{"label=" + pod.LabelNode + "=" + p.Node})
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []*corev1.Pod
	known := map[types.UID]bool{}
	for _, w := range p.workers {
		one := w.Pod()
		known[one.UID] = true
		list = append(list, one)
	}
	for _, vm := range vms {
		if uid := types.UID(vm.Spec.Labels[pod.LabelUID]); uid != "" && !known[uid] {
			list = append(list, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid,
				Namespace: vm.Spec.Labels[pod.LabelNamespace], Name: vm.Spec.Labels[pod.LabelName]}})
		}
	}
	return list, nil
}

// VM returns the id of a Pod's VM.
func (p *Provider) VM(namespace, name string) (string, error) {
	one, err := p.GetPod(context.Background(), namespace, name)
	if err != nil {
		return "", err
	}
	for _, c := range one.Status.ContainerStatuses {
		if id, ok := strings.CutPrefix(c.ContainerID, "banger://"); ok {
			return id, nil
		}
	}
	return "", errdefs.NotFound("the Pod " + key(namespace, name) + " has no VM yet")
}

// Session returns the session that a container of a Pod is.
func (p *Provider) Session(namespace, name, container string) (string, error) {
	one, err := p.GetPod(context.Background(), namespace, name)
	if err != nil {
		return "", err
	}
	for i, c := range one.Spec.InitContainers {
		if c.Name == container {
			return pod.InitName(i), nil
		}
	}
	return pod.Main, nil
}

// Close leaves all VMs to the next process.
func (p *Provider) Close() {
	p.mu.Lock()
	workers := p.workers
	p.workers = nil
	p.mu.Unlock()
	for _, w := range workers {
		w.Abandon()
	}
	p.wg.Wait()
}
