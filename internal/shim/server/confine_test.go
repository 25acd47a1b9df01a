package server

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
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

	"banger/internal/shim"
	"banger/internal/vmm"
)

// attempts are what a hostile guest with control over its VMM would try, and what the VMM itself must still be able
// to do. The process has descriptors from fdKernel on, and its working directory is that of its sockets.
type attempts struct {
	Secret, Neighbour, TCP, Stream, Datagram string
	Spec                                     shim.Spec
}

const (
	confinedEnv = "BANGER_TEST_CONFINED"

	fdKernel = 3 + iota - 1
	fdRootfs
	fdDisk
	fdMemory
)

func TestConfineLeavesTheVMItsOwnAndNothingElse(t *testing.T) {
	if raw := os.Getenv(confinedEnv); raw != "" {
		tryAll(t, raw)
		if !t.Failed() {
			syscall.Exit(0) // a test that measures its coverage would write a file at its end, which it may not now
		}
		return
	}
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
	a := attempts{Secret: file("secret"), Neighbour: file("neighbour/disk"),
		Stream: filepath.Join(dir, "stream"), Datagram: filepath.Join(dir, "datagram")}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer ln.Close()
	a.TCP = ln.Addr().String()
	for _, name := range []string{a.Stream, "@" + a.Stream} {
		ln, err := net.Listen("unix", name)
		check(t, err)
		defer ln.Close()
	}
	for _, name := range []string{a.Datagram, "@" + a.Datagram} {
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: name})
		check(t, err)
		defer conn.Close()
	}
	for name, sockets := range map[string]bool{"one that gets its sockets": false, "one that makes its sockets": true} {
		t.Run(name, func(t *testing.T) {
			a.Spec = shim.Spec{VM: vmm.Config{Sockets: sockets}}
			raw, err := json.Marshal(a)
			check(t, err)
			cmd := exec.Command(os.Args[0], "-test.run=^TestConfineLeavesTheVMItsOwnAndNothingElse$")
			cmd.Env = append(os.Environ(), confinedEnv+"="+string(raw))
			cmd.Dir = filepath.Dir(file("run/log"))
			for _, f := range []struct {
				name string
				flag int
			}{{"kernel", os.O_RDONLY}, {"rootfs", os.O_RDONLY}, {"disk", os.O_RDWR}} {
				opened, err := os.OpenFile(file("files/"+f.name), f.flag, 0)
				check(t, err)
				defer opened.Close()
				cmd.ExtraFiles = append(cmd.ExtraFiles, opened)
			}
			memory, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
			check(t, err)
			opened := os.NewFile(uintptr(memory), "memory")
			defer opened.Close()
			cmd.ExtraFiles = append(cmd.ExtraFiles, opened)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// killFromAnotherThread starts a process on a thread that it keeps, as the driver does with the VMM, and kills it
// from another thread.
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
	runtime.LockOSThread() // this thread must not be the other one
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
	if err := Confine(a.Spec); err != nil {
		t.Fatal(err)
	}
	own, parent := a.Spec.VM.Sockets, fmt.Sprintf("/proc/%d", os.Getppid())
	open := func(path string, flags int) error {
		f, err := os.OpenFile(path, flags, 0o600)
		if err == nil {
			f.Close()
		}
		return err
	}
	dial := func(network, address string) func() error {
		return func() error { _, err := net.Dial(network, address); return err }
	}
	for _, tt := range []struct {
		what string
		try  func() error
		ok   bool
	}{
		{"open the kernel again", func() error { return open(shim.Descriptor(fdKernel), os.O_RDONLY) }, true},
		{"write its own disk", func() error { return open(shim.Descriptor(fdDisk), os.O_RDWR) }, true},
		{"write its memory's file", func() error { return open(shim.Descriptor(fdMemory), os.O_RDWR) }, true},
		{"open its pipe", func() error { return open("log", os.O_RDWR) }, own},
		{"listen in its run directory", func() error {
			ln, err := net.Listen("unix", "s")
			if err == nil {
				ln.Close()
			}
			return err
		}, own},
		{"make a pair of streams", func() error { return pair(unix.SOCK_STREAM) }, own},
		{"run a program of the system", func() error { return exec.Command("/usr/bin/true").Run() }, true},
		{"kill what another of its threads has started", killFromAnotherThread, own},
		{"signal its own threads", func() error { return unix.Tgkill(os.Getpid(), os.Getpid(), unix.SIGCONT) }, true},
		{"set its own limits", func() error { return unix.Prlimit(0, unix.RLIMIT_CORE, &unix.Rlimit{}, nil) }, true},
		{"signal its parent", func() error { return unix.Kill(os.Getppid(), unix.SIGCONT) }, own},
		{"signal its parent's thread", func() error { return unix.Tgkill(os.Getppid(), os.Getppid(), unix.SIGCONT) }, own},
		{"set its parent's limits", func() error {
			var limit unix.Rlimit
			return unix.Prlimit(os.Getppid(), unix.RLIMIT_CORE, nil, &limit)
		}, false},
		{"move its parent to another CPU", func() error {
			var set unix.CPUSet
			set.Set(0)
			return unix.SchedSetaffinity(os.Getppid(), &set)
		}, false},
		{"be kinder to its parent", func() error { return unix.Setpriority(unix.PRIO_PROCESS, os.Getppid(), 19) }, false},
		{"write the shared rootfs", func() error { return open(shim.Descriptor(fdRootfs), os.O_RDWR) }, false},
		{"write the kernel", func() error { return open(shim.Descriptor(fdKernel), os.O_RDWR) }, false},
		{"read a file beside its directory", func() error { return open(a.Secret, os.O_RDONLY) }, false},
		{"read another VM's disk", func() error { return open(a.Neighbour, os.O_RDONLY) }, false},
		{"read /etc/passwd", func() error { return open("/etc/passwd", os.O_RDONLY) }, false},
		{"read another process's environment", func() error { _, err := os.ReadFile("/proc/1/environ"); return err }, false},
		{"write its parent's memory", func() error { return open(parent+"/mem", os.O_RDWR) }, false},
		{"open what its parent has open", func() error { return open(parent+"/fd/0", os.O_RDONLY) }, false},
		{"make a file", func() error { return open("new", os.O_RDWR|os.O_CREATE) }, false},
		{"make a directory", func() error { return os.Mkdir("directory", 0o700) }, false},
		{"make a symlink", func() error { return os.Symlink("/etc/passwd", "symlink") }, false},
		{"make a pipe", func() error { return unix.Mkfifo("pipe", 0o600) }, false},
		{"give a file another name elsewhere", func() error { return os.Link(a.Secret, "link") }, false},
		{"connect to a socket of its user", dial("unix", a.Stream), false},
		{"connect to an abstract socket", dial("unix", "@"+a.Stream), false},
		{"connect by packets", dial("unixpacket", a.Stream), false},
		{"send a datagram to a socket of its user", func() error { return sendTo(unix.SOCK_DGRAM, a.Datagram) }, false},
		{"send one by a raw socket, which is the same", func() error { return sendTo(unix.SOCK_RAW, a.Datagram) }, false},
		{"send one to an abstract socket", func() error { return sendTo(unix.SOCK_DGRAM, "@"+a.Datagram) }, false},
		{"send one by one end of a pair", func() error { return pair(unix.SOCK_DGRAM) }, false},
		{"send one by one end of a raw pair", func() error { return pair(unix.SOCK_RAW) }, false},
		{"ask the kernel's netlink", func() error {
			_, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
			return err
		}, false},
		{"connect by TCP", dial("tcp", a.TCP), false},
		{"send a datagram", dial("udp", "127.0.0.1:53"), false},
		{"make calls by a ring", func() error {
			var params [120]byte
			_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
			return errno
		}, false},
		{"take a shim.Descriptor of its parent", func() error {
			fd, err := unix.PidfdOpen(os.Getppid(), 0)
			if err != nil {
				return err
			}
			_, err = unix.PidfdGetfd(fd, 0, 0)
			return err
		}, false},
		{"read its parent's memory", func() error {
			local := [1]unix.Iovec{{Base: new(byte), Len: 1}}
			_, err := unix.ProcessVMReadv(os.Getppid(), local[:], []unix.RemoteIovec{{Base: 1, Len: 1}}, 0)
			return err
		}, false},
		{"mount", func() error { return unix.Mount("none", ".", "tmpfs", 0, "") }, false},
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

// pair makes a pair of sockets.
func pair(kind int) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind, 0)
	if err == nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
	}
	return err
}

// sendTo sends data to a socket without a connection.
func sendTo(kind int, name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, kind, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrUnix{Name: name})
}

