// Package pod says what a Pod of Kubernetes is as a VM of banger: a machine that waits, and commands in it. What
// cannot be honoured is an error before any effect.
//
// It must not know how VMs are made, nor how a Pod comes here.
package pod

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"banger"
)

// Labels of a Pod's VM, by which a node finds its VMs again.
const (
	LabelNode      = "kubernetes.io/node"
	LabelUID       = "kubernetes.io/pod-uid"
	LabelNamespace = "kubernetes.io/pod-namespace"
	LabelName      = "kubernetes.io/pod-name"
)

// Main is the name of the session that is a Pod's container.
const Main = "main"

// InitName returns the name of the session that is a Pod's n-th init container.
func InitName(n int) string { return fmt.Sprintf("init-%d", n) }

// Unsupported is why a Pod cannot be a VM.
type Unsupported struct{ What string }

func (u *Unsupported) Error() string { return "banger runs no Pod with " + u.What }

// Plan is a Pod as a VM.
type Plan struct {
	Spec   banger.Spec // without what the image's digest decides
	Inits  []Command   // run first, one after the other
	Main   Command
	Mounts []Mount
}

// Command is a container as a command in the VM.
type Command struct {
	Container string
	Args      []string // "" in place of the first words means those of the image; see Resolve
	Command   []string
	Session   banger.SessionSpec
}

// Resolve returns the session of a command in an image.
func (c Command) Resolve(image banger.Image) banger.SessionSpec {
	s := c.Session
	entrypoint, args := image.Config.Entrypoint, image.Config.Cmd
	if len(c.Command) > 0 {
		entrypoint, args = c.Command, nil
	}
	if len(c.Args) > 0 {
		args = c.Args
	}
	s.Command.Args = slices.Concat(entrypoint, args)
	return s
}

// Name returns the name of a Pod's VM.
func Name(p *corev1.Pod) string {
	name := strings.Trim(p.Name[:min(len(p.Name), 40)], "-.")
	return strings.ReplaceAll(name, ".", "-") + "-" + string(p.UID)[:min(len(p.UID), 8)]
}

// New returns what a Pod is as a VM of a node, without the values of its environment. An error is of type *Unsupported.
func New(p *corev1.Pod, node string) (*Plan, error) {
	if err := check(p); err != nil {
		return nil, err
	}
	c := &p.Spec.Containers[0]
	plan := &Plan{Spec: banger.Spec{Name: Name(p), Image: c.Image, Hostname: hostname(p), Entrypoint: []string{""},
		Init: banger.InitAgent, NoReady: true, WorkingDir: c.WorkingDir, User: user(p, c),
		Labels: map[string]string{LabelNode: node, LabelUID: string(p.UID), LabelNamespace: p.Namespace, LabelName: p.Name}}}
	switch c.ImagePullPolicy {
	case corev1.PullAlways:
		plan.Spec.Pull = banger.PullAlways
	case corev1.PullNever:
		plan.Spec.Pull = banger.PullNever
	}
	if err := plan.resources(p); err != nil {
		return nil, err
	}
	if err := plan.confine(p, c); err != nil {
		return nil, err
	}
	plan.network(p, c)
	if err := plan.volumes(p); err != nil {
		return nil, err
	}
	for i := range p.Spec.InitContainers {
		one, err := command(p, &p.Spec.InitContainers[i], InitName(i))
		if err != nil {
			return nil, err
		}
		if one.Session.Restart.Name == banger.RestartAlways { // it runs until it succeeds, and not again
			one.Session.Restart.Name = banger.RestartOnFailure
		}
		one.Session.Ready = nil
		plan.Inits = append(plan.Inits, one)
	}
	var err error
	plan.Main, err = command(p, c, Main)
	if err == nil {
		check := plan.Spec
		if cerr := check.Normalize(); cerr != nil {
			return nil, &Unsupported{"this specification: " + cerr.Error()}
		}
	}
	return plan, err
}

