package main

import (
	"bytes"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// followCommand is the argument that selects the double's second process.
const followCommand = "follow"

// startFollower starts a process that stops the emulator while this process is stopped. Stopping
// Firecracker stops its guest, but the double's guest is another process.
func startFollower(emulator *os.File) (*exec.Cmd, error) {
	defer emulator.Close()
	self, err := os.Open("/proc/self/stat")
	if err != nil {
		return nil, err
	}
	defer self.Close()
	cmd := exec.Command("/proc/self/exe", followCommand)
	cmd.ExtraFiles = []*os.File{self, emulator}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd, cmd.Start()
}

// follow is the main loop of that process. Descriptor 3 is the double's /proc/PID/stat, and 4 is
// the emulator's pidfd (pidfd_open(2)).
func follow() {
	double := os.NewFile(3, "stat")
	stopped := false
	for {
		line := make([]byte, 1024)
		n, err := double.ReadAt(line, 0)
		if n == 0 && err != nil {
			return
		}
		_, rest, _ := bytes.Cut(line[:n], []byte(") "))
		if is := bytes.HasPrefix(rest, []byte("T")); is != stopped {
			stopped = is
			signal := unix.SIGCONT
			if stopped {
				signal = unix.SIGSTOP
			}
			if unix.PidfdSendSignal(4, signal, nil, 0) != nil {
				return
			}
		}
		time.Sleep(2 * time.Millisecond) // only a parent is notified of a stop
	}
}
