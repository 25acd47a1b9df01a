package firecracker

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"banger/internal/vmm"
)

// Files in Config.Dir. Their names are short because the path of a socket has at most 107 bytes
// (unix(7)).
const (
	apiSocket   = "api.sock"
	vsockSocket = "v.sock"
	logPipe     = "log"
	metricsPipe = "metrics"
)

const maxSocketPath = 107

// guestCID is the guest's context id. It is the same in every VM, because the device is connected
// to a socket of the VM, not to the host's vsock.
const guestCID = 3

// cmdline is the kernel's command line.
//   - The serial port is on.
//   - A reboot ends the VMM through the keyboard controller. The i8042 options skip probes for what
//     that controller does not have.
//   - ACPI announces the virtio devices.
//   - It replaces Firecracker's own command line, whose nomodule would keep the initramfs from
//     loading its drivers.
//   - The guest must end with a restart: the machine has no power to switch off
//     (docs/api_requests/actions.md).
const cmdline = "console=ttyS0 quiet panic=-1 reboot=k random.trust_cpu=on i8042.noaux i8042.nomux i8042.dumbkbd " +
	"swiotlb=noforce banger.end=restart"

// serialLimit bounds what a guest prints: the serial port writes into a pipe that we read, which
// costs us CPU time. A guest may print 4 MiB at once, and 1 MiB per second.
var serialLimit = TokenBucket{Size: 1 << 20, OneTimeBurst: 4 << 20, RefillTime: 1000}

// options are the parsed Config.Options.
type options struct {
	cpuTemplate json.RawMessage // content of the file that cpu_template names
	hugePages   string
	pci         bool
	clock       bool // the snapshot has the time of day; set by checkSnapshot, not by an option
	spares      int  // number of spare drives; not an option
}

// Options that must also match a snapshot's.
const (
	optionHugePages = "huge_pages"
)

// readOptions checks the options of c: cpu_template (a file for PUT /cpu-config),
// huge_pages (2M) and pci (on).
func readOptions(c vmm.Config, v version) (o options, err error) {
	for name, value := range c.Options {
		switch {
		case name == "cpu_template":
			if o.cpuTemplate, err = readTemplate(value); err != nil {
				return o, err
			}
		case name == optionHugePages && value == hugePages2M:
			if c.MemoryMiB%2 != 0 {
				return o, errors.New("with huge pages of 2M the memory must be a multiple of 2 MiB")
			}
			o.hugePages = value
		// readJail reads these.
		case name == OptionJailer || name == OptionJails || name == OptionUID || name == OptionGID || name == OptionGroup:
		case name == "pci" && value == "on":
			if problem := v.pciProblem(); problem != "" {
				return o, errors.New(problem)
			}
			o.pci = true
		default:
			return o, fmt.Errorf("the Firecracker driver has no option %.40q with the value %.40q", name, value)
		}
	}
	return o, nil
}

func readTemplate(path string) (json.RawMessage, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading the CPU template: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxBody {
		return nil, fmt.Errorf("the CPU template %s is not a file of at most %d bytes", path, maxBody)
	}
	data, err := os.ReadFile(path)
	if err == nil && !json.Valid(data) {
		err = fmt.Errorf("the CPU template %s is not JSON", path)
	}
	return data, err
}

// request is one call of the API whose answer has no body.
type request struct {
	method, path string
	body         any
}

func put(path string, body any) request { return request{http.MethodPut, path, body} }

// bootRequests returns the calls that boot c, in order. It is a pure function: a golden test shows
// exactly what we ask of Firecracker.
func bootRequests(c vmm.Config, v version, o options) []request {
	list := []request{logRequest(c), metricsRequest(c), put("/machine-config", MachineConfiguration{
		VcpuCount:  c.CPUs,
		MemSizeMib: c.MemoryMiB,
		HugePages:  o.hugePages,
	})}
	if o.cpuTemplate != nil {
		list = append(list, put("/cpu-config", o.cpuTemplate))
	}
	list = append(list, put("/boot-source", BootSource{
		KernelImagePath: c.Kernel,
		InitrdPath:      c.Initrd,
		BootArgs:        bootArgs(c, v, o),
	}))
	for _, d := range allDrives(c, o) {
		list = append(list, put("/drives/"+d.Serial, drive(d)))
	}
	for i, n := range c.NICs {
		iface := NetworkInterface{IfaceID: ifaceID(i), HostDevName: n.Device, GuestMAC: n.MAC}
		if v.hasNetworkMTU() {
			iface.MTU = n.MTU
		}
		list = append(list, put("/network-interfaces/"+iface.IfaceID, iface))
	}
	list = append(list,
		put("/vsock", Vsock{GuestCID: guestCID, UDSPath: filepath.Join(c.Dir, vsockSocket)}),
		put("/entropy", EntropyDevice{}),
		put("/balloon", Balloon{DeflateOnOOM: true, FreePageHinting: v.hasFreePages(), FreePageReporting: v.hasFreePages()}))
	if v.hasSerialLimit() {
		list = append(list, serialRequest())
	}
	return append(list, put("/actions", InstanceActionInfo{ActionType: actionInstanceStart}))
}

