//go:build cluster

// Package e2e has stories of people who use Kubernetes with banger's nodes: they type kubectl, and look at what it
// prints. A world has a control plane (etcd, API server, scheduler, controllers) and hosts, each with a daemon of
// banger and a node. The package must not know banger's insides.
//
// scripts/test-kubernetes builds the programs and runs the stories.
package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long a story waits for something. Guests may be emulated.
const patience = 60 * time.Second

// image is an image of the prepared state.
const image = "debian-bookworm"

// serverAddress is where the API server is for hosts that are network namespaces.
const serverAddress = "10.213.0.1"

// world is a cluster with its hosts.
type world struct {
	t    *testing.T
	dir  string
	ca   *authority
	port int // of the API server

	programs string // the directory of kubectl and the control plane
	etcd     *process
	server   *process
	hosts    map[string]*host
	events   string // of a cluster in which a story has failed
}

// process is a program that runs beside the story. Its output is in a file of the world.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
}

// start starts a program. It is killed at the end of the story.
func (w *world) start(name string, env []string, program string, args ...string) *process {
	w.t.Helper()
	out, err := os.OpenFile(filepath.Join(w.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	defer out.Close()
	p := &process{name: name, cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Env = out, out, append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	w.t.Cleanup(p.kill)
	return p
}

// kill kills a process and waits for its end.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// freePort returns a port of loopback that nobody has.
func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// open starts a control plane without nodes.
func open(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "kubernetes-")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, port: freePort(t), programs: os.Getenv("BANGER_CLUSTER"), hosts: map[string]*host{}}
	if w.programs == "" {
		t.Fatal("BANGER_CLUSTER must name the directory of kubectl and the control plane: use scripts/test-kubernetes")
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the logs are in %s; the events were:\n%s", dir, w.events)
			return
		}
		os.RemoveAll(dir)
	})
	w.ca = newAuthority(t, dir)
	w.ca.sign(t, "server", "kube-apiserver")
	w.ca.sign(t, "admin", "admin", "system:masters")
	w.ca.sign(t, "to-kubelets", "kube-apiserver-kubelet-client", "system:masters")
	for _, name := range []string{"scheduler", "controller-manager"} {
		w.ca.sign(t, name, "system:kube-"+name)
		w.ca.kubeconfig(t, name, w.address())
	}
	w.ca.kubeconfig(t, "admin", w.address())
	client, peer := freePort(t), freePort(t)
	w.etcd = w.start("etcd", nil, "etcd", "--data-dir", filepath.Join(dir, "etcd"),
		"--listen-client-urls", at(client), "--advertise-client-urls", at(client), "--listen-peer-urls", at(peer),
		"--initial-advertise-peer-urls", at(peer), "--initial-cluster", "default="+at(peer))
	w.startServer(client)
	w.start("scheduler", nil, w.program("kube-scheduler"), "--kubeconfig", w.ca.file("scheduler.conf"),
		"--leader-elect=false", "--secure-port", fmt.Sprint(freePort(t)), "--bind-address", "127.0.0.1")
	w.start("controller-manager", nil, w.program("kube-controller-manager"),
		"--kubeconfig", w.ca.file("controller-manager.conf"), "--leader-elect=false",
		"--secure-port", fmt.Sprint(freePort(t)), "--bind-address", "127.0.0.1", "--use-service-account-credentials",
		"--service-account-private-key-file", w.ca.file("accounts.key"), "--root-ca-file", w.ca.file("ca.crt"),
		"--node-monitor-period=1s", "--node-monitor-grace-period=12s", "--concurrent-deployment-syncs=2")
	w.eventually("the default service account is there", func() error {
		_, err := w.try("get", "serviceaccount", "default")
		return err
	})
	return w
}

func at(port int) string { return fmt.Sprintf("http://127.0.0.1:%d", port) }

func (w *world) address() string { return fmt.Sprintf("https://127.0.0.1:%d", w.port) }

func (w *world) program(name string) string { return filepath.Join(w.programs, name) }

// startServer starts the API server, and waits until it is ready.
func (w *world) startServer(etcd int) {
	w.t.Helper()
	w.server = w.start("apiserver", nil, w.program("kube-apiserver"), "--etcd-servers", at(etcd),
		"--bind-address", "0.0.0.0", "--secure-port", fmt.Sprint(w.port), "--advertise-address", serverAddress,
		"--endpoint-reconciler-type", "none", "--service-cluster-ip-range", "10.96.0.0/16",
		"--tls-cert-file", w.ca.file("server.crt"), "--tls-private-key-file", w.ca.file("server.key"),
		"--client-ca-file", w.ca.file("ca.crt"), "--authorization-mode", "Node,RBAC",
		"--enable-admission-plugins", "NodeRestriction", "--kubelet-preferred-address-types", "InternalIP",
		"--kubelet-client-certificate", w.ca.file("to-kubelets.crt"),
		"--kubelet-client-key", w.ca.file("to-kubelets.key"),
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", w.ca.file("accounts.crt"),
		"--service-account-signing-key-file", w.ca.file("accounts.key"),
		"--default-not-ready-toleration-seconds=3", "--default-unreachable-toleration-seconds=3")
	w.eventually("the API server is ready", func() error {
		_, err := w.try("get", "--raw", "/readyz")
		return err
	})
}

// try runs kubectl as the administrator, and returns what it has written to its output.
func (w *world) try(args ...string) (string, error) { return w.type_("", args...) }

// type_ runs kubectl with an input.
func (w *world) type_(input string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.program("kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+w.ca.file("admin.conf"), "HOME="+w.dir)
	cmd.Stdin = strings.NewReader(input)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String(), nil
}

// kubectl runs kubectl, which must succeed, and returns what it has printed.
func (w *world) kubectl(args ...string) string {
	w.t.Helper()
	out, err := w.try(args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// apply applies manifests.
func (w *world) apply(manifests string) {
	w.t.Helper()
	if _, err := w.type_(manifests, "apply", "-f", "-"); err != nil {
		w.t.Fatal(err)
	}
}

// eventually waits until check has no error.
func (w *world) eventually(what string, check func() error) {
	w.t.Helper()
	var err error
	for begun := time.Now(); time.Since(begun) < patience; time.Sleep(200 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	w.events, _ = w.try("get", "events", "--all-namespaces", "-o",
		`custom-columns=OBJECT:.involvedObject.name,REASON:.reason,MESSAGE:.message`)
	w.t.Fatalf("not true in %v: %s: %v", patience, what, err)
}

// says waits until kubectl prints a text.
func (w *world) says(want string, args ...string) {
	w.t.Helper()
	w.eventually("kubectl "+strings.Join(args, " ")+" says "+want, func() error {
		out, err := w.try(args...)
		if err == nil && !strings.Contains(out, want) {
			err = fmt.Errorf("it says %q", out)
		}
		return err
	})
}
