//go:build cluster

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// toleration lets a Pod onto the nodes of banger.
const toleration = `"tolerations":[{"key":"banger.dev/vm","operator":"Exists","effect":"NoSchedule"}]`

// run types kubectl run for a Pod that may come to a node of banger.
func (w *world) run(name string, args ...string) string {
	w.t.Helper()
	return w.kubectl(append([]string{"run", name, "--image", image, "--image-pull-policy=Never",
		"--override-type=strategic", `--overrides={"spec":{` + toleration + `}}`}, args...)...)
}

// pod returns the manifest of a Pod. The rest are lines of the container, and of the Pod.
func podOf(name, command, container, rest string) string {
	return fmt.Sprintf(`
---
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 1
  tolerations: [{key: banger.dev/vm, operator: Exists}]
%s
  containers:
  - name: main
    image: %s
    imagePullPolicy: Never
    command: [sh, -c, %q]
%s
`, name, indent(rest, 2), image, command, indent(container, 4))
}

func indent(text string, n int) string {
	pad := strings.Repeat(" ", n)
	return pad + strings.ReplaceAll(strings.Trim(text, "\n"), "\n", "\n"+pad)
}

// story runs a part of a test.
func (w *world) story(name string, f func()) {
	whole := w.t
	defer func() { w.t = whole }()
	whole.Run(name, func(t *testing.T) {
		w.t = t
		begun := time.Now()
		defer w.empty()
		f()
		t.Logf("it took %v", time.Since(begun).Round(100*time.Millisecond))
	})
}

// empty removes all that a story may have left.
func (w *world) empty() {
	w.try("delete", "jobs,deployments,quota,pods", "--all", "--now")
}

// refuses checks that kubectl fails, and says a text.
func (w *world) refuses(want string, args ...string) {
	w.t.Helper()
	if _, err := w.try(args...); err == nil || !strings.Contains(err.Error(), want) {
		w.t.Errorf("kubectl %s gives %v, not %q", strings.Join(args, " "), err, want)
	}
}

func (w *world) is(got, want string) {
	w.t.Helper()
	if got != want {
		w.t.Errorf("it says %q, not %q", got, want)
	}
}

// TestPods is what a user types for one Pod after the other.
func TestPods(t *testing.T) {
	w := open(t)
	w.host("one")
	for _, one := range []struct {
		name string
		does func(*world)
	}{{"streams", streams}, {"sources", sources}, {"ends", ends}, {"refusals", refusals}, {"controllers", controllers}} {
		w.story(one.name, func() { one.does(w) })
	}
}

