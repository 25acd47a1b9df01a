// Package vmm defines what a virtual machine monitor (VMM) is to banger: a Driver that turns a
// Config of plain values into a running Process. It must not know any VMM by name, nor images,
// networks or settings. A driver creates nothing but its own process and sockets, and receives
// every path ready made.
package vmm

import (
	"context"
	"errors"
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
	Path     string `json:"path"`   // raw image, or an overlay if there is a Base
	ReadOnly bool   `json:"read_only,omitempty"`
	// Base is what is beneath the overlay at Path, the uppermost first: overlays (package qcow2), and last a raw image.
	// Nobody writes these files. A driver that knows no overlays refuses a drive that has a Base.
	Base []Layer `json:"base,omitempty"`
	// File is the image at Path, opened as it is to be used. If it is nil, the driver opens Path. The
	// driver does not close File.
	File *os.File `json:"-"`
}

// Layer is one file beneath an overlay.
type Layer struct {
	Path string `json:"path"`
	// File is the file at Path, opened for reading. If it is nil, the driver opens Path. The driver does not close it.
	File *os.File `json:"-"`
}

// bottom returns the raw image of a drive, which has the drive's size.
func (d Drive) bottom() (path string, file *os.File) {
	if n := len(d.Base); n > 0 {
		return d.Base[n-1].Path, d.Base[n-1].File
	}
	return d.Path, d.File
}

// CheckBases returns an error if a drive of c is an overlay. It is for drivers that know none.
func (c Config) CheckBases() error {
	for _, d := range c.Drives {
		if len(d.Base) > 0 {
			return errors.New("the VMM takes no overlays, so the disk " + d.Serial + " must be one file")
		}
	}
	return nil
}

// NIC is one virtio network device. Its frames travel over a unix stream socket, each behind a
// 4-byte big-endian length, or over a tap. A tap is either handed over as a descriptor, or opened
// by name by the VMM in its own network namespace.
type NIC struct {
	MAC    string   `json:"mac"`
	Socket *os.File `json:"-"`                // the VMM's end of a socket pair; the driver does not close it
	Tap    *os.File `json:"-"`                // opened with IFF_VNET_HDR; the driver does not close it
	Device string   `json:"device,omitempty"` // the name of a tap, for a VMM that opens it itself
	MTU    int      `json:"mtu,omitempty"`    // announced to the guest; 0 means the device's default
}

// Config is everything that a driver needs to start a VM. It is stored as JSON in the VM's
// directory.
type Config struct {
	ID    string `json:"id"`
	Dir   string `json:"dir"` // existing directory for sockets; its path must leave room (sun_path is 108 bytes)
	Accel Accel  `json:"accel"`
	// Version is the version of the VMM's program, or "" if the caller does not know it. The driver
	// then asks the program.
	Version string `json:"version,omitempty"`
	Kernel  string `json:"kernel"` // vmlinux ELF or bzImage
	Initrd  string `json:"initrd"`
	// KernelFile and InitrdFile are the files at Kernel and Initrd, opened for reading. If they are
	// nil, the driver opens them. The driver does not close them.
	KernelFile *os.File `json:"-"`
	InitrdFile *os.File `json:"-"`
	Cmdline    string   `json:"cmdline"` // added to the driver's own command line
	CPUs       int      `json:"cpus"`
	MemoryMiB  int      `json:"memory_mib"`
	Drives     []Drive  `json:"drives"`
	NICs       []NIC    `json:"nics,omitempty"`
	Channel    string   `json:"channel"` // name of the agent's port in the guest
	// CPUModel names the CPU that the guest sees, in the VMM's own words. If it is "", the driver
	// chooses.
	CPUModel string `json:"cpu_model,omitempty"`
	// Nested offers hardware virtualisation to the guest, which can then run VMs.
	Nested bool `json:"nested,omitempty"`
	// Restore is the directory of a snapshot to continue from; "" means boot. The VM must match the
	// snapshot's VM, except for the paths of files and sockets and the content of disks. The VM runs
	// when Start returns, and the caller must then inform the agent of the restore.
	Restore string `json:"restore,omitempty"`
	// Shared says that any number of VMs may go on from the snapshot at the same time, whose open files are in From. They
	// never change.
	Shared bool   `json:"shared,omitempty"`
	From   *Saved `json:"-"` // the driver does not close the files
	// Save is the directory into which the VM will be written down. It is for a VMM that can open no file
	// later; others ignore it. "" means that the VMM can open any file in any directory when it is asked.
	Save string `json:"save,omitempty"`
	// Resuming is called for a Restore, when all is checked and before any guest code runs. An error
	// ends the start. The driver calls undo if the guest has certainly not run after all. If Resuming is
	// nil, any number of VMs may go on from the snapshot.
	Resuming func() (undo func(), err error) `json:"-"`
	// Wrap is put before the VMM's command. It names a program that drops privileges and then executes
	// the rest of the command in its own process.
	Wrap []string `json:"wrap,omitempty"`
	// WrapFiles are the wrapper's descriptors from 3 on. The wrapper does not pass them on.
	WrapFiles []*os.File `json:"-"`
	// Namespaces starts the wrapper in its own user and network namespaces, under the caller's ids.
	// There the wrapper has CAP_NET_ADMIN and CAP_NET_RAW in its ambient set, which it must clear
	// (capabilities(7)). If the caller is root, it already has these rights, and the wrapper gets only
	// a network namespace.
	Namespaces bool `json:"namespaces,omitempty"`
	// Sockets says that the VMM creates unix sockets to which others connect. Other VMMs get all their
	// sockets as descriptors.
	Sockets bool `json:"sockets,omitempty"`
	// Program is the path of the VMM's program. If it is "", the driver searches for it.
	Program string `json:"program,omitempty"`
	// Answering is called by a driver whose VMM is configured after its start: once the VMM answers,
	// and before any guest code runs. An error ends the start.
	Answering func() error `json:"-"`
	// Options are the driver's own options, by name. The driver refuses options that it does not know.
	Options map[string]string `json:"options,omitempty"`
	// Reads are the files that the driver reads because of its options.
	Reads []string `json:"reads,omitempty"`
}

