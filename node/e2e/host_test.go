//go:build cluster

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// host is a daemon of banger with a node.
type host struct {
	w    *world
	name string
	dir  string
	env  []string
	port int
	node *process
}

// host starts a daemon, whose state is a copy of the prepared one, and a node of it.
func (w *world) host(name string) *host {
	w.t.Helper()
	h := &host{w: w, name: name, dir: filepath.Join(w.dir, name), port: freePort(w.t)}
	prepared := os.Getenv("BANGER_E2E_STATE")
	if prepared == "" {
		w.t.Fatal("BANGER_E2E_STATE must name a state directory with images: use scripts/test-kubernetes")
	}
	for _, args := range [][]string{{"mkdir", h.dir}, {"cp", "-al", prepared, h.state()},
		{"find", h.state(), "-maxdepth", "1", "(", "-name", "banger.db*", "-o", "-name", "daemon.*", "-o", "-name",
			"dns.port", ")", "-delete"}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			w.t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	h.env = []string{"BANGER_STATE_DIR=" + h.state(), "BANGER_RUN_DIR=" + filepath.Join(h.dir, "r"),
		"XDG_CONFIG_HOME=" + filepath.Join(h.dir, "c"), "BANGER_TEMPLATES=use", "BANGER_LOG_LEVEL=info"}
	w.ca.sign(w.t, name, "system:node:"+name, "system:nodes")
	w.ca.kubeconfig(w.t, name, w.address())
	h.startDaemon()
	w.t.Cleanup(h.clean)
	h.startNode()
	w.hosts[name] = h
	w.says("True", "get", "node", name, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
	return h
}

func (h *host) state() string { return filepath.Join(h.dir, "s") }

func binary(name string) string {
	path, _ := filepath.Abs(filepath.Join("../../bin", name))
	return path
}

// startDaemon waits for a daemon, which any command starts.
func (h *host) startDaemon() {
	h.w.t.Helper()
	h.w.eventually("the daemon of "+h.name+" answers", func() error {
		_, err := h.banger("ps")
		return err
	})
}

// killDaemon kills the daemon that is there.
func (h *host) killDaemon() {
	h.w.t.Helper()
	said, err := os.ReadFile(filepath.Join(h.state(), "daemon.lock"))
	if err != nil {
		h.w.t.Fatal(err)
	}
	var owner struct{ PID int }
	if err := json.Unmarshal(said, &owner); err != nil || owner.PID <= 1 {
		h.w.t.Fatalf("%q names no process: %v", said, err)
	}
	syscall.Kill(owner.PID, syscall.SIGKILL)
}

func (h *host) startNode() {
	h.w.t.Helper()
	h.node = h.w.start(h.name+"-node", h.env, binary("banger-node"), "-kubeconfig", h.w.ca.file(h.name+".conf"),
		"-name", h.name, "-address", "127.0.0.1", "-port", fmt.Sprint(h.port), "-client-ca-file", h.w.ca.file("ca.crt"),
		"-cpus", "32", "-memory", fmt.Sprint(64<<30))
}

// banger runs banger on the host.
func (h *host) banger(args ...string) (string, error) {
	cmd := exec.Command(binary("banger"), args...)
	cmd.Env = append(os.Environ(), h.env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("banger %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), err
}

// clean removes all VMs of the host.
func (h *host) clean() {
	h.node.kill()
	list, err := h.banger("ps", "-aq")
	if err == nil && list != "" {
		_, err = h.banger(append([]string{"rm", "-f"}, strings.Fields(list)...)...)
	}
	if err == nil {
		_, err = h.banger("daemon", "stop")
	}
	if err != nil {
		h.w.t.Error(err)
	}
}
