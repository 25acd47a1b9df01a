package shim

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"

	"banger/internal/vmm"
)

// attempts are what a hostile guest that has taken over its VMM would try, and
// what the VMM itself must still be able to do.
type attempts struct {
	Dir, Secret, Neighbour, Listener string
	Spec                             Spec
}

const confinedEnv = "BANGER_TEST_CONFINED"

func TestConfineLeavesTheVMItsOwnAndNothingElse(t *testing.T) {
	if raw := os.Getenv(confinedEnv); raw != "" {
		tryAll(t, raw)
		return
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dir := t.TempDir()
	file := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("content"), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	own := filepath.Join(dir, "own")
	a := attempts{Dir: own, Secret: file("secret"), Neighbour: file("neighbour/disk"), Listener: ln.Addr().String(),
		Spec: Spec{Run: filepath.Dir(file("run/x")), VM: vmm.Config{
			Kernel: file("kernel"), Initrd: file("initrd"), Memory: filepath.Join(own, "ram"),
			Drives: []vmm.Drive{{Path: file("images/rootfs"), ReadOnly: true}, {Path: file("own/disk")}},
		}}}
	raw, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), confinedEnv+"="+string(raw))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// killFromAnotherThread does as the driver does, which starts the VMM on a thread
// that it keeps.
func killFromAnotherThread() error {
	cmd := exec.Command("/usr/bin/sleep", "1000")
	started, ended := make(chan error), make(chan error)
	go func() {
		runtime.LockOSThread()
		started <- cmd.Start()
		ended <- cmd.Wait()
	}()
	if err := <-started; err != nil {
		return err
	}
	runtime.LockOSThread() // this thread, for certain not that one
	if err := cmd.Process.Kill(); err != nil {
		return err
	}
	<-ended
	return nil
}

func tryAll(t *testing.T, raw string) {
	var a attempts
	if err := json.Unmarshal([]byte(raw), &a); err != nil {
		t.Fatal(err)
	}
	if err := Confine(a.Dir, a.Spec); err != nil {
		t.Fatal(err)
	}
	open := func(path string, flags int) error {
		f, err := os.OpenFile(path, flags, 0o600)
		if err == nil {
			f.Close()
		}
		return err
	}
	for _, tt := range []struct {
		what string
		try  func() error
		ok   bool
	}{
		{"read the kernel", func() error { return open(a.Spec.VM.Kernel, os.O_RDONLY) }, true},
		{"write its own disk", func() error { return open(a.Spec.VM.Drives[1].Path, os.O_RDWR) }, true},
		{"make its RAM file", func() error { return open(a.Spec.VM.Memory, os.O_RDWR|os.O_CREATE) }, true},
		{"listen in its run directory", func() error {
			ln, err := net.Listen("unix", filepath.Join(a.Spec.Run, "s"))
			if err == nil {
				ln.Close()
			}
			return err
		}, true},
		{"run a program of the system", func() error { return exec.Command("/usr/bin/true").Run() }, true},
		{"kill what another of its threads has started", killFromAnotherThread, true},
		{"write the shared rootfs", func() error { return open(a.Spec.VM.Drives[0].Path, os.O_RDWR) }, false},
		{"write the kernel", func() error { return open(a.Spec.VM.Kernel, os.O_RDWR) }, false},
		{"read a file beside its directory", func() error { return open(a.Secret, os.O_RDONLY) }, false},
		{"read another VM's disk", func() error { return open(a.Neighbour, os.O_RDONLY) }, false},
		{"read /etc/passwd", func() error { return open("/etc/passwd", os.O_RDONLY) }, false},
		{"read another process's environment", func() error { _, err := os.ReadFile("/proc/1/environ"); return err }, false},
		{"connect by TCP", func() error { _, err := net.Dial("tcp", a.Listener); return err }, false},
		{"send a datagram", func() error { _, err := net.Dial("udp", "127.0.0.1:53"); return err }, false},
		{"mount", func() error { return unix.Mount("none", a.Dir, "tmpfs", 0, "") }, false},
		{"make a user namespace", func() error { return unix.Unshare(unix.CLONE_NEWUSER) }, false},
		{"make a user namespace by a clone", func() error {
			cmd := exec.Command("/usr/bin/true")
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
			return cmd.Run()
		}, false},
		{"make a user namespace by a clone of another kind", func() error {
			args := struct {
				flags                                                              uint64
				pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, tid uint64
			}{flags: unix.CLONE_NEWUSER, exitSignal: uint64(unix.SIGCHLD)}
			pid, _, errno := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), 64, 0)
			if errno == 0 && pid == 0 {
				unix.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
			}
			if errno == unix.ENOSYS {
				return syscall.EPERM
			}
			return errno
		}, false},
		{"trace a process", func() error { return unix.PtraceAttach(os.Getppid()) }, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			err := tt.try()
			denied := errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM)
			if tt.ok && err != nil || !tt.ok && !denied {
				t.Errorf("it got %v", err)
			}
		})
	}
}

// TestWithoutLandlockSeccompRemains confines processes whose kernel has no landlock, or has
// it switched off: a filter answers for it. Confine does what it can, and Confinement says
// what that is.
func TestWithoutLandlockSeccompRemains(t *testing.T) {
	const env = "BANGER_TEST_NO_LANDLOCK"
	if number := os.Getenv(env); number != "" {
		errno, err := strconv.Atoi(number)
		if err != nil {
			t.Fatal(err)
		}
		answer := seccomp.ActionErrno | seccomp.Action(errno)
		if err := filter(seccomp.SyscallGroup{Action: answer, Names: []string{"landlock_create_ruleset"}}); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := Confine(dir, Spec{Run: dir, VM: vmm.Config{Kernel: "/", Initrd: "/", Memory: filepath.Join(dir, "ram")}}); err != nil {
			t.Fatal(err)
		}
		if got := Confinement(); !strings.HasPrefix(got, "seccomp alone ") {
			t.Errorf("it says that it is confined by %s", got)
		}
		if _, err := net.Dial("udp", "127.0.0.1:53"); !errors.Is(err, syscall.EPERM) {
			t.Errorf("a socket of the network: %v", err)
		}
		return
	}
	for _, errno := range []syscall.Errno{unix.ENOSYS, unix.EOPNOTSUPP} {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), env+"="+strconv.Itoa(int(errno)))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", errno, err, out)
		}
	}
	if got := Confinement(); got != "landlock and seccomp" {
		t.Errorf("this process, whose kernel has landlock, says %s", got)
	}
}

// TestTheVMMDiesWithItsShimWhateverThreadStartsIt starts it on a thread that is not
// the process's first.
func TestTheVMMDiesWithItsShimWhateverThreadStartsIt(t *testing.T) {
	const env = "BANGER_TEST_EXEC"
	if dir := os.Getenv(env); dir != "" {
		failed := make(chan error)
		start := func() { failed <- ExecVMM(dir, []string{"/usr/bin/setpriv", "--dump"}) }
		go func() {
			runtime.LockOSThread()
			if unix.Gettid() != os.Getpid() {
				start()
			}
			go start() // on another thread: this goroutine keeps the first one
			select {}
		}()
		t.Fatal(<-failed)
	}
	dir := t.TempDir()
	kernel := filepath.Join(dir, "kernel")
	if err := os.WriteFile(kernel, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(Spec{Run: dir, VM: vmm.Config{Kernel: kernel, Initrd: kernel, Memory: filepath.Join(dir, "ram")}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, specFile), data, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), env+"="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Parent death signal: KILL") {
		t.Errorf("%v\n%s", err, out)
	}
}
