package worker

import (
	"context"
	"fmt"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"banger"
	"banger/node/pod"
)

// look tries the liveness probe of the container until ctx ends. A container that fails it is killed, and its restart
// policy starts it again.
func (w *Worker) look(ctx context.Context, vm banger.VM) {
	c := &w.Pod().Spec.Containers[0]
	p := c.LivenessProbe
	if p == nil {
		return
	}
	delay := time.Duration(p.InitialDelaySeconds) * time.Second
	if s := c.StartupProbe; s != nil {
		delay = max(delay, time.Duration(max(s.PeriodSeconds, 1)*max(s.FailureThreshold, 1))*time.Second)
	}
	failures := int32(0)
	for wait := delay; ; wait = time.Duration(max(p.PeriodSeconds, 1)) * time.Second {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		limited, cancel := context.WithTimeout(ctx, time.Duration(max(p.TimeoutSeconds, 1))*time.Second)
		err := w.try(limited, vm, p, c)
		cancel()
		if err == nil || ctx.Err() != nil {
			failures = 0
			continue
		}
		if failures++; failures >= max(p.FailureThreshold, 1) {
			w.Cluster.Event(w.Pod(), true, "Unhealthy", "the liveness probe fails: "+err.Error())
			w.Machines.SignalSession(ctx, vm.ID, pod.Main, int(syscall.SIGKILL))
			failures = 0
		}
	}
}

// try tries a probe once.
func (w *Worker) try(ctx context.Context, vm banger.VM, p *corev1.Probe, c *corev1.Container) error {
	probe, err := pod.Probe(p, c)
	if err != nil {
		return err
	}
	if len(probe.Args) > 0 {
		code, err := w.Machines.Run(ctx, vm.ID, banger.Exec{Args: probe.Args})
		if err == nil && code != 0 {
			err = fmt.Errorf("the command ended with %d", code)
		}
		return err
	}
	return w.Machines.Probe(ctx, vm, probe.Check)
}