// TestWithoutLandlockSeccompRemains confines processes as on a kernel without landlock, or with landlock switched
// off; a filter imitates such a kernel. Confine does what it can, and Confinement names the means.
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
		if err := Confine(shim.Spec{}); err != nil {
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

// TestTheVMMDiesWithItsShimWhateverThreadStartsIt starts the VMM on a thread that is not the first of the process.
func TestTheVMMDiesWithItsShimWhateverThreadStartsIt(t *testing.T) {
	const env = "BANGER_TEST_EXEC"
	if os.Getenv(env) != "" {
		failed := make(chan error)
		start := func() { failed <- ExecVMM([]string{"/usr/bin/setpriv", "--dump"}) }
		go func() {
			runtime.LockOSThread()
			if unix.Gettid() != os.Getpid() {
				start()
			}
			go start() // on another thread, because this goroutine keeps the first one
			select {}
		}()
		t.Fatal(<-failed)
	}
	data, err := json.Marshal(shim.Spec{})
	check(t, err)
	spec := filepath.Join(t.TempDir(), shim.SpecFile)
	check(t, os.WriteFile(spec, data, 0o600))
	file, err := os.Open(spec)
	check(t, err)
	defer file.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), env+"=1")
	cmd.ExtraFiles = []*os.File{file}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Parent death signal: KILL") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestCallsOfAnotherProcessorAreRefused runs a 64-bit program that makes a socket by a 32-bit call.
