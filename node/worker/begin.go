package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"banger"
	"banger/node/pod"
)

// begin fills the volumes, runs the init containers, and starts the container.
func (w *Worker) begin(ctx context.Context, plan *pod.Plan, vm banger.VM, image banger.Image) (over bool, err error) {
	p := w.Pod()
	if err := plan.Environment(ctx, p, w.Cluster); err != nil { // again: the VM may be that of a process before
		return false, &failed{"CreateContainerConfigError", err}
	}
	if len(plan.Mounts) > 0 {
		archive, err := plan.Archive(ctx, p, w.Cluster, func(path string) (string, error) {
			return w.Machines.Real(ctx, vm.ID, path)
		})
		if err != nil {
			return false, &failed{"FailedMount", err}
		}
		if err := w.Machines.Put(ctx, vm.ID, archive); err != nil {
			return false, &failed{"FailedMount", err}
		}
	}
	for i, one := range plan.Inits {
		if over, err := w.runInit(ctx, vm, i, one.Resolve(image)); over || err != nil {
			return over, err
		}
	}
	spec := plan.Main.Resolve(image)
	if len(spec.Command.Args) == 0 {
		w.set(func(s *status) { s.end(corev1.PodFailed, "NoCommand", "the image names no command") })
		return true, nil
	}
	if _, err = w.Machines.StartSession(ctx, vm.ID, spec); err != nil {
		return false, &failed{"RunContainerError", err}
	}
	if h := p.Spec.Containers[0].Lifecycle; h != nil {
		w.hook(ctx, vm.ID, "PostStart", h.PostStart)
	}
	return false, nil
}

// runInit runs an init container to its end, unless that was done before.
func (w *Worker) runInit(ctx context.Context, vm banger.VM, n int, spec banger.SessionSpec) (over bool, err error) {
	name := pod.InitName(n)
	s, err := w.session(ctx, vm.ID, name)
	if err == nil && s != nil && cut(s) {
		if err = w.Machines.RemoveSession(ctx, vm.ID, name, true); err == nil {
			s = nil
		}
	}
	if err == nil && s == nil {
		_, err = w.Machines.StartSession(ctx, vm.ID, spec)
	}
	if err != nil {
		return false, err
	}
	var last banger.Session
	err = w.sessions(ctx, vm.ID, func(all map[string]banger.Session) bool {
		last = all[name]
		w.set(func(s *status) { s.init(n, last) })
		return last.State == banger.SessionEnded
	})
	if err != nil || last.Exit == nil {
		return false, errors.Join(err, ctx.Err())
	}
	if code := last.Exit.Status(); code != 0 {
		w.set(func(s *status) {
			s.end(corev1.PodFailed, "InitFailed", fmt.Sprintf("init container %d ended with %d", n, code))
		})
		return true, nil
	}
	return false, nil
}

// hook runs a hook, for at most the time of the Pod's grace.
func (w *Worker) hook(ctx context.Context, vm, name string, h *corev1.LifecycleHandler) {
	switch {
	case h == nil:
	case h.Sleep != nil:
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(h.Sleep.Seconds) * time.Second):
		}
	case h.Exec != nil:
		if code, err := w.Machines.Run(ctx, vm, banger.Exec{Args: h.Exec.Command}); err != nil || code != 0 {
			w.Cluster.Event(w.Pod(), true, "Failed"+name+"Hook", fmt.Sprintf("the command ended with %d: %v", code, err))
		}
	}
}
