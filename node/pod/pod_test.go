package pod_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"banger"
	"banger/node/pod"
)

// some returns a Pod of one container, changed by change.
func some(change func(p *corev1.Pod, c *corev1.Container)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "web.1", UID: "0123456789abcdef"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "debian-bookworm"}}}}
	change(p, &p.Spec.Containers[0])
	return p
}

// TestAPodIsAMachine: what of a Pod becomes what of a VM.
func TestAPodIsAMachine(t *testing.T) {
	yes, no := true, false
	for name, c := range map[string]struct {
		change func(p *corev1.Pod, c *corev1.Container)
		check  func(plan *pod.Plan) bool
	}{
		"it waits for commands, and is found again": {func(*corev1.Pod, *corev1.Container) {}, func(plan *pod.Plan) bool {
			return reflect.DeepEqual(plan.Spec.Entrypoint, []string{""}) && plan.Spec.Name == "web-1-01234567" &&
				plan.Spec.Labels[pod.LabelUID] == "0123456789abcdef" && plan.Spec.Labels[pod.LabelNode] == "n1"
		}},
		"limits are sizes": {func(_ *corev1.Pod, c *corev1.Container) {
			c.Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1500m"),
				corev1.ResourceMemory: resource.MustParse("1Gi")}
		}, func(plan *pod.Plan) bool {
			return plan.Spec.CPUs == 2 && plan.Spec.Confine.CPU == 1500 && plan.Spec.Memory == 1<<30
		}},
		"requests are sizes without limits, and bound nothing": {func(_ *corev1.Pod, c *corev1.Container) {
			c.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"),
				corev1.ResourceMemory: resource.MustParse("16Mi")}
		}, func(plan *pod.Plan) bool {
			return plan.Spec.CPUs == 1 && plan.Spec.Confine.CPU == 0 && plan.Spec.Memory == banger.MinMemory
		}},
		"a restart policy is that of the session": {func(p *corev1.Pod, _ *corev1.Container) {
			p.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
		}, func(plan *pod.Plan) bool { return plan.Main.Session.Restart.Name == banger.RestartOnFailure }},
		"a readiness probe of a named port": {func(_ *corev1.Pod, c *corev1.Container) {
			c.Ports = []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}
			c.ReadinessProbe = &corev1.Probe{PeriodSeconds: 3, ProbeHandler: corev1.ProbeHandler{
				HTTPGet: &corev1.HTTPGetAction{Path: "/ok", Port: intstr.FromString("http")}}}
		}, func(plan *pod.Plan) bool {
			return plan.Main.Session.Ready.Check == "http:8080/ok" && plan.Main.Session.Ready.Interval == 3*time.Second
		}},
		"what a container may not do": {func(_ *corev1.Pod, c *corev1.Container) {
			c.SecurityContext = &corev1.SecurityContext{AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
				Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_BIND_SERVICE"}}}
		}, func(plan *pod.Plan) bool {
			return plan.Spec.ReadOnly && plan.Spec.Confine.NoNewPrivileges && plan.Spec.Confine.CapDrop[0] == "ALL" &&
				plan.Spec.Confine.CapAdd[0] == "NET_BIND_SERVICE"
		}},
		"a port of the host is a forward": {func(_ *corev1.Pod, c *corev1.Container) {
			c.Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080}}
		}, func(plan *pod.Plan) bool {
			return plan.Spec.Forwards[0] == banger.Forward{Protocol: "tcp", HostIP: "0.0.0.0", HostPort: 8080, GuestPort: 80}
		}},
		"a secret is in memory alone": {func(p *corev1.Pod, c *corev1.Container) {
			p.Spec.Volumes = []corev1.Volume{{Name: "s", VolumeSource: corev1.VolumeSource{
				Secret: &corev1.SecretVolumeSource{SecretName: "key"}}}}
			c.VolumeMounts = []corev1.VolumeMount{{Name: "s", MountPath: "/run/key/"}}
		}, func(plan *pod.Plan) bool { return plan.Spec.Tmpfs[0].Path == "/run/key" && len(plan.Mounts) == 1 }},
	} {
		t.Run(name, func(t *testing.T) {
			plan, err := pod.New(some(c.change), "n1")
			if err != nil || !c.check(plan) {
				t.Errorf("it is %+v, %v", plan, err)
			}
		})
	}
}

