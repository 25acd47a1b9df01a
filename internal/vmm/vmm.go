// Package vmm says what a virtual machine monitor is to us: a Driver that turns
// a Config of plain values into a running Process. It must not know any VMM by
// name, nor images, networks or settings; a driver creates nothing but its own
// process and sockets and receives every path ready made.
package vmm

import (
	"context"
	"io"
	"net"
	"os"
)

// Accel says what executes guest code.
type Accel string

// The accelerators.
const (
	AccelKVM Accel = "kvm" // hardware virtualisation
	AccelTCG Accel = "tcg" // instruction emulation; no isolation boundary
)

// Drive is one virtio block device. The guest finds it by Serial.
type Drive struct {
	Serial   string `json:"serial"` // at most 20 bytes (virtio 5.2.4)
	Path     string `json:"path"`   // raw image
	ReadOnly bool   `json:"read_only,omitempty"`
	// File is the same, opened as it is to be used; nil: the driver opens it. The driver does
	// not close it.
	File *os.File `json:"-"`
}

// NIC is one virtio network device. Its frames travel over a unix stream socket, each
// behind a 4-byte big-endian length, or by a tap: one that is handed over, or one that the
// VMM opens by name in its own network namespace.
type NIC struct {
	MAC    string   `json:"mac"`
	Socket *os.File `json:"-"`                // the VMM's end of a pair; the driver does not close it
	Tap    *os.File `json:"-"`                // opened with IFF_VNET_HDR; the driver does not close it
	Device string   `json:"device,omitempty"` // the name of a tap, for a VMM that opens it itself
	MTU    int      `json:"mtu,omitempty"`    // told to the guest; 0: the device's own
}

// Config is everything a driver needs to start a VM. It is stored as JSON in
// the VM's directory.
type Config struct {
	ID    string `json:"id"`
	Dir   string `json:"dir"` // existing directory for sockets; its path must leave room (sun_path is 108 bytes)
	Accel Accel  `json:"accel"`
	// the program's version, if the caller knows it: the driver then need not ask
	Version string `json:"version,omitempty"`
	Kernel  string `json:"kernel"` // vmlinux ELF or bzImage
	Initrd  string `json:"initrd"`
	// KernelFile and InitrdFile are the same, opened for reading; nil: the driver opens them. The
	// driver does not close them.
	KernelFile *os.File `json:"-"`
	InitrdFile *os.File `json:"-"`
	Cmdline    string   `json:"cmdline"` // additions to the driver's own
	CPUs       int      `json:"cpus"`
	MemoryMiB  int      `json:"memory_mib"`
	Drives     []Drive  `json:"drives"`
	NICs       []NIC    `json:"nics,omitempty"`
	Channel    string   `json:"channel"` // name of the agent's port in the guest
	// CPUModel names the CPU that the guest sees, in the VMM's own words; "": the driver's choice.
	CPUModel string `json:"cpu_model,omitempty"`
	// Nested offers hardware virtualisation to the guest, so that the guest can run VMs.
	Nested bool `json:"nested,omitempty"`
	// Restore is the directory of a snapshot to go on from; "": boot. The VM must be as the
	// snapshot's was, but for the places of files and sockets, the content of disks
	// excepted, and it runs when Start returns: the agent is to be told.
	Restore string `json:"restore,omitempty"`
	// Wrap is put before the VMM's command: a program that gives up rights and then
	// executes its other arguments in its own place.
	Wrap []string `json:"wrap,omitempty"`
	// WrapFiles are the wrapper's descriptors from 3 on, which it does not pass on.
	WrapFiles []*os.File `json:"-"`
	// Namespaces starts the wrapper in a user and a network namespace of its own, with the
	// caller's ids, and there with CAP_NET_ADMIN and CAP_NET_RAW in its ambient set, which it
	// is to clear (capabilities(7)). A caller that is root has these rights: it is in a network
	// namespace of its own alone.
	Namespaces bool `json:"namespaces,omitempty"`
	// Sockets says that the VMM makes unix sockets of its own, to which others connect. Another
	// gets all its sockets as descriptors.
	Sockets bool `json:"sockets,omitempty"`
	// Program is the VMM's file; "": the driver searches it.
	Program string `json:"program,omitempty"`
	// Answering is called by a driver whose VMM is told of its guest after it has started: when
	// the VMM answers, and before anything of a guest runs. An error ends the start.
	Answering func() error `json:"-"`
	// Options are those that only this driver has, by name. It refuses what it does not know.
	Options map[string]string `json:"options,omitempty"`
	// Reads are files that the driver reads for its options.
	Reads []string `json:"reads,omitempty"`
}

// Exit is how a VMM process ended.
type Exit struct {
	Code   int    `json:"code"`
	Signal int    `json:"signal,omitempty"`
	Reason string `json:"reason"` // one clause for a person: "guest powered off", "killed by signal 9"
	Panic  bool   `json:"panic,omitempty"`
	// Reboot says that the guest's kernel has restarted the machine, which ends the VMM. A guest
	// that the host asked to shut down may do that too.
	Reboot bool `json:"reboot,omitempty"`
}

// Restarting is what a guest's kernel prints at last when it restarts the machine
// (kernel/reboot.c), at every log level.
const Restarting = "reboot: Restarting system"

// Driver starts VMs on one VMM.
type Driver interface {
	// Name is "qemu", "firecracker", …
	Name() string
	// Path returns the VMM's program on this host, or why there is none.
	Path() (string, error)
	// Version is what the VMM found on this host calls itself; an error says
	// why it cannot be used and what to install.
	Version(ctx context.Context) (string, error)
	// Start starts a VM and returns once its process exists. Nothing is left
	// when it fails. ctx bounds the start, not the VM's life. Whatever the guest
	// prints on its console goes to console, whose Write must not block for long.
	Start(ctx context.Context, c Config, console io.Writer) (Process, error)
}

// Stats are totals since the VMM started, in bytes.
type Stats struct {
	DiskRead    uint64 `json:"disk_read"`
	DiskWritten uint64 `json:"disk_written"`
}

// Process is one running VMM. It lives until the guest powers off, Kill, or the
// death of the process that started it.
type Process interface {
	Handle() Handle
	// Done is closed when the VMM has ended and Exit is known.
	Done() <-chan struct{}
	Exit() Exit
	Kill() error
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
	// Stats asks the VMM what its devices have done. Its word is a guest's word, if the guest
	// has subverted it.
	Stats(ctx context.Context) (Stats, error)
}

// Dialer is implemented by a Process whose transport carries one connection per
// stream (vsock).
type Dialer interface {
	Dial(ctx context.Context, port uint32) (net.Conn, error)
}

// Channeler is implemented by a Process that offers a single byte channel to
// the agent (virtio-serial); the caller multiplexes it. The connection is the
// caller's to close.
type Channeler interface {
	OpenChannel(ctx context.Context) (net.Conn, error)
}
