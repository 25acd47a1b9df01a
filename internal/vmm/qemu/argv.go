package qemu

import (
	"fmt"
	"os"
	"strconv"

	"banger/internal/vmm"
)

// Kernel command lines.
//   - quiet and notests are the two large savings of an emulated boot.
//   - The blacklisted initcalls are self-tests and tracing set-up that a throw-away guest does not need.
//   - norandmaps lets QEMU keep what it has translated (docs/adr/0008).
//   - no_timer_check skips a test of the timer, which fails on a busy host and ends in a panic.
//     Guests of KVM never run that test.
//   - panic=-1 with -no-reboot turns a guest panic into the end of the process.
const (
	cmdlineBase = "console=ttyS0 quiet panic=-1 reboot=t random.trust_cpu=on"
	cmdlineTCG  = " cryptomgr.notests no_timer_check tsc=reliable initcall_blacklist=jent_mod_init," +
		"load_system_certificate_list,crypto_kdf108_init,init_kprobe_trace,trace_eval_init,trace_eval_sync norandmaps"
)

// descriptors are the numbers of the file descriptors that QEMU receives. QEMU opens no socket and
// no disk itself. Where it accepts only a path, it opens a descriptor again through /proc/self/fd.
type descriptors struct {
	monitor, kernel, initrd, memory int
	drives                          [][]int // of each drive its own and those beneath it
	nics                            []int
}

// numbers returns the descriptors for c, counted from first on. The order is that of handed.
func numbers(c vmm.Config, first int) descriptors {
	d := descriptors{monitor: first, kernel: first + 1, initrd: first + 2, memory: first + 3}
	next := first + 4
	for _, drive := range c.Drives {
		fds := make([]int, 1+len(drive.Base))
		for i := range fds {
			fds[i] = next
			next++
		}
		d.drives = append(d.drives, fds)
	}
	for range c.NICs {
		d.nics = append(d.nics, next)
		next++
	}
	return d
}

// handed returns the files of descriptors. All files of c must be open. QEMU gets none of a shared snapshot but the
// memory.
func handed(c vmm.Config, monitor, memory *os.File) []*os.File {
	c.From = nil
	files := c.Files()
	files = append([]*os.File{monitor, files[0], files[1], memory}, files[2:]...)
	for _, n := range c.NICs {
		if n.Tap != nil {
			files = append(files, n.Tap)
		} else {
			files = append(files, n.Socket)
		}
	}
	return files
}

// again returns a path through which QEMU opens a descriptor again.
func again(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// argv returns QEMU's arguments for c with a number of spare ports. maps says that the file which holds the guest's
// memory is a snapshot's. argv is a pure function: a golden test shows exactly what we ask of QEMU.
func argv(c vmm.Config, v version, maps bool, spares int) []string {
	cmdline, fds := cmdlineBase, numbers(c, firstFile+len(c.WrapFiles))
	if c.Accel == vmm.AccelTCG {
		cmdline += cmdlineTCG
	}
	if c.Cmdline != "" {
		cmdline += " " + c.Cmdline
	}
	a := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-name", "banger-" + c.ID,
		"-machine", "pc-q35-" + v.machine() + ",memory-backend=mem0,sata=off,smbus=off,usb=off,vmport=off,suppress-vmdesc=on",
		"-accel", accel(c, v), "-cpu", cpu(c),
		"-smp", strconv.Itoa(c.CPUs), "-m", fmt.Sprintf("%dM", c.MemoryMiB),
		"-object", fmt.Sprintf("memory-backend-file,id=mem0,size=%dM,mem-path=%s,%s", c.MemoryMiB,
			again(fds.memory), sharing(maps)),
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-kernel", again(fds.kernel), "-initrd", again(fds.initrd), "-append", cmdline,
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d", fds.monitor), "-mon", "chardev=qmp,mode=control",
		"-chardev", "null,id=" + agentDevice, // until OpenChannel connects a socket
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=" + agentDevice + ",name=" + c.Channel,
		"-device", "virtio-rng-pci",
	}
	if c.Restore != "" {
		// A stream of devices alone (xen-save-devices-state) has no configuration. -S: the guest waits for cont.
		a = append(a, "-incoming", "defer", "-S", "-global", "migration.send-configuration=off")
	}
	for i, d := range c.Drives {
		a = append(a, driveArguments(i, d, fds.drives[i])...)
	}
	for i, n := range c.NICs {
		net := fmt.Sprintf("net%d", i)
		device := fmt.Sprintf("virtio-net-pci,netdev=%s,mac=%s,romfile=", net, n.MAC)
		if n.MTU > 0 {
			device += fmt.Sprintf(",host_mtu=%d", n.MTU)
		}
		a = append(a, "-netdev", netdev(net, n, fds.nics[i]), "-device", device)
	}
	return append(a, spareArguments(spares)...)
}

// safeThreads is the first QEMU whose emulated CPUs may each have a thread of the host. In older ones a CPU can go on
// with the translation of an instruction that another CPU has replaced meanwhile. Linux replaces instructions when it
// switches a static key, such as that for limits of CPU time. Both CPUs then wait for good (docs/adr/0024).
var safeThreads = version{major: 8, minor: 1}

// accel returns what executes the guest.
func accel(c vmm.Config, v version) string {
	if c.Accel == vmm.AccelTCG && c.CPUs > 1 && !c.Nested && v.less(safeThreads) {
		return "tcg,thread=single"
	}
	return string(c.Accel)
}

// sharing returns the option that says whether the guest changes the file that holds its memory. It
// changes the VM's own file, which a snapshot copies, but not a snapshot's file, which must stay as
// it is.
func sharing(maps bool) string {
	if maps {
		return "share=off"
	}
	return "share=on"
}

// firstFile is the first descriptor after stdio.
const firstFile = 3

// netdev returns the host's side of a NIC: a tap or a socket, which is descriptor fd.
func netdev(id string, n vmm.NIC, fd int) string {
	if n.Tap != nil {
		return fmt.Sprintf("tap,id=%s,fd=%d,vhost=off", id, fd)
	}
	return fmt.Sprintf("stream,id=%s,server=off,addr.type=fd,addr.str=%d", id, fd)
}