// streams are logs, commands, files and ports of a Pod.
func streams(w *world) {
	w.run("first", "--", "sh", "-c", "echo hello; echo late; until test -e /go; do sleep 0.1; done; echo gone; sleep 1000")
	w.says("Running", "get", "pod", "first")
	w.says("hello\n", "logs", "first")
	w.is(w.kubectl("exec", "first", "--", "sh", "-c", "echo $((6*7))"), "42")
	out, err := w.type_("typed", "exec", "-i", "first", "--", "cat")
	if err != nil || out != "typed" {
		w.t.Errorf("exec -i says %q, %v", out, err)
	}
	w.refuses("exit code 7", "exec", "first", "--", "sh", "-c", "exit 7")
	w.refuses("exit code 127", "exec", "first", "--", "absent")
	file := filepath.Join(w.dir, "file")
	if err := os.WriteFile(file, []byte("copied"), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.kubectl("cp", file, "first:/tmp/there")
	w.is(w.kubectl("exec", "first", "--", "cat", "/tmp/there"), "copied")
	w.kubectl("cp", "first:/tmp/there", file+"2")
	if got, err := os.ReadFile(file + "2"); err != nil || string(got) != "copied" {
		w.t.Errorf("the file that came back has %q, %v", got, err)
	}
	w.is(w.terminal("exec", "-it", "first", "--", "sh", "-c", "stty size; tty | cut -c1-8; exit 3"),
		"exit 3: 30 90\r\n/dev/pts\r\n")
	w.is(w.kubectl("logs", "first", "--tail=1"), "late")
	out = w.kubectl("logs", "first", "--timestamps")
	if !strings.HasPrefix(out, "20") || !strings.Contains(out, "Z hello") {
		w.t.Errorf("logs --timestamps says %q", out)
	}
	w.forwarded("first")
	w.followed("first")
	out, err = w.type_("piped", "run", "--rm", "-i", "second", "--restart=Never", "--quiet", "--image", image,
		"--image-pull-policy=Never", "--override-type=strategic", `--overrides={"spec":{`+toleration+`}}`, "--", "cat")
	if err != nil || !strings.HasPrefix(out, "piped") {
		w.t.Errorf("run -i says %q, %v", out, err)
	}
	begun := time.Now()
	w.kubectl("delete", "pod", "first", "--grace-period=2")
	if took := time.Since(begun); took > 15*time.Second {
		w.t.Errorf("a delete took %v", took)
	}
	w.noVMs()
}

// noVMs waits until no host has a VM.
func (w *world) noVMs() {
	w.t.Helper()
	for _, h := range w.hosts {
		w.eventually(h.name+" has no VM", func() error {
			out, err := h.banger("ps", "-aq")
			if err == nil && out != "" {
				err = fmt.Errorf("there are %s", out)
			}
			return err
		})
	}
}

// sources are where a Pod's environment and files come from.
func sources(w *world) {
	w.kubectl("create", "configmap", "words", "--from-literal=color=blue", "--from-literal=A=1")
	w.kubectl("create", "secret", "generic", "keys", "--from-literal=password=hidden")
	w.apply(podOf("sources", `cat /shared/made; sleep 1000`, `
workingDir: /shared
readinessProbe: {exec: {command: [cat, /shared/ready]}, periodSeconds: 1}
resources: {limits: {cpu: "2", memory: 256Mi}}
env:
- {name: COLOR, valueFrom: {configMapKeyRef: {name: words, key: color}}}
- {name: PASSWORD, valueFrom: {secretKeyRef: {name: keys, key: password}}}
- {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
- {name: BOTH, value: "$(COLOR)-$(NODE)-$$(NODE)"}
envFrom: [{configMapRef: {name: words}}]
volumeMounts:
- {name: shared, mountPath: /shared}
- {name: words, mountPath: /etc/words}
- {name: keys, mountPath: /etc/keys}
- {name: words, mountPath: /etc/one-word, subPath: color}
- {name: fast, mountPath: /fast}
`, `
volumes:
- {name: shared, emptyDir: {}}
- {name: fast, emptyDir: {medium: Memory, sizeLimit: 8Mi}}
- {name: words, configMap: {name: words}}
- {name: keys, secret: {secretName: keys, defaultMode: 0400}}
initContainers:
- name: make
  image: debian-bookworm
  imagePullPolicy: Never
  command: [sh, -c, "echo made > /shared/made"]
  volumeMounts: [{name: shared, mountPath: /shared}]
`))
	w.says("Running", "get", "pod", "sources", "-o", "jsonpath={.status.phase}")
	w.says("made", "logs", "sources")
	w.is(w.kubectl("exec", "sources", "--", "sh", "-c", `echo $COLOR $PASSWORD $NODE $BOTH $A $(pwd) $(nproc)`),
		"blue hidden one blue-one-$(NODE) 1 /shared 2")
	w.is(w.kubectl("exec", "sources", "--", "sh", "-c",
		`cat /etc/words/color /etc/keys/password /etc/one-word; stat -c " %a" /etc/keys/password
		echo $(df -m --output=size /fast)`),
		"bluehiddenblue 400\n1M-blocks 8")
	w.is(w.kubectl("exec", "sources", "--", "head", "-c3", "/var/run/secrets/kubernetes.io/serviceaccount/token"), "eyJ")
	w.says("False", "get", "pod", "sources", "-o", ready)
	w.kubectl("exec", "sources", "--", "touch", "/shared/ready")
	w.says("True", "get", "pod", "sources", "-o", ready)
	w.kubectl("delete", "pod", "sources")
}

const ready = `jsonpath={.status.conditions[?(@.type=="Ready")].status}`

// ends are how Pods end.
func ends(w *world) {
	w.apply(podOf("good", "echo done", "", "restartPolicy: Never") +
		podOf("bad", "exit 4", "", "restartPolicy: Never") +
		podOf("again", `test -e /there && sleep 1000; touch /there; exit 5`, "", "restartPolicy: OnFailure") +
		podOf("short", "sleep 1000", "", "restartPolicy: Never\nactiveDeadlineSeconds: 30"))
	w.says("Succeeded", "get", "pod", "good", "-o", "jsonpath={.status.phase}")
	w.says("done", "logs", "good")
	w.says("Failed 4", "get", "pod", "bad", "-o",
		"jsonpath={.status.phase} {.status.containerStatuses[0].state.terminated.exitCode}")
	w.says("Running 1", "get", "pod", "again", "-o",
		"jsonpath={.status.phase} {.status.containerStatuses[0].restartCount}")
	w.says("Failed DeadlineExceeded", "get", "pod", "short", "-o", "jsonpath={.status.phase} {.status.reason}")
	w.kubectl("delete", "pod", "good", "bad", "again", "short")
	w.noVMs()
}

// refusals are Pods that no VM can be. An event says why.
func refusals(w *world) {
	w.apply(podOf("net", "true", "", "hostNetwork: true") +
		podOf("path", "true", "volumeMounts: [{name: v, mountPath: /v}]", "volumes: [{name: v, hostPath: {path: /etc}}]") +
		podOf("two", "true", "", "") + "  - {name: second, image: debian-bookworm}\n" +
		podOf("absent", "true", "envFrom: [{configMapRef: {name: absent}}]", "") +
		strings.ReplaceAll(podOf("noimage", "true", "", ""), "image: "+image, "image: not-there"))
	for name, want := range map[string]string{"net": "the host's network", "path": "the volume v", "two": "2 containers",
		"absent": "CreateContainerConfigError", "noimage": "ErrImage"} {
		w.says(want, "describe", "pod", name)
	}
	w.says("Failed", "get", "pod", "two", "-o", "jsonpath={.status.phase}")
	w.says("Pending", "get", "pod", "absent", "-o", "jsonpath={.status.phase}")
	w.kubectl("create", "configmap", "absent", "--from-literal=x=y")
	w.kubectl("delete", "pod", "net", "path", "two", "absent", "noimage")
	w.noVMs()
}

// controllers make Pods by themselves.
func controllers(w *world) {
	w.apply(fmt.Sprintf(`
apiVersion: batch/v1
kind: Job
metadata: {name: job}
spec:
  template:
    spec:
      restartPolicy: Never
      tolerations: [{key: banger.dev/vm, operator: Exists}]
      containers: [{name: main, image: %[1]s, imagePullPolicy: Never, command: [echo, worked]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations: [{key: banger.dev/vm, operator: Exists}]
      containers: [{name: main, image: %[1]s, imagePullPolicy: Never, command: [sleep, "1000"]}]
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: few}
spec: {hard: {pods: "2"}}
`, image))
	w.kubectl("wait", "--for=condition=complete", "job/job", "--timeout=90s")
	w.is(w.kubectl("logs", "job/job"), "worked")
	w.kubectl("rollout", "status", "deployment/web", "--timeout=90s")
	w.refuses("exceeded quota", "run", "fourth", "--image", image)
	w.kubectl("delete", "quota/few", "job/job", "deployment/web")
	w.noVMs()
}
