package processtest

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

const inNamespace = "BANGER_TEST_NAMESPACE"

// InNamespace returns in a new network namespace, as root there; for an ordinary user that needs a user namespace as
// well. It runs the test program again there, and outside it exits with the code of that run. A TestMain calls it
// first.
func InNamespace() {
	if os.Getenv(inNamespace) != "" {
		return
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	runtime.LockOSThread() // the parent-death signal is bound to it
	err := cmd.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(e.ExitCode())
	}
	if err != nil {
		panic(err)
	}
	os.Exit(0)
}