// check refuses what no part of a VM can be.
func check(p *corev1.Pod) error {
	s := &p.Spec
	switch {
	case len(s.Containers) != 1:
		return &Unsupported{fmt.Sprintf("%d containers: one VM has one", len(s.Containers))}
	case s.HostNetwork:
		return &Unsupported{"the host's network"}
	case s.HostPID || s.HostIPC:
		return &Unsupported{"the host's processes"}
	case s.OS != nil && s.OS.Name != corev1.Linux:
		return &Unsupported{"another operating system than Linux"}
	case len(s.ResourceClaims) > 0:
		return &Unsupported{"resource claims"}
	}
	for i := range s.InitContainers {
		c := &s.InitContainers[i]
		if c.Image != s.Containers[0].Image {
			return &Unsupported{fmt.Sprintf("init container %s of another image: all run in one VM", c.Name)}
		}
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			return &Unsupported{fmt.Sprintf("sidecar %s: one VM has one container", c.Name)}
		}
	}
	c := &s.Containers[0]
	if h := c.Lifecycle; h != nil && (other(h.PostStart) || other(h.PreStop)) {
		return &Unsupported{"hooks that are no commands"}
	}
	if len(c.VolumeDevices) > 0 {
		return &Unsupported{"block devices"}
	}
	for _, port := range c.Ports {
		if port.Protocol == corev1.ProtocolSCTP {
			return &Unsupported{"SCTP"}
		}
	}
	return nil
}

func other(h *corev1.LifecycleHandler) bool { return h != nil && h.Exec == nil && h.Sleep == nil }

func hostname(p *corev1.Pod) string {
	name := p.Spec.Hostname
	if name == "" {
		name = p.Name
	}
	return strings.TrimRight(strings.ReplaceAll(name[:min(len(name), 63)], ".", "-"), "-")
}

// command returns a container as a session.
func command(p *corev1.Pod, c *corev1.Container, name string) (Command, error) {
	e := banger.Exec{TTY: c.TTY, Stdin: c.Stdin, Dir: c.WorkingDir, User: user(p, c)}
	s := banger.SessionSpec{Name: name, Command: e}
	switch p.Spec.RestartPolicy {
	case corev1.RestartPolicyNever:
	case corev1.RestartPolicyOnFailure:
		s.Restart.Name = banger.RestartOnFailure
	default:
		s.Restart.Name = banger.RestartAlways
	}
	var err error
	if s.Ready, err = Probe(c.ReadinessProbe, c); err != nil {
		return Command{}, err
	}
	if s.Ready != nil && c.StartupProbe != nil {
		patience := period(c.StartupProbe) * time.Duration(max(c.StartupProbe.FailureThreshold, 1))
		s.Ready.StartPeriod = max(s.Ready.StartPeriod, patience)
	}
	return Command{Container: c.Name, Command: c.Command, Args: c.Args, Session: s}, nil
}

func user(p *corev1.Pod, c *corev1.Container) string {
	var uid, gid *int64
	if s := p.Spec.SecurityContext; s != nil {
		uid, gid = s.RunAsUser, s.RunAsGroup
	}
	if s := c.SecurityContext; s != nil {
		if s.RunAsUser != nil {
			uid = s.RunAsUser
		}
		if s.RunAsGroup != nil {
			gid = s.RunAsGroup
		}
	}
	switch {
	case uid == nil:
		return ""
	case gid == nil:
		return strconv.FormatInt(*uid, 10)
	}
	return fmt.Sprintf("%d:%d", *uid, *gid)
}

func period(p *corev1.Probe) time.Duration {
	return time.Duration(max(p.PeriodSeconds, 1)) * time.Second
}

// Probe returns a probe as the agent tries it. A nil probe has none.
func Probe(p *corev1.Probe, c *corev1.Container) (*banger.Probe, error) {
	if p == nil {
		return nil, nil
	}
	out := &banger.Probe{Interval: period(p), Timeout: time.Duration(max(p.TimeoutSeconds, 1)) * time.Second,
		Retries: int(p.FailureThreshold), StartPeriod: time.Duration(p.InitialDelaySeconds) * time.Second}
	switch {
	case p.Exec != nil:
		out.Args = p.Exec.Command
	case p.TCPSocket != nil:
		n, err := port(p.TCPSocket.Port, c)
		if err != nil {
			return nil, err
		}
		out.Check = fmt.Sprintf("tcp:%d", n)
	case p.HTTPGet != nil && p.HTTPGet.Scheme != corev1.URISchemeHTTPS && len(p.HTTPGet.HTTPHeaders) == 0:
		n, err := port(p.HTTPGet.Port, c)
		if err != nil {
			return nil, err
		}
		out.Check = fmt.Sprintf("http:%d/%s", n, strings.TrimPrefix(p.HTTPGet.Path, "/"))
	default:
		return nil, &Unsupported{"probes by gRPC, by HTTPS, or with headers"}
	}
	if err := out.Validate(); err != nil {
		return nil, &Unsupported{"this probe: " + err.Error()}
	}
	return out, nil
}

