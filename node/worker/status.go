package worker

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"banger"
)

// status is what has become of a Pod.
type status struct {
	begun time.Time // the node has taken the Pod

	phase           corev1.PodPhase // set at the end
	reason, message string          // of that

	waiting, why string // why the container does not run yet
	vm           banger.VM
	inits        map[int]banger.Session
	main         *banger.Session
	restarts     int32 // in VMs before this one

	before corev1.PodStatus // as the cluster had it
}

// earlier returns the status of a Pod that an earlier process may have begun.
func earlier(p *corev1.Pod) status {
	s := status{begun: time.Now(), waiting: "ContainerCreating", inits: map[int]banger.Session{}, before: p.Status}
	if p.Status.StartTime != nil {
		s.begun = p.Status.StartTime.Time
	}
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		s.phase, s.reason, s.message = p.Status.Phase, p.Status.Reason, p.Status.Message
	}
	return s
}

// ran reports whether the container has run in a VM before.
func (s *status) ran() bool {
	if s.main != nil {
		return true
	}
	for _, c := range s.before.ContainerStatuses {
		if c.State.Running != nil || c.State.Terminated != nil || c.RestartCount > 0 {
			return true
		}
	}
	return false
}

// count returns how often the container has started again.
func (s *status) count() int32 {
	n := s.restarts
	if s.main != nil {
		return n + int32(s.main.Restarts)
	}
	for _, c := range s.before.ContainerStatuses {
		n = max(n, c.RestartCount)
	}
	return n
}

// again counts the loss of the VM.
func (s *status) again() {
	s.restarts, s.main = s.count()+1, nil
	s.wait("CrashLoopBackOff", "the VM has ended")
}

func (s *status) wait(reason, message string) { s.waiting, s.why = reason, message }

func (s *status) init(n int, of banger.Session) { s.inits[n] = of }

// run takes what the container's session is.
func (s *status) run(of banger.Session) { s.main, s.waiting, s.why = &of, "", "" }

// end ends the Pod for good.
func (s *status) end(phase corev1.PodPhase, reason, message string) {
	if s.phase == "" {
		s.phase, s.reason, s.message = phase, reason, message
	}
}

// gone says that the VM is gone, because the Pod was deleted.
func (s *status) gone() {
	if s.main != nil && s.main.State != banger.SessionEnded {
		s.main.State, s.main.Ended, s.main.Exit = banger.SessionEnded, time.Now(), &banger.Exit{Code: 137}
	}
	s.end(corev1.PodFailed, "", "")
}

// of returns the status as the cluster has it.
func (s *status) of(p *corev1.Pod, hostIP string) corev1.PodStatus {
	out := corev1.PodStatus{Phase: s.phase, Reason: s.reason, Message: s.message, HostIP: hostIP,
		HostIPs: []corev1.HostIP{{IP: hostIP}}, StartTime: &metav1.Time{Time: s.begun}, QOSClass: s.before.QOSClass,
		ObservedGeneration: p.Generation}
	if s.vm.Address != "" && s.phase == "" {
		out.PodIP, out.PodIPs = s.vm.Address, []corev1.PodIP{{IP: s.vm.Address}}
	}
	for i := range p.Spec.InitContainers {
		out.InitContainerStatuses = append(out.InitContainerStatuses, s.initContainer(&p.Spec.InitContainers[i], i))
	}
	container := s.container(&p.Spec.Containers[0])
	out.ContainerStatuses = []corev1.ContainerStatus{container}
	if out.Phase == "" {
		out.Phase = corev1.PodPending
		if container.State.Running != nil || s.main != nil {
			out.Phase = corev1.PodRunning
		}
	}
	waits := func(c corev1.ContainerStatus) bool { return !c.Ready }
	initialized := s.main != nil || !slices.ContainsFunc(out.InitContainerStatuses, waits)
	gates := container.Ready
	for _, gate := range p.Spec.ReadinessGates {
		gates = gates && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == gate.ConditionType && c.Status == corev1.ConditionTrue
		})
	}
	out.Conditions = conditions(p.Status.Conditions, s.before.Conditions, map[corev1.PodConditionType]bool{
		corev1.PodReadyToStartContainers: s.vm.ID != "" && s.phase == "", corev1.PodInitialized: initialized,
		corev1.ContainersReady: container.Ready, corev1.PodReady: gates}, p.Generation)
	s.before.Conditions = out.Conditions
	return out
}

