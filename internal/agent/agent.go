// Package agent answers the host's requests in a guest: it runs commands, copies
// files, watches ports and ends the guest. As PID 1 it has package boot make the
// system first, or hand PID 1 to the image's own init, and stays beside that. It runs
// on any root file system, a scratch image with one static binary included, so it
// needs no file of the image's and starts no helper program.
//
// The image is hostile, and so are its commands. The package must not know what VMM
// it runs under.
package agent

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"banger/internal/agent/boot"
	"banger/internal/agent/command"
	"banger/internal/agent/console"
	"banger/internal/agent/sshd"
	"banger/internal/mux"
)

// Main is the agent's main function; it returns an exit code. As PID 1 it
// returns only after a failure.
func Main(args []string) int {
	var err error
	switch {
	case len(args) == 2 && args[1] == "serve":
		// Under the in-memory driver: the channel is descriptor 3, and the agent must not
		// configure the host.
		sys := newHostSystem()
		s := newServer(sys, nil)
		sys.main = s.mainProcess
		s.obeySignals()
		err = serveChannel(os.NewFile(3, "channel"), s)
	case sshd.IsSFTP(args):
		err = sshd.ServeSFTP()
	case command.IsConfined(args):
		command.RunConfined(args)
	case boot.IsModprobe(args):
		err = boot.Modprobe(args[3])
	case boot.IsResident(args):
		err = runResident()
	case os.Getpid() == 1:
		err = runFirst()
		console.Warn(err)
		boot.HostEnds.Now()
	default:
		err = fmt.Errorf("this is the init of a banger VM")
	}
	if err != nil && err != io.EOF {
		console.Warn(err)
		return 1
	}
	return 0
}

// runFirst is PID 1's whole life, in a VM or in a helper.
func runFirst() error {
	if err := boot.Begin(); err != nil {
		return err
	}
	if boot.Helps() {
		return runHelper()
	}
	return runInit()
}

// runInit is PID 1's life in a VM. It waits for the host at one of two places, where templates are cut, unless the
// resident agent waits.
func runInit() error {
	disk, err := boot.Prepare()
	if err != nil {
		return err
	}
	h, err := openHost()
	if err != nil {
		return err
	}
	mounts := boot.MountsFirst()
	if !mounts {
		if err := h.await(); err != nil {
			return err
		}
	}
	init, handOver, err := boot.Start(disk)
	if err != nil {
		return err
	}
	var s *server
	if !handOver {
		s = serverOf(init)
	}
	if mounts && !boot.WaitsBooted() {
		if err := h.await(); err != nil {
			return err
		}
	}
	if handOver {
		return init.BecomeImageInit(h.fd)
	}
	return h.serve(s)
}

// runHelper is PID 1's life in a guest that compares disks.
func runHelper() error {
	disks, err := boot.PrepareHelper()
	if err != nil {
		return err
	}
	h, err := openHost()
	if err != nil {
		return err
	}
	console.Say("ready")
	return h.serve(newServer(helper{disks}, nil))
}

// serverOf returns the server of a guest whose PID 1 is this process.
func serverOf(init *boot.Init) *server {
	command.CalmThreads()
	s := newServer(init, command.OpenGroup())
	s.obeySignals()
	s.commands.Prepare()
	console.Say("ready")
	return s
}

// runResident is the agent beside the image's own init.
func runResident() error {
	resident, fd := boot.NewResident()
	command.CalmThreads()
	h, s := hostAt(fd), newServer(resident, command.OpenGroup())
	if boot.WaitsBooted() {
		err := resident.Boot()
		if err == nil {
			err = h.await()
		}
		if err != nil {
			return err
		}
	}
	return h.serve(s)
}

// rebootGrace is how long programs have to end when the guest ends itself.
const rebootGrace = 10 * time.Second

// obeySignals ends the guest when a program asks this process, as PID 1, by a signal.
func (s *server) obeySignals() {
	boot.OnSignal(func(how boot.Ending) { s.shutdown(rebootGrace, how) })
}

func serveChannel(channel io.ReadWriter, s *server) error {
	go s.commands.Run()
	return mux.Serve(context.Background(), channel, s.handle)
}
