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

// Files in Config.Dir. Their names are short: a socket's path has 107 bytes (unix(7)).
const (
	apiSocket   = "api.sock"
	vsockSocket = "v.sock"
	logPipe     = "log"
	metricsPipe = "metrics"
)

const maxSocketPath = 107

// guestCID is the guest's context id. It is the same in every VM: the device leads to a
// socket of the VM's own, not to the host's vsock.
const guestCID = 3

// cmdline is the kernel's command line. The serial port is on, the keyboard controller,
// by which a reboot ends the VMM, is not probed for what it has not; virtio is announced
// by ACPI. An own command line replaces Firecracker's, whose nomodule would keep the
// initramfs from loading its drivers. An end of the guest must be a restart: the machine
// has no power to switch off (docs/api_requests/actions.md).
const cmdline = "console=ttyS0 quiet panic=-1 reboot=k random.trust_cpu=on i8042.noaux i8042.nomux i8042.dumbkbd swiotlb=noforce banger.end=restart"

// The serial port prints into a pipe of ours, so what a guest can print costs us CPU time:
// 4 MiB at once, and 1 MiB in each second.
var serialLimit = TokenBucket{Size: 1 << 20, OneTimeBurst: 4 << 20, RefillTime: 1000}

// options are those of Config.Options.
type options struct {
	cpuTemplate     json.RawMessage // the file that cpu_template names, as it is
	hugePages       string
	trackDirtyPages bool
	pci             bool
	clock           bool // the snapshot has the time of day; of no option, but of checkSnapshot
}

// Options that a snapshot asks for, too.
const (
	optionHugePages       = "huge_pages"
	optionTrackDirtyPages = "track_dirty_pages"
)

// readOptions checks the options of c: cpu_template (a file for PUT /cpu-config),
// huge_pages (2M), track_dirty_pages (on) and pci (on).
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
		case name == optionTrackDirtyPages && value == "on":
			o.trackDirtyPages = true
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
		return nil, fmt.Errorf("the CPU template %s is no file of at most %d bytes", path, maxBody)
	}
	data, err := os.ReadFile(path)
	if err == nil && !json.Valid(data) {
		err = fmt.Errorf("the CPU template %s is not JSON", path)
	}
	return data, err
}

// request is one call of the API that is answered without a body.
type request struct {
	method, path string
	body         any
}

func put(path string, body any) request { return request{http.MethodPut, path, body} }

// bootRequests are the calls that boot c, in order. It is pure, so that a golden test can
// show exactly what we ask of Firecracker.
func bootRequests(c vmm.Config, v version, o options) []request {
	list := []request{logRequest(c), metricsRequest(c), put("/machine-config", MachineConfiguration{
		VcpuCount:       c.CPUs,
		MemSizeMib:      c.MemoryMiB,
		HugePages:       o.hugePages,
		TrackDirtyPages: o.trackDirtyPages,
	})}
	if o.cpuTemplate != nil {
		list = append(list, put("/cpu-config", o.cpuTemplate))
	}
	list = append(list, put("/boot-source", BootSource{
		KernelImagePath: c.Kernel,
		InitrdPath:      c.Initrd,
		BootArgs:        bootArgs(c, v, o),
	}))
	for _, d := range c.Drives {
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

// logRequest may come before any other; before a restore, only those of the metrics and of
// the serial port may, too.
func logRequest(c vmm.Config) request {
	return put("/logger", Logger{LogPath: filepath.Join(c.Dir, logPipe), Level: levelWarning, ShowLevel: true})
}

// drive is a disk. The engine is the synchronous one: the asynchronous one needs io_uring,
// which the VMM's filter denies and hosts switch off. A disk that is written keeps the
// guest's flushes (Writeback), else a power cut would lose what the guest was told is
// safe; one that is only read has nothing to flush.
func drive(d vmm.Drive) Drive {
	cache := cacheWriteback
	if d.ReadOnly {
		cache = cacheUnsafe
	}
	return Drive{DriveID: d.Serial, PathOnHost: d.Path, IsReadOnly: d.ReadOnly, CacheType: cache, IOEngine: engineSync}
}

func ifaceID(i int) string { return fmt.Sprintf("eth%d", i) }

// bootArgs tells the guest the names of its disks in the order in which it finds them:
// Firecracker makes their serial numbers itself, of what the host's file system calls them.
func bootArgs(c vmm.Config, v version, o options) string {
	args := cmdline
	if !o.pci && !v.appendsPCIOff() {
		args += " pci=off"
	}
	names := make([]string, len(c.Drives))
	for i, d := range c.Drives {
		names[i] = d.Serial
	}
	if len(names) > 0 {
		args += " banger.disks=" + strings.Join(names, ",")
	}
	if c.Cmdline != "" {
		args += " " + c.Cmdline
	}
	return args
}

// check refuses what Firecracker would, and what it would not tell well.
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
	c.Drives = nil // Firecracker tells well of those
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

// checkELF refuses a kernel that is packed.
func checkELF(path string, f *os.File) error {
	var magic [4]byte
	if _, err := f.ReadAt(magic[:], 0); err != nil || string(magic[:]) != "\x7fELF" {
		return fmt.Errorf("the kernel %s is no ELF file, and Firecracker before 1.17 boots no other", path)
	}
	return nil
}
