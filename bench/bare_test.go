//go:build bench

package bench

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"banger"
	"banger/internal/guest"
	"banger/internal/mux"
)

// bare runs the rival: a QEMU with the arguments that banger uses, started without banger.
type bare struct {
	*bench
	argv []string // with banger's own directories replaced by dir
	dir  string
	disk string // a disk that no VM has used yet
}

// newBare takes the arguments from a VM that it starts and then removes.
func (b *bench) newBare(network string) *bare {
	fresh, vm := b.newVMOn(network), b.newVMOn(network)
	b.cli("start", "-q", vm)
	p := processes("banger-" + vm)
	if len(p) != 1 {
		b.Fatalf("%d processes are QEMU for %s", len(p), vm)
	}
	r := &bare{bench: b, dir: filepath.Join(b.scratch, "vm"), disk: filepath.Join(b.state, "vms", fresh, "disk.ext4")}
	for _, a := range r.byName(p[0]) {
		for _, dir := range []string{b.run, b.state} {
			a = strings.ReplaceAll(a, filepath.Join(dir, "vms", vm), r.dir)
		}
		r.argv = append(r.argv, a)
	}
	b.cli("rm", "-f", vm)
	return r
}

// byName returns QEMU's arguments with names in place of descriptors: the files that QEMU has open,
// and a socket for the agent's channel. There is no monitor.
func (r *bare) byName(p process) (argv []string) {
	r.Helper()
	disks := make([]string, 3) // in the order of their sets
	links, _ := filepath.Glob(filepath.Join("/proc", p.pid, "fd", "*"))
	names := map[string]string{}
	for _, link := range links {
		name, _ := os.Readlink(link)
		names["/proc/self/fd/"+filepath.Base(link)] = name
		for i, part := range []string{"/images/", "/disk.ext4", "/modules"} {
			if strings.Contains(name, part) && strings.HasSuffix(name, ".ext4") {
				disks[i] = name
			}
		}
	}
	for i := 0; i < len(p.argv); i++ {
		a := p.argv[i]
		if a == "-add-fd" || a == "-mon" || a == "-chardev" && strings.HasPrefix(p.argv[i+1], "socket,id=qmp") {
			i++
			continue
		}
		a = strings.ReplaceAll(a, "null,id=agent",
			"socket,id=agent,path="+filepath.Join(r.dir, "channel.sock")+",server=on,wait=off")
		for i, disk := range disks {
			a = strings.ReplaceAll(a, fmt.Sprintf("/dev/fdset/%d,", i), disk+",")
		}
		for fd, name := range names {
			if at := strings.Index(a, fd); at >= 0 && (len(a) == at+len(fd) || a[at+len(fd)] == ',') {
				a = strings.ReplaceAll(a, fd, name)
			}
		}
		argv = append(argv, a)
	}
	return argv
}

// boot starts QEMU on a new disk and returns after the agent's first answer, with the time that
// this took. stop ends QEMU and removes the disk.
func (r *bare) boot(more ...string) (c guest.Client, took time.Duration, stop func()) {
	r.Helper()
	r.must(os.Mkdir(r.dir, 0o700))
	if out, err := exec.Command("cp", "--sparse=always", r.disk, filepath.Join(r.dir, "disk.ext4")).
		CombinedOutput(); err != nil {
		r.Fatalf("cp: %v: %s", err, out)
	}
	cmd := exec.Command(r.argv[0], append(r.argv[1:len(r.argv):len(r.argv)], more...)...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	start, started, done := time.Now(), make(chan error), make(chan struct{})
	go func() { // the parent-death signal is bound to the thread
		runtime.LockOSThread()
		started <- cmd.Start()
		cmd.Wait()
		close(done)
	}()
	r.must(<-started)
	stop = func() {
		cmd.Process.Kill()
		<-done
		r.must(os.RemoveAll(r.dir))
	}
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Minute)
	defer cancel()
	m, err := mux.Connect(ctx, r.dial("channel.sock"))
	if err != nil {
		stop()
		r.Fatalf("connecting to the agent: %v", err)
	}
	c = guest.Client{Dial: func(ctx context.Context) (net.Conn, error) { return m.Dial(ctx, guest.AgentPort) }}
	if _, err := c.Ping(ctx); err != nil {
		stop()
		r.Fatal(err)
	}
	return c, time.Since(start), stop
}

// dial connects to a socket that QEMU may not have made yet.
func (r *bare) dial(name string) net.Conn {
	r.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		conn, err := net.Dial("unix", filepath.Join(r.dir, name))
		if err == nil {
			return conn
		}
		if time.Now().After(deadline) {
			r.Fatal(err)
		}
	}
}

// sh starts a shell command. wait returns when the command has ended.
func (r *bare) sh(c guest.Client, script string) (wait func()) {
	r.Helper()
	conn, err := c.Exec(r.Context(), banger.Exec{Args: []string{"sh", "-c", script}})
	r.must(err)
	return func() {
		r.Helper()
		defer conn.Close()
		r.must(finish(conn))
	}
}

type process struct {
	pid  string
	argv []string
}

// processes returns the processes that have word in their command line.
func processes(word string) (found []process) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil || !bytes.Contains(data, []byte(word)) {
			continue
		}
		argv := strings.Split(strings.TrimRight(string(data), "\x00"), "\x00")
		found = append(found, process{filepath.Base(filepath.Dir(name)), argv})
	}
	return found
}
