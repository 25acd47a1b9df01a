// Command double stands for Firecracker on hosts without KVM. It speaks Firecracker's API, as
// strictly as Firecracker does, and runs the guest under QEMU's emulation, on a machine whose
// devices are announced as Firecracker announces them (virtio-mmio by ACPI). It is a tool of tests.
//
// It shares no code with the driver that it tests. Its rules are written again from Firecracker's
// API description (swagger/firecracker.yaml, 1.16.1) and sources (src/firecracker/src/api_server,
// src/vmm/src/rpc_interface.rs).
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"time"
)

// Exit codes (src/vmm/src/lib.rs, FcExitCode).
const (
	exitOK         = 0
	exitGeneric    = 1
	exitBadArgs    = 153
	exitBadSyscall = 148
)

var instanceID = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)

func main() {
	if len(os.Args) == 2 && os.Args[1] == followCommand {
		follow()
		return
	}
	flags := flag.NewFlagSet("firecracker", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	var (
		id      = flags.String("id", "anonymous-instance", "")
		socket  = flags.String("api-sock", "/run/firecracker.socket", "")
		version = flags.Bool("version", false, "")
		level   = flags.String("level", "Info", "")
		pci     = new(bool)
		_       = flags.Uint64("start-time-us", 0, "") // passed by the jailer
		_       = flags.Uint64("start-time-cpu-us", 0, "")
		_       = flags.Uint64("parent-cpu-time-us", 0, "")
	)
	if !before(1, 13, 0) {
		pci = flags.Bool("enable-pci", false, "")
	}
	err := flags.Parse(os.Args[1:])
	if err == nil {
		err = oneOf(*level, logLevels...)
	}
	if err != nil || flags.NArg() > 0 || !instanceID.MatchString(*id) {
		fmt.Fprintf(os.Stderr, "Arguments parsing error: %v\n", err)
		os.Exit(exitBadArgs)
	}
	if *version {
		fmt.Printf("Firecracker v%s\n\n", playedVersion())
		return
	}
	m := &microVM{id: *id, state: notStarted, ended: make(chan int, 1), pci: *pci, level: *level}
	os.Exit(m.serve(*socket))
}

// serve answers the API until the guest ends, and returns the exit code.
func (m *microVM) serve(socket string) int {
	m.logf("main", "Running Firecracker v%s", playedVersion())
	ln, err := net.Listen("unix", socket)
	if err != nil {
		fmt.Fprintf(os.Stderr, "Failed to open the API socket at: %s. Check that it is not already used.\n", socket)
		return exitGeneric
	}
	m.logf("fc_api", "API server started.")
	server := &http.Server{Handler: &api{vm: m}, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(ln) }()
	select {
	case code := <-m.ended:
		os.Remove(socket)
		return code
	case err := <-failed:
		fmt.Fprintln(os.Stderr, errors.Join(errors.New("API error"), err))
		return exitGeneric
	}
}