// TestWhatIsNotHonouredIsRefused names what no VM of banger can do for a Pod.
func TestWhatIsNotHonouredIsRefused(t *testing.T) {
	for want, change := range map[string]func(p *corev1.Pod, c *corev1.Container){
		"2 containers": func(p *corev1.Pod, c *corev1.Container) {
			p.Spec.Containers = append(p.Spec.Containers, *c)
		},
		"the host's network":   func(p *corev1.Pod, _ *corev1.Container) { p.Spec.HostNetwork = true },
		"the host's processes": func(p *corev1.Pod, _ *corev1.Container) { p.Spec.HostPID = true },
		"the volume data": func(p *corev1.Pod, c *corev1.Container) {
			p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
				HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}}
			c.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
		},
		"another image": func(p *corev1.Pod, _ *corev1.Container) {
			p.Spec.InitContainers = []corev1.Container{{Name: "first", Image: "busybox"}}
		},
		"probes by gRPC": func(_ *corev1.Pod, c *corev1.Container) {
			c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 1}}}
		},
		"nvidia.com/gpu": func(_ *corev1.Pod, c *corev1.Container) {
			c.Resources.Limits = corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("1")}
		},
		"sysctls": func(p *corev1.Pod, _ *corev1.Container) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "kernel.shm_rmid_forced"}}}
		},
	} {
		_, err := pod.New(some(change), "n1")
		if u, ok := errors.AsType[*pod.Unsupported](err); !ok || !strings.Contains(u.What, want) {
			t.Errorf("instead of %q it is %v", want, err)
		}
	}
}

// TestACommandIsDockersAndKubernetes joins what the image and the Pod say.
func TestACommandIsDockersAndKubernetes(t *testing.T) {
	image := banger.Image{}
	image.Config.Entrypoint, image.Config.Cmd = []string{"/entry"}, []string{"serve"}
	for want, c := range map[string]pod.Command{
		"/entry serve": {},
		"/entry debug": {Args: []string{"debug"}},
		"/mine":        {Command: []string{"/mine"}},
		"/mine debug":  {Command: []string{"/mine"}, Args: []string{"debug"}},
	} {
		if got := strings.Join(c.Resolve(image).Command.Args, " "); got != want {
			t.Errorf("%+v is %q, and not %q", c, got, want)
		}
	}
}

// cluster has one config map.
type cluster struct{}

var errMissing = errors.New("missing")

func (cluster) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	if name != "settings" {
		return nil, errMissing
	}
	return &corev1.ConfigMap{Data: map[string]string{"a": "1", "b": "2"}}, nil
}
func (cluster) Secret(context.Context, string, string) (*corev1.Secret, error) {
	return nil, errMissing
}
func (cluster) Token(context.Context, *corev1.Pod, *corev1.ServiceAccountTokenProjection) (string, error) {
	return "token", nil
}
func (cluster) Missing(err error) bool { return errors.Is(err, errMissing) }

// same is a VM without symlinks.
func same(path string) (string, error) { return path, nil }

// TestFilesOfVolumes lists what comes into a VM, and where.
func TestFilesOfVolumes(t *testing.T) {
	maybe := true
	settings := &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"},
		Items: []corev1.KeyToPath{{Key: "b", Path: "conf.d/b"}}}
	absent := &corev1.SecretVolumeSource{SecretName: "none", Optional: &maybe}
	p := some(func(p *corev1.Pod, c *corev1.Container) {
		p.Spec.Volumes = []corev1.Volume{
			{Name: "settings", VolumeSource: corev1.VolumeSource{ConfigMap: settings}},
			{Name: "absent", VolumeSource: corev1.VolumeSource{Secret: absent}},
			{Name: "room", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		}
		c.VolumeMounts = []corev1.VolumeMount{{Name: "settings", MountPath: "/etc/app"},
			{Name: "absent", MountPath: "/key"}, {Name: "room", MountPath: "/room"}, {Name: "room", MountPath: "/again"},
			{Name: "settings", MountPath: "/one", SubPath: "conf.d/b"}}
	})
	plan, err := pod.New(p, "n1")
	if err != nil {
		t.Fatal(err)
	}
	archive, err := plan.Archive(t.Context(), p, cluster{}, same)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		text, _ := io.ReadAll(r)
		got = append(got, strings.TrimSpace(h.Name+" "+h.Linkname+string(text)))
	}
	want := []string{"etc/app/", "etc/app/conf.d/b 2", "key/", "room/", "again /room", "one 2"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("they are %q, and not %q", got, want)
	}
	settings.Name = "gone"
	if _, err := plan.Archive(t.Context(), p, cluster{}, same); err == nil {
		t.Error("a config map that is not there is no error")
	}
}