// conditions returns a Pod's conditions: those that are not ours as they are, and ours with the time of their change.
func conditions(now, before []corev1.PodCondition, ours map[corev1.PodConditionType]bool,
	generation int64) []corev1.PodCondition {
	var out []corev1.PodCondition
	for _, c := range now {
		if _, is := ours[c.Type]; !is {
			out = append(out, c)
		}
	}
	for _, name := range []corev1.PodConditionType{corev1.PodReadyToStartContainers, corev1.PodInitialized,
		corev1.ContainersReady, corev1.PodReady} {
		c := corev1.PodCondition{Type: name, Status: corev1.ConditionFalse, LastTransitionTime: metav1.Now(),
			ObservedGeneration: generation}
		if ours[name] {
			c.Status = corev1.ConditionTrue
		}
		for _, old := range before {
			if old.Type == name && old.Status == c.Status {
				c.LastTransitionTime = old.LastTransitionTime
			}
		}
		out = append(out, c)
	}
	return out
}

func (s *status) container(c *corev1.Container) corev1.ContainerStatus {
	out := corev1.ContainerStatus{Name: c.Name, Image: c.Image, RestartCount: s.count(), Started: new(bool)}
	if s.vm.ID != "" {
		out.ContainerID, out.ImageID = "banger://"+s.vm.ID, s.vm.ImageDigest
	}
	switch {
	case s.main == nil && s.phase != "" && len(s.before.ContainerStatuses) > 0:
		return s.before.ContainerStatuses[0]
	case s.main == nil && s.phase != "":
		out.State.Terminated = &corev1.ContainerStateTerminated{ExitCode: 128, Reason: s.reason, Message: s.message,
			FinishedAt: metav1.Now()}
	case s.main == nil:
		out.State.Waiting = &corev1.ContainerStateWaiting{Reason: s.waiting, Message: s.why}
	default:
		out.State, out.LastTerminationState = states(*s.main)
		*out.Started = out.State.Running != nil
		out.Ready = out.State.Running != nil && (s.main.Readiness == nil || s.main.Readiness.Ready) && s.phase == ""
	}
	return out
}

func (s *status) initContainer(c *corev1.Container, n int) corev1.ContainerStatus {
	out := corev1.ContainerStatus{Name: c.Name, Image: c.Image, Started: new(bool)}
	one, is := s.inits[n]
	switch {
	case is:
		out.State, out.LastTerminationState = states(one)
		out.RestartCount = int32(one.Restarts)
		*out.Started = out.State.Running != nil
		out.Ready = out.State.Terminated != nil && out.State.Terminated.ExitCode == 0
	case n < len(s.before.InitContainerStatuses):
		return s.before.InitContainerStatuses[n]
	default:
		out.State.Waiting = &corev1.ContainerStateWaiting{Reason: "PodInitializing"}
	}
	if s.vm.ID != "" {
		out.ContainerID, out.ImageID = "banger://"+s.vm.ID, s.vm.ImageDigest
	}
	return out
}

// states returns the present and the last state of a session as those of a container.
func states(s banger.Session) (now, last corev1.ContainerState) {
	ended := func() *corev1.ContainerStateTerminated {
		t := &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "Error", Message: s.Reason,
			StartedAt: metav1.Time{Time: s.Started}, FinishedAt: metav1.Time{Time: s.Ended}}
		if s.Exit != nil {
			t.ExitCode, t.Signal = int32(s.Exit.Status()), int32(s.Exit.Signal)
		}
		if t.ExitCode == 0 {
			t.Reason = "Completed"
		}
		return t
	}
	switch s.State {
	case banger.SessionRunning:
		now.Running = &corev1.ContainerStateRunning{StartedAt: metav1.Time{Time: s.Started}}
		if s.Restarts > 0 {
			last.Terminated = ended()
		}
	case banger.SessionWaiting:
		now.Waiting = &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: s.Reason}
		last.Terminated = ended()
	default:
		now.Terminated = ended()
	}
	return now, last
}