func serialRequest() request { return put("/serial", SerialDevice{RateLimiter: &serialLimit}) }

// logRequest returns the call that sets the log. It may come before any other call. Before a
// restore, only the calls for the log, the metrics and the serial port are allowed.
func logRequest(c vmm.Config) request {
	return put("/logger", Logger{LogPath: filepath.Join(c.Dir, logPipe), Level: levelWarning, ShowLevel: true})
}

// drive returns the API's description of a disk. It uses the synchronous engine: the asynchronous
// one needs io_uring, which the VMM's filter denies and some hosts switch off. A writable disk
// honours the guest's flushes (Writeback), otherwise a power cut could lose data that the guest
// believes to be safe. A read-only disk has nothing to flush.
func drive(d vmm.Drive) Drive {
	cache := cacheWriteback
	if d.ReadOnly {
		cache = cacheUnsafe
	}
	return Drive{DriveID: d.Serial, PathOnHost: d.Path, IsReadOnly: d.ReadOnly, CacheType: cache, IOEngine: engineSync}
}

func ifaceID(i int) string { return fmt.Sprintf("eth%d", i) }

// bootArgs returns the kernel's command line. It tells the guest the names of its disks in the
// order in which the guest finds them, because Firecracker derives the serial numbers from the
// host's file system.
func bootArgs(c vmm.Config, v version, o options) string {
	args := cmdline
	if !o.pci && !v.appendsPCIOff() {
		args += " pci=off"
	}
	var names []string
	for _, d := range allDrives(c, o) {
		names = append(names, d.Serial)
	}
	if len(names) > 0 {
		args += " banger.disks=" + strings.Join(names, ",")
	}
	if c.Cmdline != "" {
		args += " " + c.Cmdline
	}
	return args
}

// check returns an error for what Firecracker would refuse, or would refuse without a clear reason.
func check(c vmm.Config, v version) error {
	if c.Accel != vmm.AccelKVM {
		return fmt.Errorf("%s needs KVM, which executes no guests on this host", title)
	}
	if c.CPUModel != "" || c.Nested {
		return fmt.Errorf("%s gives a guest the host's CPU, without virtualisation of its own", title)
	}
	for _, name := range []string{apiSocket, vsockSocket} {
		if path := filepath.Join(c.Dir, name); len(path) > maxSocketPath {
			return fmt.Errorf("the path %s of a socket has %d bytes, and %d are possible: choose a shorter run directory", path,
				len(path), maxSocketPath)
		}
	}
	if c.CPUs < 1 || c.CPUs > 32 {
		return fmt.Errorf("%s gives a VM 1 to 32 CPUs, not %d", title, c.CPUs)
	}
	for _, n := range c.NICs {
		if n.Device == "" {
			return fmt.Errorf("%s has no network but taps, which it opens by name", title)
		}
	}
	c.Drives = nil // Firecracker reports these well
	opened, done, err := c.OpenFiles()
	if err != nil {
		return err
	}
	defer done()
	if !v.hasBzImage() {
		return checkELF(c.Kernel, opened.KernelFile)
	}
	return nil
}

// checkELF returns an error if a kernel is packed.
func checkELF(path string, f *os.File) error {
	var magic [4]byte
	if _, err := f.ReadAt(magic[:], 0); err != nil || string(magic[:]) != "\x7fELF" {
		return fmt.Errorf("the kernel %s is not an ELF file, and Firecracker before 1.17 boots no other", path)
	}
	return nil
}