// port returns the number of a port, which may have a name.
func port(p intstr.IntOrString, c *corev1.Container) (int32, error) {
	if p.Type == intstr.Int {
		return p.IntVal, nil
	}
	for _, one := range c.Ports {
		if one.Name == p.StrVal {
			return one.ContainerPort, nil
		}
	}
	return 0, &Unsupported{fmt.Sprintf("a probe of the port %q, which has no number", p.StrVal)}
}

// resources sets the sizes of the VM: the limits, else the requests, else banger's own.
func (plan *Plan) resources(p *corev1.Pod) error {
	r := p.Spec.Containers[0].Resources
	pick := func(name corev1.ResourceName) (v int64, milli int64) {
		q, ok := r.Limits[name]
		if !ok {
			q = r.Requests[name]
		}
		return q.Value(), q.MilliValue()
	}
	if _, milli := pick(corev1.ResourceCPU); milli > 0 {
		plan.Spec.CPUs = int(math.Ceil(float64(milli) / 1000))
		if limit, ok := r.Limits[corev1.ResourceCPU]; ok && limit.MilliValue()%1000 != 0 {
			plan.Spec.Confine.CPU = max(milli, 10)
		}
	}
	if v, _ := pick(corev1.ResourceMemory); v > 0 {
		plan.Spec.Memory = max(v, banger.MinMemory)
	}
	if v, _ := pick(corev1.ResourceEphemeralStorage); v > 0 {
		plan.Spec.Disk = max(v, banger.MinDisk)
	}
	for _, list := range []corev1.ResourceList{r.Limits, r.Requests} {
		for name := range list {
			if name != corev1.ResourceCPU && name != corev1.ResourceMemory && name != corev1.ResourceEphemeralStorage {
				return &Unsupported{fmt.Sprintf("the resource %s", name)}
			}
		}
	}
	return nil
}

// confine sets what the container may do in its VM.
func (plan *Plan) confine(p *corev1.Pod, c *corev1.Container) error {
	if s := p.Spec.SecurityContext; s != nil && len(s.Sysctls) > 0 {
		return &Unsupported{"sysctls"}
	}
	s := c.SecurityContext
	if s == nil {
		return nil
	}
	plan.Spec.ReadOnly = s.ReadOnlyRootFilesystem != nil && *s.ReadOnlyRootFilesystem
	plan.Spec.Confine.NoNewPrivileges = s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation
	if s.Capabilities != nil {
		for _, one := range s.Capabilities.Drop {
			plan.Spec.Confine.CapDrop = append(plan.Spec.Confine.CapDrop, string(one))
		}
		for _, one := range s.Capabilities.Add {
			if len(s.Capabilities.Drop) > 0 { // without that, a VM has all of them
				plan.Spec.Confine.CapAdd = append(plan.Spec.Confine.CapAdd, string(one))
			}
		}
	}
	return nil
}

// network sets names, and the ports of the host that lead to the Pod.
func (plan *Plan) network(p *corev1.Pod, c *corev1.Container) {
	for _, alias := range p.Spec.HostAliases {
		for _, name := range alias.Hostnames {
			plan.Spec.Hosts = append(plan.Spec.Hosts, banger.HostEntry{Name: name, Address: alias.IP})
		}
	}
	if dns := p.Spec.DNSConfig; dns != nil {
		if p.Spec.DNSPolicy == corev1.DNSNone {
			plan.Spec.DNS = dns.Nameservers
		}
		plan.Spec.DNSSearch = dns.Searches
	}
	for _, port := range c.Ports {
		if port.HostPort != 0 {
			protocol := "tcp"
			if port.Protocol == corev1.ProtocolUDP {
				protocol = "udp"
			}
			ip := cmp.Or(port.HostIP, "0.0.0.0")
			plan.Spec.Forwards = append(plan.Spec.Forwards, banger.Forward{Protocol: protocol, HostIP: ip,
				HostPort: uint16(port.HostPort), GuestPort: uint16(port.ContainerPort)})
		}
	}
}