// Exit describes how a VMM process ended.
type Exit struct {
	Code   int    `json:"code"`
	Signal int    `json:"signal,omitempty"`
	Reason string `json:"reason"` // one clause for a person: "guest powered off", "killed by signal 9"
	Panic  bool   `json:"panic,omitempty"`
	// Reboot says that the guest's kernel restarted the machine, which ends the VMM. A guest may also
	// do that when the host asked it to shut down.
	Reboot bool `json:"reboot,omitempty"`
}

// Restarting is the last line that a guest's kernel prints when it restarts the machine
// (kernel/reboot.c). It is printed at every log level.
const Restarting = "reboot: Restarting system"

// Driver starts VMs on one VMM.
type Driver interface {
	// Name returns "qemu", "firecracker", …
	Name() string
	// Path returns the path of the VMM's program on this host, or an error that says why there is no
	// such program.
	Path() (string, error)
	// Version returns the version of the installed VMM. An error says why the VMM cannot be used and
	// what to install.
	Version(ctx context.Context) (string, error)
	// Start starts a VM and returns once its process exists. Nothing is left when it fails. ctx bounds
	// the start, not the VM's life. The guest's console output goes to console, whose Write must not
	// block for long.
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
	// Done returns a channel that is closed when the VMM has ended and Exit is known.
	Done() <-chan struct{}
	Exit() Exit
	Kill() error
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
	// Stats asks the VMM what its devices have read and written. If the guest has subverted the VMM,
	// the answer is the guest's.
	Stats(ctx context.Context) (Stats, error)
}

// Overlayer is implemented by a Process whose VMM can put an overlay on the disk of a VM that does not run.
type Overlayer interface {
	// Overlay makes the drive with a serial write to top from now on, an empty overlay of the drive's size. What the
	// drive wrote to so far is beneath it; frozen is that file, opened for reading, and the VMM keeps no other descriptor
	// of it. The VM must be paused. The caller closes both files. After an error the drive is as it was.
	Overlay(ctx context.Context, serial string, top, frozen *os.File) error
	// WriteDown is Snapshot of Snapshotter without its end: dir has no snapshot before commit has made it durable. The VM
	// may run again by then. After an error of WriteDown or commit, no file is left.
	WriteDown(ctx context.Context, dir string) (commit func() error, err error)
}

// Dialer is implemented by a Process whose transport carries one connection per stream (vsock).
type Dialer interface {
	Dial(ctx context.Context, port uint32) (net.Conn, error)
}

// Channeler is implemented by a Process that offers a single byte channel to the agent
// (virtio-serial). The caller multiplexes the channel, and closes the connection.
type Channeler interface {
	OpenChannel(ctx context.Context) (net.Conn, error)
}

// Resume calls c.Resuming, if there is one.
func (c Config) Resume() (undo func(), err error) {
	if c.Resuming == nil {
		return func() {}, nil
	}
	return c.Resuming()
}