func TestCallsOfAnotherProcessorAreRefused(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("only x86-64 has two ways to make a call")
	}
	const env = "BANGER_TEST_I386"
	if path := os.Getenv(env); path != "" {
		check(t, filter(socketRules(false)...))
		t.Fatal(unix.Exec(path, []string{path}, nil))
	}
	code := []byte{
		0xb8, 0x67, 0x01, 0, 0, // mov eax, 359: socket
		0xbb, 1, 0, 0, 0, // mov ebx, AF_UNIX
		0xb9, 1, 0, 0, 0, // mov ecx, SOCK_STREAM
		0x31, 0xd2, // xor edx, edx
		0xcd, 0x80, // int 0x80
		0xf7, 0xd8, // neg eax
		0x89, 0xc7, // mov edi, eax
		0xb8, 60, 0, 0, 0, // mov eax, 60: exit
		0x0f, 0x05, // syscall
	}
	const head, base = 64 + 56, 0x400000
	size := uint64(head + len(code))
	var program bytes.Buffer
	for _, part := range []any{
		elf.Header64{Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1},
			Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1,
			Entry: base + head, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1},
		elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
			Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Align: 4096},
		code,
	} {
		check(t, binary.Write(&program, binary.LittleEndian, part))
	}
	path := filepath.Join(t.TempDir(), "program")
	check(t, os.WriteFile(path, program.Bytes(), 0o755))
	without := exec.Command(path)
	without.Run()
	if !without.ProcessState.Exited() {
		t.Skip("this kernel takes no calls of 32 bits")
	}
	if code := without.ProcessState.ExitCode(); code < 128 { // the program negates its result, so a descriptor is >= 128
		t.Fatalf("without a filter it is answered with error %d", code)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), env+"="+path)
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != int(unix.ENOSYS) {
		t.Errorf("it is answered with error %d\n%s", code, out)
	}
}
