// Package agent is the guest's side: as PID 1 it mounts the disks and becomes
// init, or hands PID 1 to the image's own init and stays beside it; in both
// cases it answers the host's requests. It runs on any root file system, a
// scratch image with one static binary included, so it needs no file of the
// image's and starts no helper program.
//
// The image is hostile: no path of it is followed out of the new root. The
// package must not know what VMM it runs under.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/mux"
)

// residentName is argv[0] of the agent beside the image's init. systemd spares
// processes whose name starts with "@" when it shuts down (systemd.io,
// ROOT_STORAGE_DAEMONS), so the host keeps its eyes until the end.
const residentName = "@banger-agent"

// Main is the agent's main function; it returns an exit code. As PID 1 it
// returns only after a failure.
func Main(args []string) int {
	var err error
	switch {
	case len(args) == 2 && args[1] == "serve":
		// Under the in-memory driver: the channel is descriptor 3 and the host
		// is not ours to configure.
		s := newServer(hostDuties{})
		s.obeySignals()
		err = serveChannel(os.NewFile(3, "channel"), s)
	case len(args) == 2 && args[0] == selfProgram && args[1] == sftpArgument:
		err = serveSFTP()
	case args[0] == residentName:
		err = runResident()
	case os.Getpid() == 1:
		err = runInit()
		fmt.Fprintf(os.Stderr, "banger-agent: %v\n", err)
		powerOff()
	default:
		err = fmt.Errorf("this is the init of a banger VM")
	}
	if err != nil && err != io.EOF {
		fmt.Fprintf(os.Stderr, "banger-agent: %v\n", err)
		return 1
	}
	return 0
}

// runInit is PID 1's whole life.
func runInit() error {
	if err := mountEarly(); err != nil {
		return err
	}
	handOver := kernelArgument(guest.InitArgument)
	if err := loadModules(); err != nil {
		return err
	}
	disk, err := assembleRoot()
	if err != nil {
		return err
	}
	if err := switchRoot(); err != nil {
		return err
	}
	if handOver {
		return becomeImageInit(disk)
	}
	serve, err := openHost()
	if err != nil {
		return err
	}
	calmThreads()
	s := newServer(initDuties{own: disk})
	s.group = groupOfCommands()
	s.obeySignals()
	fmt.Println("banger-agent: ready")
	return serve(s)
}

// runResident is the agent beside the image's own init. It tells PID 1 through
// descriptor 3 when the host has configured the guest; descriptor 4 is the disk.
func runResident() error {
	serve, err := openHost()
	if err != nil {
		return err
	}
	calmThreads()
	unix.CloseOnExec(residentDisk)
	s := newServer(&residentDuties{own: residentDisk, configured: os.NewFile(3, "configured")})
	s.group = groupOfCommands()
	return serve(s)
}

const residentDisk = 4

// openHost opens the way by which the host asks, whatever the VMM offers: a serial port,
// which one session shares, or a vsock, which has a connection for each stream. It returns
// what serves it for life. The port comes first: whether a vsock leads anywhere does not show.
func openHost() (serve func(*server) error, err error) {
	channel, err := openChannel()
	if err == nil {
		return func(s *server) error { return serveChannel(channel, s) }, nil
	}
	ln, verr := listenVsock(guest.AgentPort)
	if verr != nil {
		return nil, errors.Join(err, verr)
	}
	return func(s *server) error {
		go s.reaper.run() // for life
		return serveVsock(ln, s)
	}, nil
}

func serveChannel(channel io.ReadWriter, s *server) error {
	go s.reaper.run()
	return mux.Serve(context.Background(), channel, s.handle)
}

// kernelArgument reports whether the kernel was started with arg.
func kernelArgument(arg string) bool {
	return slices.Contains(kernelArguments(), arg)
}

// kernelValue returns the value of name=value.
func kernelValue(name string) (string, bool) {
	for _, a := range kernelArguments() {
		if v, ok := strings.CutPrefix(a, name+"="); ok {
			return v, true
		}
	}
	return "", false
}

func kernelArguments() []string {
	data, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil
	}
	return strings.Fields(string(data))
}
