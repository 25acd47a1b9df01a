package boot

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/agent/console"
)

// moduleInitCompressed makes the kernel unpack a module's file itself (finit_module(2),
// MODULE_INIT_COMPRESSED_FILE).
const moduleInitCompressed = 4

// loadModules loads the modules that the host packed, in their order.
func loadModules() error {
	list, err := os.ReadFile("/modules.list")
	if err != nil {
		return nil // a kernel with everything built in
	}
	for _, path := range strings.Fields(string(list)) {
		if !hasDevice(path) {
			os.Remove(path)
			continue
		}
		err := insertModule(path)
		os.Remove(path)                                 // this frees its memory
		if err != nil && !errors.Is(err, unix.ENODEV) { // the module is for another VMM's hardware
			return err
		}
	}
	return nil
}

// optionalDevices are modules that serve one virtio device alone, which not every VMM has
// (virtio 1.2, section 5): loading one costs an emulated guest 10 ms and more. The bus is
// loaded before them.
var optionalDevices = map[string]string{
	"virtio_balloon": "0x0005",
	"vsock":          "0x0013", "vmw_vsock_virtio_transport_common": "0x0013", "vmw_vsock_virtio_transport": "0x0013",
}

// hasDevice reports whether a module's device may be there.
func hasDevice(module string) bool {
	id, optional := optionalDevices[strings.TrimSuffix(filepath.Base(module), ".ko")]
	if !optional {
		return true
	}
	devices, err := filepath.Glob("/sys/bus/virtio/devices/*/device")
	if err != nil || len(devices) == 0 {
		return true
	}
	for _, d := range devices {
		if got, err := os.ReadFile(d); err == nil && strings.TrimSpace(string(got)) == id {
			return true
		}
	}
	return false
}

// mountModules mounts the kernel's modules where modprobe looks. The guest also runs without them,
// so a failure is only a warning.
func mountModules() {
	dev := lookForDisk("modules")
	if dev == "" {
		return
	}
	fd, err := mkdirInRoot("lib/modules/"+KernelRelease(), 0o755)
	if err == nil {
		err = unix.Mount(dev, procPath(fd), "ext4", unix.MS_RDONLY, "")
		unix.Close(fd)
	}
	if err != nil {
		console.Warn(fmt.Errorf("mounting the kernel's modules: %w", err))
	}
}

// prepareNested loads what a guest needs to run VMs: KVM for its CPU, and taps for their networks. It opens both
// devices to every user of the guest, as udev does.
func prepareNested() error {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return err
	}
	kvm, err := kvmModule(string(info))
	if err != nil {
		return err
	}
	dir := "/lib/modules/" + KernelRelease()
	for _, m := range []struct{ name, device string }{{kvm, "/dev/kvm"}, {"tun", "/dev/net/tun"}} {
		if err := loadModule(dir, m.name); err != nil {
			return err
		}
		if err := unix.Chmod(m.device, 0o666); err != nil {
			return fmt.Errorf("opening %s to all users: %w", m.device, err)
		}
	}
	return holdVM()
}

// createVM is KVM_CREATE_VM (Linux, Documentation/virt/kvm/api.rst).
const createVM = 0xAE01

// holdVM makes a VM without CPUs and memory that lives as long as this process. The kernel rewrites code of its
// scheduler when the first VM comes and when the last one goes. An emulated guest of several CPUs must not do so often:
// QEMU 7.2 may go on executing the old code, and the guest then hangs (docs/adr/0024).
func holdVM() error {
	kvm, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening /dev/kvm: %w", err)
	}
	defer unix.Close(kvm)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(kvm), createVM, 0); errno != 0 { // the descriptor stays open
		return fmt.Errorf("the guest's KVM makes no VM: %w", errno)
	}
	return nil
}

// kvmModule returns the name of the module for the CPU that /proc/cpuinfo describes.
func kvmModule(cpuinfo string) (string, error) {
	for line := range strings.Lines(cpuinfo) {
		name, flags, _ := strings.Cut(line, ":")
		if strings.TrimSpace(name) != "flags" {
			continue
		}
		words := strings.Fields(flags)
		if slices.Contains(words, "svm") {
			return "kvm_amd", nil
		}
		if slices.Contains(words, "vmx") {
			return "kvm_intel", nil
		}
	}
	return "", errors.New("the guest's CPU offers no virtualisation, so the guest cannot run VMs")
}

// loadModule loads a module of the directory dir, and before it the modules that it depends on. It returns nil if the
// kernel has the module already, or was built with it.
func loadModule(dir, name string) error {
	files, err := moduleFiles(dir, name)
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := insertModule(filepath.Join(dir, file)); err != nil {
			return err
		}
	}
	return nil
}

// insertModule gives the module in a file, packed or not, to the kernel. It returns nil if the kernel has the module
// already.
func insertModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("loading a module: %w", err)
	}
	defer f.Close()
	flags := 0
	if filepath.Ext(path) != ".ko" {
		flags = moduleInitCompressed
	}
	if err := unix.FinitModule(int(f.Fd()), "", flags); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("loading the module %s: %w", filepath.Base(path), err)
	}
	return nil
}

// moduleFiles returns the file of a module and those of the modules that it needs, in the order in which they are
// loaded. For a module that is built into the kernel it returns no files. It reads modules.dep(5) and modules.builtin,
// which depmod writes.
func moduleFiles(dir, name string) ([]string, error) {
	list, err := os.Open(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, fmt.Errorf("looking for the module %s: %w", name, err)
	}
	defer list.Close()
	lines := bufio.NewScanner(list)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		file, needs, _ := strings.Cut(lines.Text(), ":")
		if moduleName(file) != name {
			continue
		}
		files := append([]string{file}, strings.Fields(needs)...)
		slices.Reverse(files) // a module stands before what it needs
		return files, nil
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("looking for the module %s: %w", name, err)
	}
	built, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	for file := range strings.Lines(string(built)) {
		if moduleName(strings.TrimSpace(file)) == name {
			return nil, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("the guest's kernel has no module %s", name), err)
}

// moduleName returns the name of the module in a file: kernel/arch/x86/kvm/kvm-amd.ko.xz has kvm_amd.
func moduleName(file string) string {
	base, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}
