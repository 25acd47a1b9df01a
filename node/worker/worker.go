// Package worker keeps one Pod as one VM: it makes the VM or finds the one that is there, fills its volumes, runs its
// commands, and tells what has become of them. Each step looks first at what is done already, so that a worker goes on
// where one of a process before has ended.
//
// The package must not know the API server of a cluster, nor how a VM is run.
package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"banger"
	"banger/node/pod"
)

// Machines are the daemon of this host.
type Machines interface {
	VMs
	Sessions
	Guests
}

// VMs are made and ended.
type VMs interface {
	List(ctx context.Context, all bool, filters []string) ([]banger.VM, error)
	Get(ctx context.Context, ref string) (banger.VM, error)
	Create(ctx context.Context, spec banger.Spec, secrets map[string][]byte, start bool,
		emit banger.Emit) (banger.VM, error)
	Start(ctx context.Context, ref string, attach, cold bool, emit banger.Emit) (banger.VM, error)
	Resume(ctx context.Context, ref string, emit banger.Emit) (banger.VM, error)
	Suspend(ctx context.Context, ref string, withSecrets bool) (banger.VM, error)
	Remove(ctx context.Context, ref string, force bool) error
	Image(ctx context.Context, ref string) (banger.Image, error)
}

// Sessions are the commands of VMs.
type Sessions interface {
	Session(ctx context.Context, vm, name string) (banger.Session, error)
	StartSession(ctx context.Context, vm string, spec banger.SessionSpec) (banger.Session, error)
	StopSession(ctx context.Context, vm, name string, grace time.Duration) (banger.Session, error)
	SignalSession(ctx context.Context, vm, name string, signal int) (banger.Session, error)
	RemoveSession(ctx context.Context, vm, name string, force bool) error
	SessionEvents(ctx context.Context, vm, since string, follow bool, tell func(banger.SessionChange)) error
}

// Guests are reached inside of VMs.
type Guests interface {
	// Put extracts a tar at the root of a VM. Its paths lie behind no symlink.
	Put(ctx context.Context, vm string, archive []byte) error
	// Real returns an absolute path without symlinks in the parts of it that exist.
	Real(ctx context.Context, vm, path string) (string, error)
	// Run runs a command in a VM to its end, and returns its exit code.
	Run(ctx context.Context, vm string, e banger.Exec) (int, error)
	// Probe tries tcp:PORT or http:PORT/PATH of a VM.
	Probe(ctx context.Context, vm banger.VM, check string) error
}

// Cluster is what a worker wants of the cluster.
type Cluster interface {
	pod.Sources
	// Access returns the logins for the images of a Pod.
	Access(ctx context.Context, p *corev1.Pod) (banger.RegistryAccess, error)
	// Event tells the cluster what happens to a Pod.
	Event(p *corev1.Pod, warning bool, reason, text string)
}

// Pauses between attempts to do what has failed.
const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// Worker keeps one Pod. Run has to be called once.
type Worker struct {
	Machines Machines
	Cluster  Cluster
	Node     string // the name of the node
	HostIP   string
	// Changed is called after each change of the status, with a Pod that has it. It must not block for long.
	Changed func(*corev1.Pod)

	mu     sync.Mutex
	pod    *corev1.Pod // as the cluster has it; never changed in place
	status status
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}
}

// New returns a worker for a Pod, whose status may be that of an earlier process.
func New(p *corev1.Pod) *Worker {
	w := &Worker{pod: p, done: make(chan struct{})}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	w.status = earlier(p)
	return w
}

// Pod returns the Pod with its present status.
func (w *Worker) Pod() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.withStatus()
}

// withStatus returns a copy of the Pod with its present status. mu is held.
func (w *Worker) withStatus() *corev1.Pod {
	p := w.pod.DeepCopy()
	p.Status = w.status.of(p, w.HostIP)
	return p
}

// Update takes the Pod as the cluster has it now. Labels and annotations may change.
func (w *Worker) Update(p *corev1.Pod) {
	w.mu.Lock()
	w.pod = p
	w.mu.Unlock()
}

// set changes the status, and tells it.
func (w *Worker) set(change func(*status)) {
	w.mu.Lock()
	change(&w.status)
	p := w.withStatus()
	w.mu.Unlock()
	w.Changed(p)
}

