//go:build cluster

package e2e

import (
	"strings"
	"testing"
)

// toleration lets a Pod onto the nodes of banger.
const toleration = `"tolerations":[{"key":"banger.dev/vm","operator":"Exists","effect":"NoSchedule"}]`

// run types kubectl run for a Pod that may come to a node of banger.
func (w *world) run(name string, args ...string) string {
	w.t.Helper()
	return w.kubectl(append([]string{"run", name, "--image", image, "--image-pull-policy=Never",
		"--override-type=strategic", `--overrides={"spec":{` + toleration + `}}`}, args...)...)
}

func TestPods(t *testing.T) {
	w := open(t)
	w.host("one")
	w.run("first", "--", "sh", "-c", "echo hello; sleep 1000")
	w.says("Running", "get", "pod", "first")
	w.says("hello", "logs", "first")
	if out := w.kubectl("exec", "first", "--", "sh", "-c", "echo $((6*7))"); out != "42" {
		t.Errorf("exec printed %q", out)
	}
	t.Log(w.kubectl("describe", "pod", "first"))
	t.Log(w.kubectl("describe", "node", "one"))
	t.Log(w.kubectl("get", "pods", "-o", "wide"))
	if out := w.kubectl("delete", "pod", "first", "--grace-period=1"); !strings.Contains(out, "deleted") {
		t.Error(out)
	}
}
