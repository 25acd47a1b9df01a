//go:build cluster

package e2e

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestKills kills the node's process and the daemon at random while Pods come and go: KILLS times, or 20. No Pod is
// lost, and none has two VMs.
func TestKills(t *testing.T) {
	w := open(t)
	h := w.host("one")
	kills, err := strconv.Atoi(cmp.Or(os.Getenv("KILLS"), "20"))
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("the seed is %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	w.apply(deployment("web", 2))
	ended := make(chan bool)
	looked := make(chan int)
	go func() { // looks as long as the kills last
		most := 0
		for {
			select {
			case <-ended:
				looked <- most
				return
			case <-time.After(300 * time.Millisecond):
				for _, uid := range h.pods() {
					most = max(most, uid.vms)
				}
			}
		}
	}()
	for i := range kills {
		switch i % 4 {
		case 0:
			w.apply(podOf(fmt.Sprintf("once-%d", i), "echo done", "", "restartPolicy: Never"))
		case 2:
			w.try("delete", "pod", "--wait=false", "-l", "app=web", "--field-selector", "status.phase=Running")
		}
		time.Sleep(time.Duration(random.IntN(4000)) * time.Millisecond) // the instant of the kill is what is random
		if random.IntN(2) == 0 {
			h.node.kill()
			h.startNode()
		} else {
			h.killDaemon()
			h.startDaemon()
		}
	}
	w.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
	for i := 0; i < kills; i += 4 {
		name := fmt.Sprintf("once-%d", i)
		w.eventually(name+" has ended", func() error {
			phase, err := w.try("get", "pod", name, "-o", "jsonpath={.status.phase} {.status.reason}")
			if err == nil && phase != "Succeeded " && phase != "Failed Lost" {
				err = fmt.Errorf("it is %q", phase)
			}
			return err
		})
	}
	t.Log(w.kubectl("get", "pods", "-o", "wide"))
	ended <- true
	if most := <-looked; most > 1 {
		t.Errorf("a Pod had %d VMs", most)
	}
	w.same(h)
	w.empty()
	w.noVMs()
}

func deployment(name string, replicas int) string {
	return fmt.Sprintf(`
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations: [{key: banger.dev/vm, operator: Exists}]
      containers: [{name: main, image: %[3]s, imagePullPolicy: Never, command: [sleep, "10000"]}]
`, name, replicas, image)
}

// vms says how many VMs a Pod has.
type vms struct {
	uid string
	vms int
}

// pods returns the Pods that have VMs on a host.
func (h *host) pods() (list []vms) {
	out, err := h.banger("ps", "-a", "--format", `{{.Label "kubernetes.io/pod-uid"}}`)
	if err != nil {
		return nil // the daemon was killed
	}
	words := strings.Fields(out)
	slices.Sort(words)
	for _, uid := range words {
		if n := len(list); n > 0 && list[n-1].uid == uid {
			list[n-1].vms++
		} else {
			list = append(list, vms{uid, 1})
		}
	}
	return list
}

// same waits until the Pods of the cluster are those that have VMs on a host.
func (w *world) same(h *host) {
	w.t.Helper()
	w.eventually("the Pods are the VMs", func() error {
		out, err := w.try("get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.uid}{"\n"}{end}`)
		want := strings.Fields(out)
		slices.Sort(want)
		got := []string{}
		for _, one := range h.pods() {
			got = append(got, one.uid)
		}
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("the VMs are of %v, and the Pods are %v", got, want)
		}
		return err
	})
}