// Run keeps the Pod until it has ended for good, or Stop or Abandon is called.
func (w *Worker) Run() {
	defer close(w.done)
	p := w.Pod()
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return
	}
	plan, err := pod.New(p, w.Node)
	if err != nil {
		w.Cluster.Event(p, true, "Unsupported", err.Error())
		w.set(func(s *status) { s.end(corev1.PodFailed, "Unsupported", err.Error()) })
		return
	}
	if seconds := p.Spec.ActiveDeadlineSeconds; seconds != nil {
		late := time.AfterFunc(time.Until(w.status.begun.Add(time.Duration(*seconds)*time.Second)), w.expire)
		defer late.Stop()
	}
	pause := firstPause
	for w.ctx.Err() == nil {
		begun := time.Now()
		over, err := w.live(w.ctx, plan)
		if over || w.ctx.Err() != nil {
			return
		}
		if err != nil {
			w.say(err)
		}
		if time.Since(begun) > lastPause {
			pause = firstPause
		}
		select {
		case <-w.ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// say tells why the Pod does not come up.
func (w *Worker) say(err error) {
	reason := "CreateContainerError"
	if f, ok := errors.AsType[*failed](err); ok {
		reason = f.reason
	}
	w.Cluster.Event(w.Pod(), true, reason, err.Error())
	w.set(func(s *status) { s.wait(reason, err.Error()) })
}

// failed is an error with a reason for the cluster.
type failed struct {
	reason string
	err    error
}

func (f *failed) Error() string { return f.err.Error() }
func (f *failed) Unwrap() error { return f.err }

// live brings the Pod up from whatever state it is in, and follows it. It reports whether the Pod has ended for good.
func (w *Worker) live(ctx context.Context, plan *pod.Plan) (over bool, err error) {
	vm, over, err := w.machine(ctx, plan)
	if over || err != nil {
		return over, err
	}
	w.set(func(s *status) { s.vm = vm })
	image, err := w.Machines.Image(ctx, vm.ImageDigest)
	if err != nil {
		return false, err
	}
	main, err := w.session(ctx, vm.ID, pod.Main)
	if err != nil {
		return false, err
	}
	if main == nil || cut(main) {
		if main != nil {
			if over := w.lost(plan); over {
				return true, nil
			}
			if err := w.Machines.RemoveSession(ctx, vm.ID, pod.Main, true); err != nil {
				return false, err
			}
		}
		if over, err := w.begin(ctx, plan, vm, image); over || err != nil {
			return over, err
		}
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go w.look(ctx, vm) // ends with ctx
	return w.follow(ctx, plan, vm)
}

// cut reports whether a session was cut off by the end of its guest.
func cut(s *banger.Session) bool { return s.State == banger.SessionEnded && s.Exit == nil }

// session returns a session, or nil if there is none.
func (w *Worker) session(ctx context.Context, vm, name string) (*banger.Session, error) {
	s, err := w.Machines.Session(ctx, vm, name)
	if banger.CodeOf(err) == banger.CodeNotFound {
		return nil, nil
	}
	return &s, err
}

// machine returns the Pod's VM, which runs. It makes one if there is none.
func (w *Worker) machine(ctx context.Context, plan *pod.Plan) (vm banger.VM, over bool, err error) {
	p := w.Pod()
	list, err := w.Machines.List(ctx, true, []string{"label=" + pod.LabelUID + "=" + string(p.UID)})
	if err != nil {
		return vm, false, err
	}
	if len(list) == 0 {
		if w.status.ran() && w.lost(plan) {
			return vm, true, nil
		}
		vm, err = w.create(ctx, plan, p)
		return vm, false, err
	}
	vm = list[0]
	switch {
	case vm.State == banger.StateSuspended:
		vm, err = w.Machines.Resume(ctx, vm.ID, func(banger.Event) {})
	case vm.State.AtRest():
		if w.status.ran() && w.lost(plan) {
			return vm, true, nil
		}
		vm, err = w.Machines.Start(ctx, vm.ID, false, false, func(banger.Event) {})
	case vm.State != banger.StateRunning:
		err = fmt.Errorf("the VM is %s", vm.State)
	}
	return vm, false, err
}

// lost counts the loss of a container whose VM has ended. It reports whether that ends the Pod.
func (w *Worker) lost(plan *pod.Plan) bool {
	if plan.Main.Session.Restart.Active() {
		w.Cluster.Event(w.Pod(), true, "Lost", "the VM has ended, and starts again")
		w.set(func(s *status) { s.again() })
		return false
	}
	w.set(func(s *status) { s.end(corev1.PodFailed, "Lost", "the VM has ended") })
	return true
}

// create makes the VM.
func (w *Worker) create(ctx context.Context, plan *pod.Plan, p *corev1.Pod) (banger.VM, error) {
	access, err := w.Cluster.Access(ctx, p)
	if err != nil {
		return banger.VM{}, err
	}
	if err := plan.Environment(ctx, p, w.Cluster); err != nil {
		return banger.VM{}, &failed{"CreateContainerConfigError", err}
	}
	w.set(func(s *status) { s.wait("ContainerCreating", "") })
	stage := ""
	vm, err := w.Machines.Create(banger.WithRegistryAccess(ctx, access), plan.Spec, nil, true, func(e banger.Event) {
		if stage = e.Stage; e.Stage == "pull" && !e.Done && e.Text != "" && e.Total == 0 {
			w.Cluster.Event(p, false, "Pulling", e.Text)
		}
	})
	if err == nil {
		w.Cluster.Event(p, false, "Started", fmt.Sprintf("VM %s (%s) has started from image %s", vm.Name, vm.Isolation,
			plan.Spec.Image))
		return vm, nil
	}
	reason := "CreateContainerError"
	switch code := banger.CodeOf(err); {
	case code == banger.CodeNotFound && plan.Spec.Pull == banger.PullNever:
		reason = "ErrImageNeverPull"
	case stage == "pull", code == banger.CodeBadImage:
		reason = "ErrImagePull"
	}
	return vm, &failed{reason, err}
}

// follow tells what the container does until it has ended for good.
func (w *Worker) follow(ctx context.Context, plan *pod.Plan, vm banger.VM) (over bool, err error) {
	var last banger.Session
	err = w.sessions(ctx, vm.ID, func(all map[string]banger.Session) bool {
		last = all[pod.Main]
		for i := range plan.Inits {
			if s, ok := all[pod.InitName(i)]; ok {
				w.set(func(st *status) { st.init(i, s) })
			}
		}
		w.set(func(s *status) { s.run(last) })
		return last.State == banger.SessionEnded
	})
	if err != nil || last.State != banger.SessionEnded || last.Exit == nil {
		return false, errors.Join(err, ctx.Err())
	}
	phase := corev1.PodSucceeded
	if last.Exit.Status() != 0 {
		phase = corev1.PodFailed
	}
	w.set(func(s *status) { s.end(phase, "", "") })
	// The output stays on the VM's disk, and a suspended VM wakes when it is read.
	w.Machines.Suspend(ctx, vm.ID, false)
	return true, nil
}

// sessions calls each with all sessions of a VM, first and after each change, until it returns true or the stream ends.
func (w *Worker) sessions(ctx context.Context, vm string, each func(map[string]banger.Session) bool) error {
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	all := map[string]banger.Session{}
	done := false
	err := w.Machines.SessionEvents(ctx, vm, "", true, func(c banger.SessionChange) {
		if c.State {
			clear(all)
		}
		for _, s := range c.Sessions {
			all[s.Name] = s
		}
		if c.Session != nil {
			all[c.Session.Name] = *c.Session
		}
		delete(all, c.Removed)
		if !done && c.Error == nil && each(all) {
			done = true
			enough()
		}
	})
	if done {
		return nil
	}
	return err
}

// expire ends a Pod whose time is over.
func (w *Worker) expire() {
	w.Cluster.Event(w.Pod(), true, "DeadlineExceeded", "the Pod has run for as long as it may")
	w.set(func(s *status) { s.end(corev1.PodFailed, "DeadlineExceeded", "the Pod has run for as long as it may") })
	w.cancel()
	<-w.done
	w.remove(context.Background(), grace(w.Pod()))
}

// grace returns how long a Pod may take to end.
func grace(p *corev1.Pod) time.Duration {
	seconds := p.DeletionGracePeriodSeconds
	if seconds == nil {
		seconds = p.Spec.TerminationGracePeriodSeconds
	}
	if seconds == nil {
		return 30 * time.Second
	}
	return time.Duration(*seconds) * time.Second
}

// Abandon ends the worker, and leaves the VM to the next process.
func (w *Worker) Abandon() {
	w.cancel()
	<-w.done
}

// Stop ends the Pod within its grace, and removes its VM. It tells the last status.
func (w *Worker) Stop(ctx context.Context, p *corev1.Pod) error {
	w.Abandon()
	if err := w.remove(ctx, grace(p)); err != nil {
		return err
	}
	w.set(func(s *status) { s.gone() })
	return nil
}

// remove ends the container, and removes the VM.
func (w *Worker) remove(ctx context.Context, grace time.Duration) error {
	p := w.Pod()
	list, err := w.Machines.List(ctx, true, []string{"label=" + pod.LabelUID + "=" + string(p.UID)})
	if err != nil {
		return err
	}
	for _, vm := range list {
		if vm.State == banger.StateRunning && grace > 0 {
			limited, cancel := context.WithTimeout(ctx, grace+time.Second)
			begun := time.Now()
			if h := p.Spec.Containers[0].Lifecycle; h != nil {
				w.hook(limited, vm.ID, "PreStop", h.PreStop)
			}
			s, err := w.Machines.StopSession(limited, vm.ID, pod.Main, max(grace-time.Since(begun), 0))
			cancel()
			if err == nil {
				w.set(func(st *status) { st.run(s) })
			}
		}
		if err := w.Machines.Remove(ctx, vm.ID, true); err != nil && banger.CodeOf(err) != banger.CodeNotFound {
			return err
		}
	}
	return nil
}
